"""Export for microcontrollers."""

import math

import numpy as np

from tf_gems.export import decode_operator
from tf_gems.export import flatbuffer
from tf_gems.export import worker
from tf_gems.export.litert import write_int8
from tf_gems.export.report import ExportReport
from tf_gems.export.run_litert import in_floats
from tf_gems.export.run_litert import in_integers
from tf_gems.export.run_litert import match
from tf_gems.parity import measure_batches
from tf_gems.validation import check_package

# Beside the tensors: what the runtime keeps of them, and of the operators.
_SLACK_BYTES = 1 << 20


def export_micro(
    model,
    path,
    representative_data,
    inputs=None,
    tolerance=None,
    compact=False,
) -> ExportReport:
    """Writes an int8 file for microcontrollers that stores no zeros.

    The file computes in 8-bit integers, with integer inputs and outputs and a
    batch size of one. A weight with enough zeros is stored as one bit for each
    value, followed by the nonzero values. TensorFlow Lite for Microcontrollers
    decodes it before the layer that reads it runs. This takes less flash
    memory, but additional RAM for the largest decoded weight, whose size is in
    the report. Only this runtime reads such a file.

    The file is run with the interpreter of that runtime, and compared with the
    Keras model. Requires `pip install tf_gems[micro]`. On the device, register
    the operator `DECODE` in addition to the operators of the network.

    Args:
        model: `tf_gems.SparseModel`, or plain Keras model with zeros in its
            weights. It is not changed.
        path: String or path that ends in `.tflite`. An existing file is
            replaced.
        representative_data: Inputs of the model for calibrating the ranges of
            activations, a hundred real examples or more.
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
        ValueError: If an argument is out of range, or as for
            `tf_gems.export_litert`.

    Example:

    ```python
    report = tf_gems.export_micro(sparse, "model.tflite", images[:200])
    print(report)
    ```
    """
    version = check_package(
        *("tflite_micro", "tflite-micro", "micro"),
        "A file for microcontrollers is run with their runtime before it is "
        "written.",
    )
    runtime = f"tflite-micro {version}"

    def run(attempt, data):
        try:
            return attempt.run_file(data, worker.run_micro)
        except worker.WorkerError as error:
            reason = error.crashed or " ".join(str(error).split())
            log = " ".join(error.log.split())[-200:]
            raise RuntimeError(
                "An export must run. Received: a file that the runtime of "
                f"microcontrollers does not run, path={attempt.path!r}: "
                f"{reason} ({log}). Nothing was written. This runtime has "
                "fewer operators than LiteRT: replace the layers that it "
                "does not support."
            ) from error

    def finish(attempt):
        attempt.progress.step("running the file")
        outputs = run(attempt, attempt.data)
        attempt.compare([outputs], attempt.data)
        attempt.ran = [runtime]
        attempt.progress.step("storing its zeros")
        _compress(attempt)
        found = run(attempt, attempt.data)
        if measure_batches(outputs, found).difference:
            raise RuntimeError(
                "Weights must be decoded without loss. Received: a file for "
                f"which the outputs of {runtime} differ from those with dense "
                f"weights, path={attempt.path!r}. Nothing was written. Export "
                "the int8 form with `tf_gems.export_litert`."
            )

    export, _ = write_int8(
        model, path, inputs, representative_data, tolerance, compact, finish
    )
    return export


def _compress(attempt):
    """Encodes the weights of an attempt, see `decode_operator`."""
    file = flatbuffer.read(attempt.data)
    sizes, reasons = decode_operator.compress(file)
    if not sizes:
        return
    for place, row in attempt.rows.items():
        if place in sizes:
            row["encoding"], row["bytes"] = "sparse", sizes[place]
        elif row["zeros"]:
            row["reason"] = reasons[place]
    largest = max(math.prod(attempt.rows[place]["shape"]) for place in sizes)
    attempt.notes.append(
        "Weights are decoded into memory at run time. The largest takes "
        f"{largest:,} bytes."
    )
    attempt.data = bytes(flatbuffer.write(file))


def run_micro(path, feeds):
    """Runs a TFLite file by the interpreter for microcontrollers.

    Feeds and outputs are lists of dicts from names to arrays of floats.
    """
    from tflite_micro.python.tflite_micro import runtime

    with open(path, "rb") as file:
        data = file.read()
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    # Memory that is enough for every tensor at once.
    sizes = [8 * math.prod(map(int, t.shape)) for t in graph.tensors]
    interpreter = runtime.Interpreter.from_bytes(
        data, arena_size=2 * sum(sizes) + _SLACK_BYTES
    )
    [signature] = model.signatureDefs
    taken = flatbuffer.details(graph, graph.inputs, signature.inputs)
    given = flatbuffer.details(graph, graph.outputs, signature.outputs)
    names = match(feeds[0], taken)
    found = []
    for feed in feeds:
        for name, value in feed.items():
            detail = taken[names[name]]
            interpreter.set_input(in_integers(value, detail), detail["place"])
        interpreter.invoke()
        outputs = {
            name: np.array(interpreter.get_output(detail["place"]))
            for name, detail in given.items()
        }
        found.append(in_floats(outputs, given))
    return found
