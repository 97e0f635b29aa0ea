"""Export to a SavedModel."""

import os
import shutil
import tempfile
from pathlib import Path
from pathlib import PurePosixPath

import numpy as np

from tf_gems.export.conversion import random_numbers_named
from tf_gems.export.conversion import traced_or_refused
from tf_gems.export.network import Network
from tf_gems.export.paths import Stored
from tf_gems.export.paths import check_target
from tf_gems.export.progress import Progress
from tf_gems.export.report import ExportReport
from tf_gems.export.signature import as_array
from tf_gems.export.sparse_graph import write_sparse_graph
from tf_gems.export.stored_weights import free
from tf_gems.files import replace_directory
from tf_gems.files import workplace
from tf_gems.parity import doubts
from tf_gems.parity import measure_parity
from tf_gems.quiet import quiet
from tf_gems.validation import check_bool

_TOLERANCE = 1e-4
_ENTRY = "saved_model.pb"


def export_saved_model(
    model,
    directory,
    inputs=None,
    overwrite=False,
    tolerance=None,
    compact=False,
) -> ExportReport:
    """Writes a SavedModel that stores weights sparsely.

    Weights that are mostly zeros are stored as their kept values and the gaps
    between them, and expanded once, when the SavedModel is loaded. Other
    weights are stored densely. The SavedModel has the signature
    `"serving_default"`, requires neither this library nor Keras, and cannot be
    trained. Before it is moved to `directory`, it is loaded, and its outputs
    are compared with those of the Keras model.

    The model itself is traced with `training=False`, including its look-up
    tables, adapted statistics and attributes. The dense twin of the report is
    the same graph with all of its weights, each stored once.
    `keras.Model.export` stores them twice.

    Variables that the network writes during prediction, such as the states of
    a stateful recurrent layer, start from their current values, and the report
    names them. Variables that do not affect the outputs are left out.

    Args:
        model: `tf_gems.SparseModel`, or plain Keras model with zeros in its
            weights. It is not changed.
        directory: String or path of a directory that is empty or does not
            exist. It must not be the current or the home directory.
        inputs: Inputs of the model on which outputs are compared. Defaults to
            `None`: random inputs from a fixed seed.
        overwrite: Whether to replace the files of an existing SavedModel.
            Other files in the directory stay. Defaults to `False`.
        tolerance: Float, the largest accepted difference of outputs, as a
            fraction of the largest output. Defaults to `None`: 1e-4, or 1e-2
            and 5e-2 for networks that compute in float16 and bfloat16.
        compact: Whether to first remove the channels that zeros disconnect, as
            `tf_gems.compact` does. The outputs and the size of the SavedModel
            are compared with those of the original model. Defaults to `False`.

    Returns:
        `tf_gems.ExportReport`.

    Raises:
        FileExistsError: If `directory` is not empty, or with `overwrite`, if
            it contains no SavedModel.
        OSError: If `directory` cannot be written.
        RuntimeError: If nothing has been pruned yet, if Keras does not run on
            TensorFlow, or if the outputs of the SavedModel differ.
        ValueError: If the model is not a built Keras 3 model, its weights or
            outputs are not finite, or `compact` is `True` and the graph of the
            model is not known.

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

    If `measure` is given, it is called with the directories of what was written
    and of its dense twin, while both are there.
    """
    import tensorflow as tf

    check_target(directory, directory=True)
    check_bool(overwrite, "overwrite")
    directory = os.fspath(directory)
    own = _refuse_full(directory, overwrite)
    network = Network(model, inputs, compact)
    signature = network.signature
    tolerance = network.tolerance(tolerance, _TOLERANCE)
    given = network.given(inputs)

    target = Path(os.path.realpath(directory))
    twin = tempfile.TemporaryDirectory(prefix="tf_gems-")
    with Progress(directory) as progress, workplace(target) as folder:
        progress.step("running the Keras model")
        [expected] = network.expected([given])
        written = os.path.join(folder, "sparse")
        progress.step("tracing the network")
        with network.masked() as plain:
            whole = traced = traced_or_refused(plain, signature)
            dense, compaction = twin.name, None
            if compact:
                with random_numbers_named(whole):
                    small, compaction = network.compacted(plain, given)
                traced = traced_or_refused(small, signature)
                dense = os.path.join(folder, "dense")
            progress.step("writing it")
            with quiet():
                whole.save(twin.name)
                if compact:
                    traced.save(dense)
                rows, notes = _write_smaller(traced, written, dense)
        progress.step("running it")
        parity = measure_parity(expected, _outputs(written, signature, given))
        with random_numbers_named(whole):
            parity.refuse_above(tolerance, f"directory={directory!r}")
        if measure is not None:
            measure(written, twin.name)
        replace_directory(Path(written), target, own, _ENTRY)
    return ExportReport(
        path=directory,
        format="saved_model",
        written=Stored(directory),
        twin=Stored(twin.name, twin),
        tensors=rows,
        largest_difference=parity.difference,
        largest_output=parity.magnitude,
        ran=[f"tensorflow {tf.__version__}"],
        notes=[*doubts([expected]), *traced.notes(), *notes],
        compaction=compaction,
    )


