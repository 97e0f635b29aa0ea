"""Writes the files of the page."""

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
from tf_gems.validation import check_bool
from tf_gems.validation import check_choice
from tf_gems.validation import check_number


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
    """Writes a page for a pruned network and its dense twin.

    Both TFLite files take one example at a time, as LiteRT.js requires, and
    have the same weights. The outputs of Keras for the examples are stored
    too. The page compares each file with them before it shows a time.

    Args:
        model: `tf_gems.SparseModel` with a ticket, or plain Keras model with
            zeros in its weights, with one input and one output of classes.
        directory: String or path, created if it does not exist. Only files
            that an earlier call wrote are replaced.
        inputs: Float array of examples, (count, height, width, channels), or
            (count, height, width) for gray images. A few are enough.
        labels: Integers, the classes of the examples. Defaults to `None`.
        classes: List of names of the classes. Defaults to class numbers.
        mean: Float, or one float for each channel, that was subtracted from
            pixels in [0, 1]. Defaults to `0.0`.
        deviation: Float, or one float for each channel, by which the pixels
            were then divided. Defaults to `1.0`.
        logits: Whether the outputs are logits, not probabilities. Defaults
            to `True`.
        history: Dict from names to lists of numbers, one for each epoch, as
            returned by `fit`. The page shows one chart for each quantity. A
            name such as `"mining, accuracy"` consists of a stage and a
            quantity. All stages of a quantity are in the same chart. Defaults
            to `None`.
        optimize: See `tf_gems.export_litert`. Defaults to `"latency"`.
        name: String, the title. Defaults to the model's.
        accuracy: Float, the test accuracy of the network. Defaults to `None`:
            not shown.
        dense_accuracy: Float, the test accuracy of the dense network. Defaults
            to `None`.

    Returns:
        `tf_gems.ExportReport` of the sparse file.

    Raises:
        FileExistsError: If a file of the page exists and was not written by
            an earlier call.
        RuntimeError: If another process writes the page, and as for
            `tf_gems.export_litert`.
        ValueError: If the inputs are not images.

    Example:

    ```python
    tf_gems.page.write_page(sparse, "runs/mnist", images[:8], labels[:8])
    tf_gems.page.serve("runs/mnist")
    ```
    """
    try:
        inputs = np.asarray(inputs, "float32")
    except (OverflowError, TypeError, ValueError):
        inputs = np.zeros(())
    if inputs.ndim not in (3, 4) or not len(inputs):
        raise ValueError(
            "The page requires images: (count, height, width, channels) or "
            "(count, height, width). Received: inputs of shape "
            f"{inputs.shape}."
        )
    check_names(directory, FILES)
    check_choice(optimize, "optimize", ("size", "latency"))
    network = Network(model, inputs)
    channels = inputs.shape[3] if inputs.ndim == 4 else 1
    settings = {
        "mean": _by_channel(mean, "mean", channels),
        "deviation": _by_channel(deviation, "deviation", channels, 0),
        "labels": _labels(labels, len(inputs)),
        "classes": _classes(classes),
        "name": printable(_name(name) or network.name),
        "logits": check_bool(logits, "logits"),
        "accuracy": accuracy,
        "dense_accuracy": dense_accuracy,
        # No black: it is the background in dark mode.
        "palette": [c for c in colors.CYCLE if c != colors.BLACK],
        "history": _history(history),
    }
    for name in ("accuracy", "dense_accuracy"):
        if settings[name] is not None:
            settings[name] = check_number(settings[name], name, 0, 1)
    with lock(directory), claiming(directory, FILES) as directory:
        return _write(model, network, directory, inputs, optimize, settings)


def _write(model, network, directory, inputs, optimize, settings):
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
    sizes = [int(np.prod(tensor["shape"])) for tensor in report.tensors]
    page = {
        **settings,
        "shape": [1, *inputs.shape[1:]],
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


def _by_channel(value, name, channels, above=-np.inf):
    """Returns a list of finite numbers, one for each channel."""
    try:
        found = np.broadcast_to(value, channels).astype(float)
        numbers = np.asarray(value).dtype.kind in "iuf"
        if numbers and np.all(np.isfinite(found) & (found > above)):
            return found.tolist()
    except (OverflowError, TypeError, ValueError):
        pass
    raise ValueError(
        f"`{name}` must be a finite number, or one for each of {channels} "
        f"channels{', above 0' if above == 0 else ''}. Received: "
        f"{name}={value!r:.100}. Pass the values by which the images were "
        "scaled."
    )


def _labels(labels, count):
    """Returns labels as integers, one for each image."""
    if labels is None:
        return None
    found = np.asarray(labels)
    if found.shape != (count,) or found.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be integers, one for each of {count} images. "
            f"Received: labels={labels!r:.100}. Leave them out if there are "
            "none."
        )
    return found.tolist()


def _classes(classes):
    """Returns the names of the classes, or their numbers."""
    if not isinstance(classes, list | tuple | range) or not all(
        isinstance(name, str | int) for name in classes
    ):
        raise ValueError(
            "`classes` must be a list of names. Received: "
            f"classes={classes!r:.100}. Leave it out to show numbers."
        )
    return [printable(name) for name in classes]


def _name(name):
    if name is None or isinstance(name, str):
        return name
    raise ValueError(f"`name` must be a string. Received: name={name!r:.100}.")


def _history(history):
    """Returns what `fit` recorded, as JSON values."""
    history = {} if history is None else history
    try:
        if isinstance(history, dict):
            return {printable(k): _curve(v) for k, v in history.items()}
    except (TypeError, ValueError):  # no numbers
        pass
    raise ValueError(
        "`history` must be a dict of lists of numbers, like the attribute "
        "`history` of the object that `fit` returns. Received: "
        f"history={history!r:.100}."
    )


def _curve(values):
    """Returns numbers for JSON, which has no NaN: null leaves a gap."""
    return [v if math.isfinite(v) else None for v in map(float, values)]
