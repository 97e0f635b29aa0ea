"""Export to a sparse TFLite file."""

import gzip
import os
import tempfile

import keras
import numpy as np

from tf_gems.export import flatbuffer
from tf_gems.export import xnnpack
from tf_gems.export.comparison import compare
from tf_gems.export.comparison import doubts
from tf_gems.export.comparison import example_inputs
from tf_gems.export.comparison import named_inputs
from tf_gems.export.comparison import worst
from tf_gems.export.network import computed_in_float32
from tf_gems.export.network import plain_network
from tf_gems.export.network import with_batch_size
from tf_gems.export.paths import check_target
from tf_gems.export.quiet import quiet
from tf_gems.export.report import ExportReport
from tf_gems.export.run_litert import run_litert
from tf_gems.export.sparsify import sparsify
from tf_gems.validation import check_choice


def export_litert(
    model,
    path,
    inputs=None,
    batch_size=None,
    optimize="size",
    tolerance=1e-4,
):
    """Writes a float32 TFLite file that stores only the kept weights.

    The file is run, with and without XNNPACK, and its outputs are compared
    with those of the Keras model, before it is given its name: a file at
    `path` was right on this machine. Where sparse weights could make XNNPACK
    wrong on another machine, they are stored densely, and the report says so.

    Args:
        model: `tf_gems.SparseModel`, which is stripped first, or plain Keras
            model with zeros in its weights.
        path: String or path that ends in `.tflite`. A file there is replaced.
        inputs: Inputs to compare outputs on, as the model takes them.
            Defaults to `None`: random ones, the same each time.
        batch_size: Integer that the file is fixed to. Defaults to `None`:
            any, which LiteRT allows for most networks; for others it is 1, and
            the report says so.
        optimize: `"size"`: the smallest file; weights are expanded when it
            is loaded. `"latency"`: `Dense` kernels with more than about 95 %
            zeros are stored in blocks of four and stay sparse while the
            model runs, which is faster for single examples. Defaults to
            `"size"`.
        tolerance: Float, the largest difference of outputs that is accepted,
            as a fraction of the largest output. Defaults to `1e-4`.

    Returns:
        `tf_gems.ExportReport`.

    Raises:
        OSError: If `path` cannot be written.
        RuntimeError: If nothing has been pruned yet, if Keras does not run on
            TensorFlow, or if the file computes something else.
        ValueError: If an argument is out of range, or the model is not a
            built Keras 3 model.

    Example:

    ```python
    report = tf_gems.export_litert(sparse, "model.tflite", inputs=images)
    print(report)
    ```
    """
    path = os.fspath(path)
    if not path.endswith(".tflite"):
        raise ValueError(
            "A TFLite file's name ends in '.tflite'. "
            f"Received: path={path!r}. Did you mean {path + '.tflite'!r}?"
        )
    check_target(path)
    check_choice(optimize, "optimize", ("size", "latency"))
    plain, signature = plain_network(model, inputs)
    notes = []
    with computed_in_float32(plain) as changed:
        if changed:
            notes.append("The network computes in float32 here.")
        dense, batch_size = _convert(plain, signature, batch_size, notes)
        if inputs is None:
            arguments = example_inputs(signature, 4 * (batch_size or 1))
        else:
            arguments = [inputs] if len(signature) == 1 else list(inputs)
        batches = _batches(arguments, batch_size)
        expected = [plain(*batch, training=False) for batch in batches]
    sparse = _encode(dense, optimize, notes)

    partial = f"{path}.partial-{os.getpid()}"
    try:
        with open(partial, "wb") as file:
            file.write(sparse)
        feeds = [named_inputs(signature, batch) for batch in batches]
        received, ran = run_litert(partial, feeds)
        comparison = worst(
            [
                compare(ours, theirs)
                for outputs in received
                for ours, theirs in zip(expected, outputs, strict=True)
            ]
        )
        comparison.refuse_above(tolerance, f"path={path!r}")
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    if not ran[0].startswith("ai_edge_litert"):
        notes.append(
            "It was run by TensorFlow's own interpreter. Install "
            "`tf_gems[litert]` to run it as devices do."
        )
    notes += doubts(expected)
    return ExportReport(
        path=path,
        format="litert",
        bytes=len(sparse),
        gzip_bytes=len(gzip.compress(sparse, mtime=0)),
        dense_bytes=len(dense),
        dense_gzip_bytes=len(gzip.compress(dense, mtime=0)),
        tensors=flatbuffer.describe(flatbuffer.read(sparse), plain.weights),
        largest_difference=comparison.difference,
        largest_output=comparison.magnitude,
        ran=ran,
        notes=notes,
    )


def _convert(plain, signature, batch_size, notes):
    """Returns a dense TFLite file's bytes, and the batch size it takes."""
    if batch_size is not None:
        return _convert_once(plain, signature, batch_size), batch_size
    with quiet():
        from tensorflow.lite.python.convert_phase import ConverterError
    try:
        return _convert_once(plain, signature, None), None
    except ConverterError:
        # Recurrent layers: their lists of states need a known batch size. If
        # that was not the cause, the error comes again.
        data = _convert_once(plain, signature, 1)
    notes.append(
        "TFLite cannot leave the batch size of this network open: the file "
        "takes one example at a time."
    )
    return data, 1


def _convert_once(plain, signature, batch_size):
    import tensorflow as tf

    signature = with_batch_size(signature, batch_size)
    with tempfile.TemporaryDirectory() as directory, quiet():
        plain.export(
            directory,
            format="tf_saved_model",
            verbose=False,
            input_signature=signature,
        )
        return tf.lite.TFLiteConverter.from_saved_model(directory).convert()


def _encode(dense, optimize, notes):
    """Returns the bytes of a TFLite file with its zeros stored sparsely."""
    file = flatbuffer.read(dense)
    reason = xnnpack.reason_against_sparse(file)
    if reason is not None:
        notes.append(
            f"XNNPACK may compute garbage with sparse weights, as {reason}; "
            "on ARM, and on x86 without AVX. Weights that it reads are dense."
        )
    if sparsify(file, reason is None, optimize):
        return flatbuffer.write(file)
    if reason is None:
        notes.append("No weight has zeros enough to be stored sparsely.")
    return dense


def _batches(arguments, batch_size):
    """Cuts inputs into the batches to try."""
    count = len(keras.tree.flatten(arguments)[0])
    if batch_size is None:
        cuts = [slice(count), slice(1)]
    else:
        starts = range(0, count - batch_size + 1, batch_size)
        cuts = [slice(start, start + batch_size) for start in starts]
    if count == 0 or not cuts:
        raise ValueError(
            "`inputs` must hold a batch of examples at least. Received: "
            f"inputs of {count} examples, batch_size={batch_size}. Pass more."
        )
    return [
        keras.tree.map_structure(
            lambda x, cut=cut: np.asarray(x)[cut], arguments
        )
        for cut in cuts
    ]
