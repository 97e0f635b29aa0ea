"""Writes what the page shows."""

import json
import os
from pathlib import Path

import numpy as np

from tf_gems.export.litert import export_litert
from tf_gems.export.network import Network
from tf_gems.export.sparse_readiness import dense_file
from tf_gems.page.pictures import pictures


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
):
    """Writes a pruned network and its dense twin for the page.

    Both files take one example at a time, as LiteRT.js wants them, and hold
    the same weights. What Keras computes for the examples is written beside
    them: the page compares each file with it before it shows any time.

    Args:
        model: `tf_gems.SparseModel` with a ticket, or plain Keras model with
            zeros in its weights, of one input and one output of classes.
        directory: String or path, made if it is not there.
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
        history: Dict from names to lists of numbers, as `fit` returns it, of
            which the page draws curves. Defaults to `None`.
        optimize: See `tf_gems.export_litert`. Defaults to `"latency"`.
        name: String, the title. Defaults to the model's.

    Returns:
        `tf_gems.ExportReport` of the sparse file.

    Raises:
        RuntimeError: As for `tf_gems.export_litert`.
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
    directory = Path(directory)
    os.makedirs(directory, exist_ok=True)
    network = Network(model, inputs)
    report = export_litert(
        model,
        directory / "sparse.tflite",
        inputs=inputs,
        batch_size=1,
        optimize=optimize,
    )
    dense = dense_file(model)
    (directory / "dense.tflite").write_bytes(dense)
    [outputs] = network.outputs([network.signature.flatten(inputs)])
    outputs = outputs[min(outputs)]
    with network.masked() as plain:
        drawn = pictures(plain, inputs.shape[1:])
    inputs.astype("<f4").tofile(directory / "inputs.bin")
    np.asarray(outputs).astype("<f4").tofile(directory / "outputs.bin")
    channels = inputs.shape[3] if inputs.ndim == 4 else 1
    sizes = [int(np.prod(tensor["shape"])) for tensor in report.tensors]
    page = {
        "name": name or network.name,
        "shape": [1, *inputs.shape[1:]],
        "classes": list(map(str, classes)),
        "labels": None if labels is None else [int(y) for y in labels],
        "mean": np.broadcast_to(mean, channels).astype(float).tolist(),
        "deviation": np.broadcast_to(deviation, channels)
        .astype(float)
        .tolist(),
        "logits": bool(logits),
        "sparsity": report.zeros / sum(sizes),
        "bytes": {"dense": len(dense), "sparse": report.bytes},
        "tensors": report.tensors,
        "notes": report.notes,
        "pictures": drawn,
        "history": {k: list(map(float, v)) for k, v in (history or {}).items()},
    }
    (directory / "page.json").write_text(json.dumps(page, indent=2) + "\n")
    return report
