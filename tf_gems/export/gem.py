"""Export to a ticket file: the smallest form, which needs this library."""

import importlib.metadata
import os
import tempfile

import keras
import numpy as np

from tf_gems import ticket_file
from tf_gems.export.network import Network
from tf_gems.export.parity import doubts
from tf_gems.export.parity import measure_parity
from tf_gems.export.parity import refuse_non_finite
from tf_gems.export.paths import Stored
from tf_gems.export.paths import check_target
from tf_gems.export.paths import check_tolerance
from tf_gems.export.report import ExportReport
from tf_gems.files import replacing_path
from tf_gems.half_precision import HALF_TOLERANCE
from tf_gems.network_config import config_of
from tf_gems.pruning_report import unique_paths
from tf_gems.ticket import Ticket
from tf_gems.validation import check_choice

_TOLERANCE = 1e-5


def export_gem(model, path, inputs=None, dtype=None, tolerance=None):
    """Writes a network as a ticket file, and reports on it.

    The file holds positions and values of the kept weights, all other weights
    and, where every layer is one of Keras, the config: it is the whole network.
    `python -m tf_gems expand` makes a `.keras` file of it. It is read again,
    the network is built from it, and outputs are compared.

    The dense twin of the report is the `.keras` file of the same network.

    Args:
        model: `tf_gems.SparseModel`, or plain Keras model with zeros in its
            weights. It is left as it is.
        path: String or path, usually ending in `.gem`. A file there is
            replaced.
        inputs: Inputs to compare outputs on, as the model takes them.
            Defaults to `None`: random ones, the same each time.
        dtype: `"float16"` to store values in half precision. Defaults to
            `None`: exact.
        tolerance: Float, the largest difference of outputs that is accepted,
            as a fraction of the largest output. Defaults to `None`: 1e-5, or
            1e-2 in half precision.

    Returns:
        `tf_gems.ExportReport`.

    Raises:
        OSError: If `path` cannot be written.
        RuntimeError: If nothing has been pruned, or the outputs of the network
            that is read differ.
        ValueError: If an argument is out of range, or the model is not a
            built Keras 3 model.

    Example:

    ```python
    print(export_gem(sparse, "finetuned.gem", dtype="float16"))
    ```
    """
    check_target(path)
    path = os.fspath(path)
    if dtype is not None:
        check_choice(dtype, "dtype", ("float16",))
    check_tolerance(tolerance)
    network = Network(model, inputs)
    given = network.given(inputs)
    expected = network.outputs([given])
    refuse_non_finite(expected, network.name)
    notes = doubts(expected)
    if tolerance is None:
        half = "float16" if dtype else network.half_precision
        tolerance = max(_TOLERANCE, HALF_TOLERANCE[half])
    with replacing_path(path) as partial, network.masked() as plain:
        ticket = ticket_of(plain)
        try:
            found, parity = _tried(
                ticket, partial, dtype, network, plain, given, expected[0]
            )
            parity.refuse_above(tolerance, f"path={path!r}")
        except (RuntimeError, ValueError):
            if ticket.config is None:
                raise
            # Attributes and tables are not part of the config.
            ticket = Ticket(
                ticket.masks, ticket.weights, {"name": network.name}
            )
            found, parity = _tried(
                ticket, partial, dtype, network, plain, given, expected[0]
            )
            parity.refuse_above(tolerance, f"path={path!r}")
        if ticket.config is None:
            notes.append(
                "The config of the network is not complete, so the file "
                "has none. Expand it with --model."
            )
        layers = Ticket.inspect(partial).layers
        twin = _keras_twin(plain)
    return ExportReport(
        path=path,
        format="gem",
        written=Stored(path),
        twin=twin,
        tensors=[_tensor(found, layer) for layer in layers],
        largest_difference=parity.difference,
        largest_output=parity.magnitude,
        ran=[f"keras {importlib.metadata.version('keras')}"],
        notes=notes,
        form=dtype or "float32",
    )


def _tried(ticket, partial, dtype, network, plain, given, expected):
    """Writes a ticket, reads it, and compares the network that it gives."""
    data = ticket_file.encode(
        ticket.masks, ticket.weights, ticket.metadata, dtype, ticket.config
    )
    partial.write_bytes(data)  # `save` would write beside it, and rename
    found = Ticket.load(partial)
    if found.config is None:
        [outputs] = _with_weights_of(
            found, plain, lambda: network.outputs([given], plain)
        )
    else:
        [outputs] = network.outputs([given], found.network())
    return found, measure_parity(expected, outputs)


def ticket_of(plain):
    """Returns the ticket of a plain network: its zeros are the masks.

    Args:
        plain: Keras model with zeros in its weights.

    Returns:
        `tf_gems.Ticket`.

    Raises:
        RuntimeError: If no weight of rank two or more has a zero.
    """
    paths = unique_paths(plain.weights)
    weights = {
        path: np.array(keras.ops.convert_to_numpy(variable))
        for path, variable in zip(paths, plain.weights, strict=True)
    }
    masks = {
        path: value != 0
        for path, value in weights.items()
        if value.ndim > 1 and not value.all()
    }
    if not masks:
        raise RuntimeError(
            "A ticket file stores a pruned network. "
            f"Received: '{plain.name}', none of whose kernels has a zero. "
            "Prune it first, or save it by `model.save`."
        )
    return Ticket(masks, weights, {"name": plain.name}, config_of(plain))


def gem_outputs(path, network, flat, output):
    """Returns one output of a ticket file's network for all examples.

    Args:
        path: String.
        network: `Network`, which is used if the file has no config.
        flat: Flat list of arrays, see `Signature`.
        output: String, its name.
    """
    from tf_gems.export.accuracy import keras_outputs

    ticket = Ticket.load(path)
    if ticket.config is not None:
        return keras_outputs(network, flat, output, ticket.network())
    with network.masked() as plain:
        return _with_weights_of(
            ticket,
            plain,
            lambda: keras_outputs(network, flat, output, plain),
        )


def _with_weights_of(ticket, plain, run):
    """Runs a network with other weights for a while."""
    before = plain.get_weights()
    ticket.apply(plain)
    try:
        return run()
    finally:
        plain.set_weights(before)


def _keras_twin(plain):
    holder = tempfile.TemporaryDirectory(prefix="tf_gems-")
    path = os.path.join(holder.name, "model.keras")
    plain.save(path)
    return Stored(path, holder)


def _tensor(ticket, layer):
    value = ticket.weights[layer["path"]]
    sparse = layer["kept"] is not None
    return {
        "name": layer["path"],
        "shape": layer["shape"],
        "type": value.dtype.name,
        "zeros": int(np.count_nonzero(value == 0)) if value.ndim > 1 else 0,
        "encoding": "sparse" if sparse else "dense",
        "bytes": int(layer["positions"] + layer["values"] + 7) // 8,
        "reason": None,
    }
