"""Export to a ticket file, the smallest form, which requires this library."""

import functools
import importlib.metadata
import os
import tempfile

import keras
import numpy as np

from tf_gems import ticket_file
from tf_gems.export import weight_rows
from tf_gems.export.accuracy import keras_outputs
from tf_gems.export.network import Network
from tf_gems.export.paths import Stored
from tf_gems.export.paths import check_target
from tf_gems.export.report import ExportReport
from tf_gems.files import replacing_path
from tf_gems.network_config import config_of
from tf_gems.parity import doubts
from tf_gems.parity import measure_parity
from tf_gems.pruning_report import unique_paths
from tf_gems.ticket import Ticket
from tf_gems.validation import check_choice

_TOLERANCE = 1e-5


def export_gem(model, path, inputs=None, dtype=None, tolerance=None):
    """Writes a network as a ticket file.

    The file contains the positions and values of the kept weights, all other
    weights and, if all layers are Keras layers, the config of the network.
    `tf_gems expand` converts it to a `.keras` file. After it is written, the
    file is read, the network is built from it, and the outputs are compared.

    The dense twin of the report is the `.keras` file of the same network.

    Args:
        model: `tf_gems.SparseModel`, or plain Keras model with zeros in its
            weights. It is not changed.
        path: String or path, usually ending in `.gem`. An existing file is
            replaced.
        inputs: Inputs of the model on which outputs are compared. Defaults to
            `None`: random inputs from a fixed seed.
        dtype: `"float16"` to store values in half precision. Defaults to
            `None`: values are stored exactly.
        tolerance: Float, the largest difference of outputs that is accepted,
            as a fraction of the largest output. Defaults to `None`: 1e-5, or
            1e-2 in half precision.

    Returns:
        `tf_gems.ExportReport`.

    Raises:
        OSError: If `path` cannot be written.
        RuntimeError: If nothing has been pruned, or the outputs of the network
            in the file differ.
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
    network = Network(model, inputs)
    tolerance = network.tolerance(tolerance, _TOLERANCE, dtype)
    given = network.given(inputs)
    [expected] = network.expected([given])
    notes = doubts([expected])
    masks = _masks_of(network)
    with replacing_path(path) as partial, network.masked() as plain:
        ticket = _ticket_of(plain, masks)

        def written(ticket):
            """Writes a ticket, and compares the network that is read."""
            data = ticket_file.encode(
                *(ticket.masks, ticket.weights, ticket.metadata),
                *(dtype, ticket.config),
            )
            # `Ticket.save` would write to another file, and rename it.
            partial.write_bytes(data)
            found = Ticket.load(partial)
            run = functools.partial(network.outputs, [given])
            [outputs] = _run(found, plain, run)
            parity = measure_parity(expected, outputs)
            parity.refuse_above(tolerance, f"path={path!r}")
            return found, parity

        try:
            found, parity = written(ticket)
        except (RuntimeError, ValueError):
            if ticket.config is None:
                raise
            # Attributes and tables are not part of the config.
            metadata = {"name": network.name}
            ticket = Ticket(ticket.masks, ticket.weights, metadata)
            found, parity = written(ticket)
        if ticket.config is None:
            notes.append(
                "The config of the network is incomplete, so the file "
                "contains none. Expand the file with --model."
            )
        rows = [
            weight_rows.row(
                layer["path"],
                found.weights[layer["path"]],
                (layer["positions"] + layer["values"] + 7) // 8,
                "dense" if layer["kept"] is None else "sparse",
            )
            for layer in Ticket.inspect(partial).layers
        ]
        twin = _keras_twin(plain)
    return ExportReport(
        path=path,
        format="gem",
        written=Stored(path),
        twin=twin,
        tensors=rows,
        largest_difference=parity.difference,
        largest_output=parity.magnitude,
        ran=[f"keras {importlib.metadata.version('keras')}"],
        notes=notes,
        form=dtype or "float32",
    )


def _masks_of(network):
    """Returns a dict from ids of pruned weights to masks, `None` if plain."""
    if not network.gems:
        return None
    return {
        id(prunable.weight): keras.ops.convert_to_numpy(mask) > 0
        for gem in network.gems
        for prunable, mask in zip(gem.prunable, gem.masks(), strict=True)
    }


def _ticket_of(plain, masks):
    """Returns the ticket of a network; without masks, its zeros are pruned."""
    known, masks, weights = masks, {}, {}
    paths = unique_paths(plain.weights)
    for path, variable in zip(paths, plain.weights, strict=True):
        value = np.array(keras.ops.convert_to_numpy(variable))
        weights[path] = value
        if known is None and value.ndim > 1 and not value.all():
            masks[path] = value != 0
        elif known and id(variable) in known:
            masks[path] = known[id(variable)]
    if not masks:
        raise RuntimeError(
            "A ticket file stores a pruned network. Received: "
            f"'{plain.name}', whose kernels contain no zeros. Prune it first, "
            "or save it with `model.save`."
        )
    return Ticket(masks, weights, {"name": plain.name}, config_of(plain))


def gem_outputs(path, network, flat, output):
    """Returns one output of a ticket file's network for all examples.

    The model of `network` is used if the file has no config. See
    `accuracy.keras_outputs`.
    """
    run = functools.partial(keras_outputs, network, flat, output)
    with network.masked() as plain:
        return _run(Ticket.load(path), plain, run)


def _run(ticket, plain, run):
    """Runs the network of a ticket, or the plain one with its weights."""
    if ticket.config is not None:
        return run(ticket.network())
    before = plain.get_weights()
    ticket.apply(plain)
    try:
        return run(plain)
    finally:
        plain.set_weights(before)


def _keras_twin(plain):
    holder = tempfile.TemporaryDirectory(prefix="tf_gems-")
    path = os.path.join(holder.name, "model.keras")
    plain.save(path)
    return Stored(path, holder)
