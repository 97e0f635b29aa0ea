"""A traced network as a SavedModel whose sparse weights are stored compactly.

The graph of a traced network reads its weights from variables. The variables
of weights that are mostly zeros are replaced by others that are in no
checkpoint: `stored_weights` fills those when the SavedModel is loaded.

Small weights that are stored densely become constants of the graph. All other
variables, including those that the network assigns, are in the checkpoint.
"""

import math
import tempfile

import numpy as np

from tf_gems.export import gap_code
from tf_gems.export.stored_weights import stored_weights
from tf_gems.export.tracing import nodes
from tf_gems.export.tracing import save_module

# What the nodes that fill and name one variable need in the file.
_OVERHEAD_BYTES = 512
_LARGEST_CONSTANT = 1 << 16


def write_sparse_graph(traced, directory):
    """Writes a SavedModel with the signature `serving_default`.

    Args:
        traced: `tracing.Traced`.
        directory: String.

    Returns:
        List of dicts, one for each weight of rank 2 or more, see
        `tf_gems.ExportReport`.
    """
    with tempfile.TemporaryDirectory(prefix="tf_gems-") as folder:
        return _write(traced, directory, folder)


def _write(traced, directory, folder):
    import tensorflow as tf

    function = traced.function
    graph = function.graph.as_graph_def()
    for node in nodes(graph):
        # Custom gradients are not needed in a file that only serves;
        # TensorFlow cannot store them, those of `silu` among them.
        node.attr.pop("_gradient_op_type", None)
    places = {id(outer): inner.op.name for outer, inner in _captures(function)}
    chosen, small, rows = {}, {}, []
    paths = {id(v.value): v.path for v in traced.model.variables}
    for variable in function.variables:
        place = places.get(id(variable.handle))
        if place is None or traced.writes(variable):
            continue
        value = variable.numpy()
        is_sparse = _is_smaller(value)
        if is_sparse:
            chosen[place] = variable
        elif value.nbytes <= _LARGEST_CONSTANT:
            small[place] = value
        if value.ndim > 1:
            name = paths.get(id(variable), variable.name.partition(":")[0])
            rows.append(_row(name, value, place if is_sparse else None))
    _freeze(graph, small)
    shorter = _shorten(graph)
    module, stored = tf.Module(), None
    if chosen:
        stored = stored_weights(chosen, folder)
        module.weights, module.assets = stored, stored.assets
    module.kept = [
        variable
        for variable in function.variables
        if places.get(id(variable.handle)) not in (*chosen, *small)
    ]
    if traced.reads_tables():
        module.tables = traced.tables()
    specs = list(traced.specs())
    inputs = [tensor.op.name for tensor in function.inputs[: len(specs)]]
    outputs = [
        f"{shorter[tensor.op.name]}:{tensor.value_index}"
        for tensor in function.outputs
    ]
    names = sorted(function.structured_outputs)  # as TensorFlow flattens them

    @tf.function(input_signature=specs, autograph=False)
    def serve(*arguments):
        serving = tf.compat.v1.get_default_graph()
        fed = dict(zip(inputs, arguments, strict=True))
        for outer, inner in _captures(function):
            place = inner.op.name
            if place in chosen:
                fed[place] = stored.handle(place)
            elif place not in small:
                fed[place] = serving.capture(outer)
        results = tf.graph_util.import_graph_def(
            graph,
            {f"{shorter[name]}:0": tensor for name, tensor in fed.items()},
            outputs,
            name="",
        )
        return dict(zip(names, results, strict=True))

    save_module(module, directory, serve.get_concrete_function())
    for row in rows:
        place = row.pop("place")
        if place is not None:
            row["encoding"] = "sparse"
            kept = math.prod(row["shape"]) - row["zeros"]
            row["bytes"] = kept * stored.bytes_per_value(place)
    return rows


def _row(name, value, place):
    return {
        "name": name,
        "shape": list(value.shape),
        "zeros": int(value.size - np.count_nonzero(value)),
        "type": value.dtype.name,
        "encoding": "dense",
        "bytes": value.nbytes,
        "reason": None,
        "place": place,
    }


def _captures(function):
    return function.graph.captures


def _is_smaller(value):
    if value.ndim < 2 or "float" not in value.dtype.name:
        return False
    if value.size > gap_code.LARGEST:
        return False
    kept = int(np.count_nonzero(value))
    return kept * (value.itemsize + 1) + _OVERHEAD_BYTES < value.nbytes


def _freeze(graph, values):
    """Turns variables that are only read into constants.

    Those that are passed to a loop or a function stay variables.

    Args:
        graph: `GraphDef` to change.
        values: Dict from the names of placeholders to arrays; those that stay
            are taken out.
    """
    import tensorflow as tf

    reads = {place: [] for place in values}
    for node in graph.node:
        for edge in node.input:
            place = edge.partition(":")[0]
            if place in reads:
                reads[place].append(node)
    for place, found in reads.items():
        if any(node.op != "ReadVariableOp" for node in found):
            del values[place]
            continue
        for node in found:
            after = [edge for edge in node.input if edge.startswith("^")]
            tensor = tf.make_tensor_proto(values[place])
            name = node.name
            node.Clear()
            node.name, node.op = name, "Const"
            node.input.extend(after)
            node.attr["value"].tensor.CopyFrom(tensor)
            node.attr["dtype"].type = tensor.dtype


def _shorten(graph):
    """Renames nodes to numbers, and drops debug information.

    Long names are most of a small graph's bytes: every input repeats one.

    Returns:
        Dict from names before to names now.
    """
    names = {node.name: f"n{i}" for i, node in enumerate(graph.node)}
    for node in graph.node:
        node.name = names[node.name]
        node.ClearField("experimental_debug_info")
        node.attr.pop("_class", None)  # names of nodes, to be placed together
        for i, edge in enumerate(node.input):
            control = "^" if edge.startswith("^") else ""
            name, colon, port = edge.removeprefix("^").partition(":")
            node.input[i] = f"{control}{names[name]}{colon}{port}"
    return names
