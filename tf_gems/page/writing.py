"""Writes what the page shows."""

import json
import math

import numpy as np

from tf_gems import colors
from tf_gems.export.litert import export_litert
from tf_gems.export.network import Network
from tf_gems.export.readiness_report import dense_file
from tf_gems.files import lock
from tf_gems.files import replacing
from tf_gems.files import write_text
from tf_gems.page.pictures import pictures
from tf_gems.page.server import FILES
from tf_gems.targets import check_names
from tf_gems.targets import claiming
from tf_gems.text import printable
from tf_gems.validation import is_number


def write_page(
    model,
    directory,
    inputs,
    labels=None,
    classes=(),
    mean=0.0,
    deviation=1.0,
    logits=True,
    history=None,
    optimize="latency",
    name=None,
    accuracy=None,
    dense_accuracy=None,
):
    """Writes a pruned network and its dense twin for the page.

    Both files take one example at a time, as LiteRT.js wants them, and hold
    the same weights. What Keras computes for the examples is written beside
    them: the page compares each file with it before it shows any time.

    Args:
        model: `tf_gems.SparseModel` with a ticket, or plain Keras model with
            zeros in its weights, of one input and one output of classes.
        directory: String or path, made if it is not there. Files in it that
            an earlier call wrote are replaced, and no others.
        inputs: Float array of examples, (count, height, width, channels),
            or (count, height, width) for grey ones. A few are enough.
        labels: Integers, the classes of the examples. Defaults to `None`.
        classes: List of names of the classes. Defaults to their numbers.
        mean: Float, or one a channel: what was subtracted from pixels in
            [0, 1]. Defaults to `0.0`.
        deviation: Float, or one a channel: what they were then divided by.
            Defaults to `1.0`.
        logits: Whether the outputs are logits, not probabilities. Defaults
            to `True`.
        history: Dict from names to lists of numbers, one an epoch, as `fit`
            returns it. The page draws a chart for each quantity. A name such
            as `"mining, accuracy"` is a stage and a quantity: the stages of a
            quantity share its chart. Defaults to `None`.
        optimize: See `tf_gems.export_litert`. Defaults to `"latency"`.
        name: String, the title. Defaults to the model's.
        accuracy: Float, the test accuracy of the network. Defaults to `None`:
            none is shown.
        dense_accuracy: Float, that of the network before it was pruned.
            Defaults to `None`.

    Returns:
        `tf_gems.ExportReport` of the sparse file.

    Raises:
        FileExistsError: If a file of someone else has the name of a page's.
        RuntimeError: If another process writes the page, and as for
            `tf_gems.export_litert`.
        ValueError: If the inputs are no images.

    Example:

    ```python
    tf_gems.page.write_page(sparse, "runs/mnist", images[:8], labels[:8])
    tf_gems.page.serve("runs/mnist")
    ```
    """
    inputs = np.asarray(inputs, "float32")
    if inputs.ndim not in (3, 4) or not len(inputs):
        raise ValueError(
            "The page shows images: (count, height, width, channels) or "
            f"(count, height, width). Received: inputs of shape "
            f"{inputs.shape}."
        )
    check_names(directory, FILES)
    network = Network(model, inputs)
    settings = {
        "labels": None if labels is None else [int(y) for y in labels],
        "classes": [printable(text) for text in classes],
        "name": printable(name or network.name),
        "logits": bool(logits),
        "accuracy": _fraction(accuracy, "accuracy"),
        "dense_accuracy": _fraction(dense_accuracy, "dense_accuracy"),
        # Without black, which is the background of a dark page.
        "palette": [c for c in colors.CYCLE if c != colors.BLACK],
        "history": {
            printable(k): _curve(v) for k, v in (history or {}).items()
        },
    }
    with lock(directory), claiming(directory, FILES) as directory:
        return _write(
            model,
            network,
            directory,
            inputs,
            mean,
            deviation,
            optimize,
            settings,
        )


def _write(
    model, network, directory, inputs, mean, deviation, optimize, settings
):
    report = export_litert(
        model,
        directory / "sparse.tflite",
        inputs=inputs,
        batch_size=1,
        optimize=optimize,
    )
    dense = dense_file(model)
    [outputs] = network.outputs([network.signature.flatten(inputs)])
    outputs = outputs[min(outputs)]
    with network.masked() as plain:
        drawn = pictures(plain, inputs.shape[1:])
    for file, content in {
        "dense.tflite": dense,
        "inputs.bin": inputs.astype("<f4").tobytes(),
        "outputs.bin": np.asarray(outputs).astype("<f4").tobytes(),
    }.items():
        with replacing(directory / file) as opened:
            opened.write(content)
    channels = inputs.shape[3] if inputs.ndim == 4 else 1
    sizes = [int(np.prod(tensor["shape"])) for tensor in report.tensors]
    page = {
        **settings,
        "shape": [1, *inputs.shape[1:]],
        "mean": np.broadcast_to(mean, channels).astype(float).tolist(),
        "deviation": np.broadcast_to(deviation, channels)
        .astype(float)
        .tolist(),
        "sparsity": report.zeros / sum(sizes),
        "bytes": {"dense": len(dense), "sparse": report.bytes},
        "tensors": [
            {**tensor, "name": printable(tensor["name"])}
            for tensor in report.tensors
        ],
        "notes": report.notes,
        "pictures": drawn,
    }
    text = json.dumps(page, indent=2, allow_nan=False)
    write_text(directory / "page.json", f"{text}\n")
    return report


def _curve(values):
    """Returns numbers for JSON, which has no NaN: null leaves a gap."""
    return [v if math.isfinite(v) else None for v in map(float, values)]


def _fraction(value, name):
    if value is None:
        return None
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(
            f"`{name}` is a fraction in [0, 1]. Received: {name}={value!r}. "
            "Give a number such as 0.98."
        )
    return float(value)
