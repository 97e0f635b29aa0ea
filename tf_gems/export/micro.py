"""Export for microcontrollers."""

import math
import os

from tf_gems.export import decode_operator
from tf_gems.export import flatbuffer
from tf_gems.export import run_micro
from tf_gems.export import worker
from tf_gems.export.litert import write_litert
from tf_gems.export.parity import measure_parity
from tf_gems.export.parity import worst
from tf_gems.export.report import ExportReport


def export_micro(
    model,
    path,
    representative_data,
    inputs=None,
    tolerance=None,
    compact=False,
) -> ExportReport:
    """Writes an int8 file without zeros for microcontrollers.

    The file computes in 8-bit integers, with integer inputs and outputs and a
    batch size of one. Of weights with zeros enough it holds one bit for each
    value and the values that are not zero; TensorFlow Lite for
    Microcontrollers decodes each of them before the layer that reads it runs.
    That takes less flash, and memory for the largest decoded weight: the
    report says how much. Only this runtime reads such a file.

    The file is run by the interpreter of that runtime, and compared with the
    Keras model. It needs `pip install tf_gems[micro]`. On the device, register
    the operator `DECODE`, beside those of the network.

    Args:
        model: `tf_gems.SparseModel`, or plain Keras model with zeros in its
            weights. It is left as it is.
        path: String or path that ends in `.tflite`. A file there is replaced.
        representative_data: Inputs, as the model takes them, from which the
            ranges of activations are learned: a hundred real examples or
            more.
        inputs: Inputs to compare outputs on. Defaults to `None`: the
            representative data.
        tolerance: Float, see `tf_gems.export_litert`. Defaults to `None`:
            1e-1.
        compact: Whether to remove dead channels first, see
            `tf_gems.export_litert`. Defaults to `False`.

    Returns:
        `tf_gems.ExportReport`.

    Raises:
        OSError: If the file cannot be written.
        RuntimeError: If the runtime is not installed, or as for
            `tf_gems.export_litert`.
        ValueError: If an argument is out of range, or as there.

    Example:

    ```python
    report = tf_gems.export_micro(sparse, "model.tflite", images[:200])
    print(report)
    ```
    """
    runtime = run_micro.version()
    tensors = []

    def finish(attempt, inside):
        attempt.progress.step("running the file")
        micro = _Runtime(attempt.trial, os.fspath(path), inside)
        outputs = micro.outputs(attempt.data)
        attempt.parity = _compared(attempt.trial.expected, outputs)
        attempt.parity.refuse_above(attempt.trial.tolerance, f"path={path!r}")
        attempt.ran = [runtime]
        attempt.progress.step("storing its zeros")
        data, rows = _compressed(attempt)
        tensors.extend(rows)
        if _compared(outputs, micro.outputs(data)).difference:
            raise RuntimeError(
                "Weights must be decoded as they were. Received: a file from "
                f"which {runtime} computes something else than from dense "
                f"weights, path={path!r}. Nothing was written. Export the "
                "int8 form by `tf_gems.export_litert`."
            )
        attempt.data = data

    export, _ = write_litert(
        *(model, path, inputs, "int8", representative_data),
        batch_size=1,
        tolerance=tolerance,
        io="int8",
        sparse=False,
        compact=compact,
        finish=finish,
    )
    export.tensors = tensors
    return export


def _compressed(attempt):
    """Returns the file of an attempt without zeros, and rows of its report."""
    file = flatbuffer.read(attempt.data)
    places = list(flatbuffer.weights(file))
    rows = flatbuffer.describe(file, attempt.patterns)
    sizes, reasons = decode_operator.compress(file)
    if not sizes:
        return attempt.data, rows
    for place, row in zip(places, rows, strict=True):
        if place in sizes:
            row["encoding"], row["bytes"] = "sparse", sizes[place]
        elif row["zeros"]:
            row["reason"] = reasons[place]
    largest = max(
        math.prod(row["shape"]) for row in rows if row["encoding"] == "sparse"
    )
    attempt.notes.append(
        "Weights are decoded into memory while it runs; the largest takes "
        f"{largest:,} bytes."
    )
    return bytes(flatbuffer.write(file)), rows


def _compared(expected, received):
    """Returns how the outputs of a file differ most, over all inputs."""
    return worst(
        [
            measure_parity(ours, theirs)
            for ours, theirs in zip(expected, received, strict=True)
        ]
    )


class _Runtime:
    """Runs files on the inputs of a `Trial`, in a process of their own.

    Args:
        trial: `Trial`.
        path: String, what errors name.
        inside: String, a folder for the files.
    """

    def __init__(self, trial, path, inside):
        self.trial = trial
        self.path = path
        self.candidate = os.path.join(inside, "micro.tflite")

    def outputs(self, data):
        """Returns a list of dicts from the names of outputs to arrays."""
        with open(self.candidate, "wb") as file:
            file.write(data)
        seconds = worker.seconds_for(len(data), 4 * len(self.trial.feeds))
        try:
            return worker.run_micro(self.candidate, self.trial.feeds, seconds)
        except worker.WorkerError as error:
            reason = error.crashed or " ".join(str(error).split())
            said = " ".join(error.log.split())[-200:]
            raise RuntimeError(
                "An export must run. Received: a file that the runtime of "
                f"microcontrollers does not run, path={self.path!r}: {reason} "
                f"({said}). Nothing was written. This runtime has fewer "
                "operators than LiteRT: replace the layers that it lacks."
            ) from error
