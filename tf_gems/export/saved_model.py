"""Export to a SavedModel."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from tf_gems.export.compacted import compacted
from tf_gems.export.compacted import refuse_if_unknown
from tf_gems.export.conversion import random_numbers_named
from tf_gems.export.conversion import traced_or_refused
from tf_gems.export.network import Network
from tf_gems.export.outputs import as_array
from tf_gems.export.parity import doubts
from tf_gems.export.parity import measure_parity
from tf_gems.export.parity import refuse_non_finite
from tf_gems.export.paths import Stored
from tf_gems.export.paths import check_target
from tf_gems.export.paths import check_tolerance
from tf_gems.export.progress import Progress
from tf_gems.export.quiet import quiet
from tf_gems.export.report import ExportReport
from tf_gems.export.saved_model_files import ENTRY
from tf_gems.export.saved_model_files import files_of_saved_model
from tf_gems.export.sparse_graph import write_sparse_graph
from tf_gems.export.stored_weights import free
from tf_gems.files import replace_directory
from tf_gems.files import workplace
from tf_gems.half_precision import HALF_TOLERANCE
from tf_gems.validation import check_bool

_TOLERANCE = 1e-4


def export_saved_model(
    model,
    directory,
    inputs=None,
    overwrite=False,
    tolerance=None,
    compact=False,
) -> ExportReport:
    """Writes a SavedModel that plain TensorFlow loads and serves.

    Weights that are mostly zeros are stored as their kept values and the gaps
    between them, and expanded once, when the SavedModel is loaded; the others
    are stored as they are. The SavedModel has the signature
    `"serving_default"`, needs neither this library nor Keras, and cannot be
    trained. Before it is moved to `directory`, it is loaded, and its outputs
    are compared with those of the Keras model.

    The model itself is traced with `training=False`, including its look-up
    tables, adapted statistics and attributes. The dense twin of the report is
    the same graph with all of its weights, each stored once.
    `keras.Model.export` stores them twice.

    Variables that the network writes while it predicts, such as the states
    of a stateful recurrent layer, start from their present values; the report
    names them. Those that change no output are left out.

    Args:
        model: `tf_gems.SparseModel`, or plain Keras model with zeros in its
            weights. It is left as it is.
        directory: String or path of a directory that is empty or does not
            exist. It must not be the current or the home directory.
        inputs: Inputs to compare outputs on, as the model takes them.
            Defaults to `None`: random ones, the same each time.
        overwrite: Whether to replace the files of an existing SavedModel.
            Other files in the directory stay. Defaults to `False`.
        tolerance: Float, the largest difference of outputs that is accepted,
            as a fraction of the largest output. Defaults to `None`: 1e-4, or
            1e-2 and 5e-2 for networks that compute in float16 and bfloat16.
        compact: Whether to remove the channels that zeros have cut off
            first, as `tf_gems.compact` does. The SavedModel is compared with
            the model that was passed in, and so are its bytes. Defaults to
            `False`.

    Returns:
        `tf_gems.ExportReport`.

    Raises:
        FileExistsError: If `directory` is not empty, or with `overwrite`, if
            it holds no SavedModel.
        OSError: If `directory` cannot be written.
        RuntimeError: If nothing has been pruned yet, if Keras does not run on
            TensorFlow, or if the outputs of the SavedModel differ.
        ValueError: If the model is not a built Keras 3 model, its weights or
            outputs are not finite, or it is to be compacted and its graph is
            not known.

    Example:

    ```python
    tf_gems.export_saved_model(sparse, "exported")
    serve = tf.saved_model.load("exported").signatures["serving_default"]
    ```
    """
    return write_saved_model(
        model, directory, inputs, overwrite, tolerance, compact
    )


def write_saved_model(
    model,
    directory,
    inputs,
    overwrite=False,
    tolerance=None,
    compact=False,
    measure=None,
):
    """Implements `export_saved_model`.

    Args:
        model: As there, and so the others.
        measure: Function of the directories of what was written and of its
            dense twin, called while both are there. Defaults to `None`.
    """
    check_target(directory, directory=True)
    check_bool(overwrite, "overwrite")
    check_tolerance(tolerance)
    check_bool(compact, "compact")
    directory = os.fspath(directory)
    own = _refuse_full(directory, overwrite)
    network = Network(model, inputs)
    if compact:
        refuse_if_unknown(network.user_model)
    if tolerance is None:
        tolerance = max(_TOLERANCE, HALF_TOLERANCE[network.half_precision])
    given = network.given(inputs)

    target = Path(os.path.realpath(directory))
    twin = tempfile.TemporaryDirectory(prefix="tf_gems-")
    with (
        Progress(directory) as progress,
        workplace(target) as folder,
    ):
        progress.step("running the Keras model")
        expected = network.outputs([given])
        refuse_non_finite(expected, network.name)
        notes = doubts(expected)
        written = os.path.join(folder, "sparse")
        progress.step("tracing the network")
        with network.masked() as plain:
            whole = traced = traced_or_refused(plain, network.signature)
            dense, compaction = twin.name, None
            if compact:
                with random_numbers_named(whole):
                    small, compaction = compacted(
                        plain, network.signature, given
                    )
                traced = traced_or_refused(small, network.signature)
                dense = os.path.join(folder, "dense")
            notes += traced.notes()
            progress.step("writing it")
            with quiet():
                tensors = write_sparse_graph(traced, written)
                whole.save(twin.name)
                if compact:
                    traced.save(dense)
                if Stored(written).bytes > Stored(dense).bytes:
                    notes.append(
                        "No weight has enough zeros to be stored sparsely."
                    )
                    shutil.rmtree(written)
                    shutil.copytree(dense, written)
                    for row in tensors:
                        size = np.prod(row["shape"], dtype=int)
                        row["bytes"] = int(
                            size * np.dtype(row["type"]).itemsize
                        )
                        row["encoding"] = "dense"
        progress.step("running it")
        outputs, ran = _run(written, network.signature, given)
        parity = measure_parity(expected[0], outputs)
        with random_numbers_named(whole):
            parity.refuse_above(tolerance, f"directory={directory!r}")
        if measure is not None:
            measure(written, twin.name)
        replace_directory(Path(written), target, own, ENTRY)
    return ExportReport(
        path=directory,
        format="saved_model",
        written=Stored(directory),
        twin=Stored(twin.name, twin),
        tensors=tensors,
        largest_difference=parity.difference,
        largest_output=parity.magnitude,
        ran=[ran],
        notes=notes,
        compaction=compaction,
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
            f"Received: directory={directory!r}, which contains other files. "
            "Choose another directory."
        )
    return own


def _run(directory, signature, given):
    """Returns the outputs of a SavedModel, and what ran it."""
    import tensorflow as tf

    feed = {
        spec.name: tf.constant(value, spec.dtype)
        for spec, value in zip(signature.specs, given, strict=True)
    }
    with quiet():
        loaded = tf.saved_model.load(directory)
        serve = loaded.signatures["serving_default"]
        outputs = serve(**feed)
    outputs = {name: as_array(value) for name, value in outputs.items()}
    free(serve)
    return outputs, f"tensorflow {tf.__version__}"
