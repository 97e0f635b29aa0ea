"""Export to a SavedModel."""

import os
import shutil
from pathlib import Path

import keras
import numpy as np

from tf_gems.export.comparison import compare
from tf_gems.export.comparison import doubts
from tf_gems.export.comparison import example_inputs
from tf_gems.export.comparison import named_inputs
from tf_gems.export.comparison import named_outputs
from tf_gems.export.network import plain_network
from tf_gems.export.paths import check_target
from tf_gems.export.paths import directory_sizes
from tf_gems.export.quiet import quiet
from tf_gems.export.report import ExportReport
from tf_gems.export.saved_model_files import ENTRY
from tf_gems.export.saved_model_files import files_of_saved_model
from tf_gems.export.sparse_graph import write_sparse_graph
from tf_gems.files import replace_directory
from tf_gems.files import workplace


def export_saved_model(
    model, directory, inputs=None, overwrite=False, tolerance=1e-4
):
    """Writes a SavedModel that plain TensorFlow loads and serves.

    Weights that are mostly zeros are stored as their kept values and the gaps
    between them, and expanded once, when the SavedModel is loaded; the others
    are stored as they are. What is written serves, by the signature
    `"serving_default"`, and needs neither this library nor Keras; it cannot be
    trained. It is loaded again, and its outputs are compared with those of
    the Keras model, before it is given its name.

    The dense twin of the report is what `keras.Model.export` writes for the
    same network. Keras stores every weight twice.

    A network that writes variables while it predicts, such as one that draws
    random numbers, has no such form: Keras' own export is written, and the
    report says so.

    Args:
        model: `tf_gems.SparseModel`, which is stripped first, or plain Keras
            model with zeros in its weights.
        directory: String or path. It must not exist, or be empty; never the
            current directory, or another that people live in.
        inputs: Inputs to compare outputs on, as the model takes them.
            Defaults to `None`: random ones, the same each time.
        overwrite: Whether to replace a SavedModel that is there. Its own files
            are; whatever else lies beside them stays. Defaults to `False`.
        tolerance: Float, the largest difference of outputs that is accepted,
            as a fraction of the largest output. Defaults to `1e-4`.

    Returns:
        `tf_gems.ExportReport`.

    Raises:
        FileExistsError: If `directory` is not empty, or with `overwrite`, if
            it holds no SavedModel.
        OSError: If `directory` cannot be written.
        RuntimeError: If nothing has been pruned yet, if Keras does not run on
            TensorFlow, or if the SavedModel computes something else.
        ValueError: If the model is not a built Keras 3 model.

    Example:

    ```python
    tf_gems.export_saved_model(sparse, "exported")
    serve = tf.saved_model.load("exported").signatures["serving_default"]
    ```
    """
    return write_saved_model(model, directory, inputs, overwrite, tolerance)


def write_saved_model(
    model, directory, inputs, overwrite=False, tolerance=1e-4, measure=None
):
    """Does what `export_saved_model` does.

    Args:
        model: As there, and so the others.
        measure: Function of the directories of what was written and of its
            dense twin, called while both are there. Defaults to `None`.
    """
    check_target(directory, directory=True)
    directory = os.fspath(directory)
    own = _refuse_full(directory, overwrite)
    plain, signature = plain_network(model, inputs)
    if inputs is None:
        arguments = example_inputs(signature, 4)
    else:
        arguments = [inputs] if len(signature) == 1 else list(inputs)
    expected = plain(*arguments, training=False)

    target = Path(os.path.realpath(directory))
    with workplace(target) as folder:
        written = os.path.join(folder, "sparse")
        twin = os.path.join(folder, "dense")
        notes = []
        tensors = _write(plain, signature, written, notes)
        feed = named_inputs(signature, arguments)
        outputs, ran = _run(written, feed)
        comparison = compare(expected, outputs)
        comparison.refuse_above(tolerance, f"directory={directory!r}")
        _export(plain, signature, twin)
        size, gzip_size, zstd_size = directory_sizes(written)
        dense_size, dense_gzip_size, dense_zstd_size = directory_sizes(twin)
        if measure is not None:
            measure(written, twin)
        replace_directory(Path(written), target, own, ENTRY)
    return ExportReport(
        path=directory,
        format="saved_model",
        bytes=size,
        gzip_bytes=gzip_size,
        zstd_bytes=zstd_size,
        dense_bytes=dense_size,
        dense_gzip_bytes=dense_gzip_size,
        dense_zstd_bytes=dense_zstd_size,
        tensors=tensors,
        largest_difference=comparison.difference,
        largest_output=comparison.magnitude,
        ran=[ran],
        notes=notes + doubts([expected]),
    )


def _refuse_full(directory, overwrite):
    """Returns the files of the SavedModel that may be replaced."""
    if not os.path.lexists(directory) or not os.listdir(directory):
        return set()
    if not overwrite:
        raise FileExistsError(
            "A SavedModel is not written over other files. "
            f"Received: directory={directory!r}, which is not empty. Pass "
            "`overwrite=True` to replace a SavedModel."
        )
    own = files_of_saved_model(directory)
    if not own:
        raise FileExistsError(
            "`overwrite=True` replaces a SavedModel, and nothing else. "
            f"Received: directory={directory!r}, which holds none, but other "
            "files. Choose another directory."
        )
    return own


def _write(plain, signature, directory, notes):
    """Writes a SavedModel; returns rows of `ExportReport.tensors`."""
    import tensorflow as tf

    structure = signature if len(signature) > 1 else signature[0]
    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, spec.name)
        for spec in keras.tree.flatten(signature)
    ]

    def call(tensors):
        packed = keras.tree.pack_sequence_as(structure, tensors)
        arguments = packed if len(signature) > 1 else [packed]
        return named_outputs(plain(*arguments, training=False))

    try:
        with quiet():
            rows = write_sparse_graph(call, specs, directory)
    except ValueError as error:
        notes.append(
            "The weights are stored in full, and twice, by Keras' own export. "
            f"{error}"
        )
        shutil.rmtree(directory, ignore_errors=True)
        _export(plain, signature, directory)
        rows = [
            (v.numpy(), "dense", 2 * v.numpy().nbytes)
            for v in plain.weights
            if len(v.shape) > 1
        ]
    return _describe(rows, plain.weights)


def _export(plain, signature, directory):
    with quiet():
        plain.export(
            directory,
            format="tf_saved_model",
            verbose=False,
            input_signature=signature,
        )


def _run(directory, feed):
    """Returns the outputs of a SavedModel, and what ran it."""
    import tensorflow as tf

    with quiet():
        serve = tf.saved_model.load(directory).signatures["serving_default"]
        outputs = serve(**{k: tf.constant(v) for k, v in feed.items()})
    return outputs, f"tensorflow {tf.__version__}"


def _describe(rows, variables):
    """Returns rows of `ExportReport.tensors`, under the names of Keras."""
    known = [(v.path, v.numpy()) for v in variables if len(v.shape) > 1]
    described = []
    for value, encoding, size in rows:
        matches = [
            i for i, (_, k) in enumerate(known) if np.array_equal(k, value)
        ]
        if not matches:
            continue  # a constant of the network's own
        name, _ = known.pop(matches[0])
        described.append(
            {
                "name": name,
                "shape": list(value.shape),
                "zeros": int(np.count_nonzero(value == 0)),
                "type": "float32",
                "encoding": encoding,
                "bytes": size,
                "reason": None,
            }
        )
    return described