def _write_smaller(traced, written, dense):
    """Writes a SavedModel that is sparse, or a copy of the dense one."""
    rows = write_sparse_graph(traced, written)
    if Stored(written).bytes <= Stored(dense).bytes:
        return rows, []
    shutil.rmtree(written)
    shutil.copytree(dense, written)
    for row in rows:
        size = np.prod(row["shape"], dtype=int) * np.dtype(row["type"]).itemsize
        row |= {"encoding": "dense", "bytes": int(size)}
    return rows, ["No weight has enough zeros to be stored sparsely."]


def _outputs(directory, signature, given):
    """Returns the outputs of a SavedModel, a dict from names to arrays."""
    import tensorflow as tf

    with quiet():
        loaded = tf.saved_model.load(directory)
        serve = loaded.signatures["serving_default"]
        outputs = serve(**signature.named_tensors(given))
    outputs = {name: as_array(value) for name, value in outputs.items()}
    free(serve)
    return outputs


def _refuse_full(directory, overwrite):
    """Returns the files of the SavedModel that may be replaced."""
    if not os.path.lexists(directory) or not os.listdir(directory):
        return set()
    if not overwrite:
        raise FileExistsError(
            "A SavedModel does not overwrite other files. Received: "
            f"directory={directory!r}, which is not empty. Pass "
            "`overwrite=True` to replace a SavedModel."
        )
    own = _files_of(directory)
    if not own:
        raise FileExistsError(
            "`overwrite=True` replaces only a SavedModel. Received: "
            f"directory={directory!r}, which contains other files. Choose "
            "another directory."
        )
    return own


def _files_of(directory):
    """Returns relative paths of the files and folders of a SavedModel.

    Assets are those that it lists. Links are left out. The set is empty if the
    directory has no SavedModel.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    directory, found = Path(directory), saved_model_pb2.SavedModel()
    if not _is_own(directory, _ENTRY):
        return set()
    try:
        found.ParseFromString((directory / _ENTRY).read_bytes())
    except DecodeError:
        return set()
    if not found.meta_graphs:
        return set()
    names = [_ENTRY, "fingerprint.pb", "variables", "assets"]
    names += ["variables/variables.index"]
    names += [
        f"variables/{path.name}"
        for path in (directory / "variables").glob(
            "variables.data-[0-9]*-of-[0-9]*"
        )
    ]
    names += [
        f"assets/{asset.filename}"
        for graph in found.meta_graphs
        for asset in graph.asset_file_def
    ]
    return {name for name in names if _is_own(directory, name)}


def _is_own(directory, name):
    """Whether a name refers to a file inside the directory."""
    place, parts = directory, PurePosixPath(name).parts
    if ".." in parts or PurePosixPath(name).is_absolute():
        return False
    for part in parts:
        place = place / part
        if place.is_symlink():
            return False
    return place.exists()
