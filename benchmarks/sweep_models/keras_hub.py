"""Every backbone and task of KerasHub, tiny, with random weights."""

import functools

import keras
import numpy as np

from sweep_models.case import Case
from sweep_models.case import Problem
from sweep_models.keras_hub_models import BACKBONES
from sweep_models.keras_hub_models import VOCABULARY
from sweep_models.keras_hub_tasks import TASKS

_ROWS, _BATCH = 8, 4
_LENGTH, _SIZE = 8, 32


def example(name, symbol):
    """Returns values for an input of a model, by its name and type."""
    random = np.random.default_rng(len(name))
    default = _SIZE if len(symbol.shape) > 3 else _LENGTH
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
    """Returns inputs for a functional model, in its own structure."""
    return keras.tree.map_structure(
        lambda symbol: example(symbol.name, symbol), model.input
    )


def problem_of(model, classes):
    """Returns the problem of a model: classes, or any outputs by squares.

    Args:
        model: Functional model of KerasHub.
        classes: Whether its output is logits.
    """
    x = inputs_of(model)
    one = keras.tree.map_structure(lambda value: value[:_BATCH], x)
    outputs = model(one, training=False)
    random = np.random.default_rng(5)

    def target(output):
        shape = (_ROWS, *output.shape[1:])
        if classes:
            return random.integers(0, shape[-1], shape[:-1])
        return random.normal(size=shape).astype("float32")

    loss = "logits"
    if not classes:
        loss = keras.tree.map_structure(
            lambda _: keras.losses.MeanSquaredError(), outputs
        )
    return Problem(
        model,
        x,
        keras.tree.map_structure(target, outputs),
        loss=loss,
        batch_size=_BATCH,
        sparsity=0.5,
        optimizer=functools.partial(keras.optimizers.Adam, 0.01),
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
