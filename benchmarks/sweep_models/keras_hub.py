"""Every backbone and task of KerasHub, tiny, with random weights."""

import functools

import keras
import numpy as np

from sweep_models.case import Case
from sweep_models.case import Problem
from sweep_models.keras_hub_models import BACKBONES
from sweep_models.keras_hub_parts import VOCABULARY
from sweep_models.keras_hub_tasks import TASKS

_ROWS, _BATCH = 8, 4
_LENGTH, _SIZE, _SOUND = 8, 32, 1024


def example(name, symbol, length):
    """Returns example values for a model input, by its name and dtype."""
    random = np.random.default_rng(len(name))
    default = _SIZE if len(symbol.shape) > 3 else length
    shape = [size or default for size in symbol.shape[1:]]
    shape = (_ROWS, *shape)
    if "position" in name and "mask" in name:
        return random.integers(0, _LENGTH, shape).astype(symbol.dtype)
    if "mask" in name:
        return np.ones(shape, symbol.dtype)
    if "segment" in name or "label" in name:
        return random.integers(0, 2, shape).astype(symbol.dtype)
    if "position" in name and "int" in symbol.dtype:
        return np.broadcast_to(np.arange(shape[-1]), shape).astype(symbol.dtype)
    if "int" in symbol.dtype:
        return random.integers(1, VOCABULARY, shape).astype(symbol.dtype)
    if "bool" in symbol.dtype:
        return np.ones(shape, "bool")
    return random.uniform(size=shape).astype(symbol.dtype)


def inputs_of(model):
    """Returns inputs for a functional model, in the structure of its inputs."""
    sound = {symbol.name for symbol in model.inputs} & {"encoder_input_values"}

    def one(symbol):
        if symbol.name == "masks":  # The prompts of SAM.
            return np.ones((_ROWS, 1, 16, 16, 1), "float32")
        heard = sound and symbol.name.startswith("encoder")
        return example(symbol.name, symbol, _SOUND if heard else _LENGTH)

    return keras.tree.map_structure(one, model.input)


def targets_of(model, x, classes):
    """Returns random targets and losses for the outputs of a model."""
    one = keras.tree.map_structure(lambda value: value[:_BATCH], x)
    outputs = model(one, training=False)
    random = np.random.default_rng(5)

    def target(output):
        shape = (_ROWS, *output.shape[1:])
        if classes:
            return random.integers(0, shape[-1], shape[:-1])
        return random.normal(size=shape).astype("float32")

    loss = "logits"
    if isinstance(outputs, dict):  # Constant outputs cannot be trained.
        outputs = {
            name: value
            for name, value in outputs.items()
            if getattr(value, "shape", (0,))[0] == _BATCH
        }
    if not classes:
        loss = keras.tree.map_structure(
            lambda _: keras.losses.MeanSquaredError(), outputs
        )
    return keras.tree.map_structure(target, outputs), loss


def boxes(size):
    """Returns two boxes and labels for each image."""
    random = np.random.default_rng(6)
    corners = random.uniform(0, 0.5, (_ROWS, 2, 2))
    return {
        "boxes": (size * np.concatenate([corners, corners + 0.4], -1)).astype(
            "float32"
        ),
        "labels": random.integers(0, 3, (_ROWS, 2)),
    }


def problem_of(model, classes):
    """Returns the problem of a model: classification or mean squared error.

    Args:
        model: Functional model of KerasHub.
        classes: Boolean, whether its output is logits.
    """
    x = inputs_of(model)
    y, loss = targets_of(model, x, classes)
    kind = type(model).__name__
    if kind == "RetinaNetObjectDetector":
        y = boxes(64)
        loss = {
            "bbox_regression": keras.losses.MeanAbsoluteError(reduction="sum"),
            "cls_logits": keras.losses.BinaryFocalCrossentropy(
                from_logits=True, reduction="sum"
            ),
        }
    elif kind == "DFineObjectDetector":
        y, loss = boxes(1), model.compute_loss
    elif kind == "BASNetImageSegmenter":
        loss = "binary_crossentropy"
        y = (np.asarray(y) > 0).astype("float32")
    # Keras itself computes NaN for FNet at the higher rate.
    rate = 0.001 if kind.startswith("FNet") else 0.01
    return Problem(
        model,
        x,
        y,
        loss=loss,
        batch_size=_BATCH,
        sparsity=0.5,
        optimizer=functools.partial(keras.optimizers.Adam, rate),
    )


def build_backbone(name):
    """Returns the problem of a backbone."""
    return problem_of(BACKBONES[name](), classes=False)


def build_task(name):
    """Returns the problem of a task on its backbone."""
    import keras_hub

    backbone, options = TASKS[name]
    constructor = getattr(keras_hub.models, name)
    options = options() if callable(options) else options
    model = constructor(
        backbone=BACKBONES[backbone](), preprocessor=None, **options
    )
    logits = ("Classifier", "LM", "PLM")
    return problem_of(model, classes=name.endswith(logits))


CASES = [
    *(
        Case("keras_hub", name, functools.partial(build_backbone, name))
        for name in BACKBONES
    ),
    *(
        Case("keras_hub", name, functools.partial(build_task, name))
        for name in TASKS
    ),
]
