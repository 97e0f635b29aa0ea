"""Export to a ticket file: the smallest form, which needs this library."""

import importlib.metadata
import os
import tempfile

import keras
import numpy as np

from tf_gems.export.comparison import compare
from tf_gems.export.comparison import doubts
from tf_gems.export.network import plain_network
from tf_gems.export.paths import check_target
from tf_gems.export.paths import sizes
from tf_gems.export.report import ExportReport
from tf_gems.files import replacing_path
from tf_gems.network_config import config_of
from tf_gems.pruning_report import unique_paths
from tf_gems.ticket import Ticket


def export_gem(model, path, inputs=None, dtype=None, tolerance=None):
    """Writes a network as a ticket file, and reports on it.

    The file holds positions and values of the kept weights, all other weights
    and, where every layer is one of Keras, the config: it is the whole network.
    `python -m tf_gems expand` makes a `.keras` file of it. It is read again,
    the network is built from it, and outputs are compared.

    The dense twin of the report is the `.keras` file of the same network.

    Args:
        model: `tf_gems.SparseModel`, which is stripped first, or plain Keras
            model with zeros in its weights.
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
        RuntimeError: If nothing has been pruned, or the network that is read
            computes something else.
        ValueError: If an argument is out of range, or the model is not a
            built Keras 3 model.

    Example:

    ```python
    print(export_gem(sparse, "finetuned.gem", dtype="float16"))
    ```
    """
    check_target(path)
    path = os.fspath(path)
    plain, signature = plain_network(model, inputs)
    arguments = _arguments(signature, inputs)
    expected = plain(*arguments, training=False)
    ticket = ticket_of(plain)
    notes = []
    if ticket.config is None:
        notes.append(
            "Not every layer is one of Keras, so the file does not tell its "
            "network: expand it with --model."
        )
    if tolerance is None:
        tolerance = 1e-2 if dtype else 1e-5
    with replacing_path(path) as partial:
        ticket.save(partial, dtype=dtype)
        found = Ticket.load(partial)
        outputs = _outputs(found, plain, arguments)
        comparison = compare(
            keras.tree.flatten(expected),
            {f"output_{i}": v for i, v in enumerate(outputs)},
        )
        comparison.refuse_above(tolerance, f"path={path!r}")
        size, gzip_size, zstd_size = sizes(partial.read_bytes())
        layers = Ticket.inspect(partial).layers
    dense_size, dense_gzip_size, dense_zstd_size = _keras_sizes(plain)
    return ExportReport(
        path=path,
        format="gem",
        bytes=size,
        gzip_bytes=gzip_size,
        zstd_bytes=zstd_size,
        dense_bytes=dense_size,
        dense_gzip_bytes=dense_gzip_size,
        dense_zstd_bytes=dense_zstd_size,
        tensors=[_tensor(found, layer) for layer in layers],
        largest_difference=comparison.difference,
        largest_output=comparison.magnitude,
        ran=[f"keras {importlib.metadata.version('keras')}"],
        notes=notes + doubts([expected]),
        form=dtype or "float32",
    )


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
            "A ticket file stores what is left of a network that was pruned. "
            f"Received: '{plain.name}', none of whose kernels has a zero. "
            "Prune it first, or save it by `model.save`."
        )
    return Ticket(masks, weights, {"name": plain.name}, config_of(plain))


def gem_outputs(path, plain, arguments):
    """Returns the first output of a ticket file's network for all examples.

    Args:
        path: String.
        plain: Keras model, which is used if the file does not tell its own.
        arguments: List of structures of arrays.
    """
    from tf_gems.export.accuracy import keras_outputs

    ticket = Ticket.load(path)
    if ticket.config is None:
        return _with_weights_of(
            ticket, plain, lambda: keras_outputs(plain, arguments)
        )
    return keras_outputs(ticket.network(), arguments)


def _outputs(ticket, plain, arguments):
    def call(network):
        return keras.tree.flatten(network(*arguments, training=False))

    if ticket.config is None:
        return _with_weights_of(ticket, plain, lambda: call(plain))
    return call(ticket.network())


def _with_weights_of(ticket, plain, run):
    """Runs a network with other weights for a while."""
    before = plain.get_weights()
    ticket.apply(plain)
    try:
        return run()
    finally:
        plain.set_weights(before)


def _arguments(signature, inputs):
    from tf_gems.export.comparison import example_inputs

    if inputs is None:
        return example_inputs(signature, 4)
    return [inputs] if len(signature) == 1 else list(inputs)


def _keras_sizes(plain):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "model.keras")
        plain.save(path)
        with open(path, "rb") as file:
            return sizes(file.read())


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
