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
from tf_gems.export import weight_rows
from tf_gems.export.stored_weights import stored_weights
from tf_gems.export.tracing import nodes
from tf_gems.export.tracing import save_module

# What the nodes that fill and name one variable need in the file.
_OVERHEAD_BYTES = 512
_LARGEST_CONSTANT = 1 << 16


def write_sparse_graph(traced, directory):
    """Writes a `Traced` network with the signature `serving_default`.

    Returns the `tensors` of a `tf_gems.ExportReport`.
    """
    import tensorflow as tf

    function = traced.function
    graph = function.graph.as_graph_def()
    for node in nodes(graph):
        # Custom gradients are not needed in a file that only serves;
        # TensorFlow cannot store them, those of `silu` among them.
        node.attr.pop("_gradient_op_type", None)
    captures = [(x, inner.op.name) for x, inner in function.graph.captures]
    places = {id(outer): place for outer, place in captures}
    chosen, small, kept, rows = _sorted_variables(traced, places)
    kept += _freeze(graph, small)
    shorter = _shorten(graph)
    module, stored = tf.Module(), None
    module.kept = kept
    if tables := traced.tables():
        module.tables = tables
    folder = tempfile.TemporaryDirectory(prefix="tf_gems-")
    if chosen:
        stored = stored_weights(chosen, folder.name)
        module.weights, module.assets = stored, stored.assets
    specs = list(function.structured_input_signature[0])
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
        for outer, place in captures:
            if place in chosen:
                fed[place] = stored.handle(place)
            elif place not in small:
                fed[place] = serving.capture(outer)
        fed = {f"{shorter[name]}:0": tensor for name, tensor in fed.items()}
        found = tf.graph_util.import_graph_def(graph, fed, outputs, name="")
        return dict(zip(names, found, strict=True))

    with folder:
        save_module(module, directory, serve.get_concrete_function())
    for place in chosen:
        row = rows[place]
        row["encoding"] = "sparse"
        count = math.prod(row["shape"]) - row["zeros"]
        row["bytes"] = count * stored.bytes_per_value(place)
    return list(rows.values())


def _sorted_variables(traced, places):
    """Returns which variables are stored sparsely, as constants, or as such.

    They are dicts from placeholders to sparse and to small dense variables, a
    list of all others, and a dict from placeholders to rows of the report.
    """
    chosen, small, kept, rows = {}, {}, [], {}
    paths = {id(v.value): v.path for v in traced.model.variables}
    for variable in traced.function.variables:
        place = places.get(id(variable.handle))
        if place is None or traced.writes(variable):
            kept.append(variable)
            continue
        value = variable.numpy()
        if _is_smaller(value):
            chosen[place] = variable
        elif value.nbytes <= _LARGEST_CONSTANT:
            small[place] = variable
        else:
            kept.append(variable)
        if value.ndim > 1:
            name = paths.get(id(variable), variable.name.partition(":")[0])
            rows[place] = weight_rows.row(name, value, value.nbytes)
    return chosen, small, kept, rows


def _is_smaller(value):
    if value.ndim < 2 or "float" not in value.dtype.name:
        return False
    if value.size > gap_code.LARGEST:
        return False
    kept = int(np.count_nonzero(value))
    return kept * (value.itemsize + 1) + _OVERHEAD_BYTES < value.nbytes


def _freeze(graph, variables):
    """Turns variables that are only read into constants of a graph.

    Those that are passed to a loop or a function stay variables: they are
    removed from the dict `variables`, and returned as a list.
    """
    import tensorflow as tf

    reads, kept = {place: [] for place in variables}, []
    for node in graph.node:
        for edge in node.input:
            place = edge.partition(":")[0]
            if place in reads:
                reads[place].append(node)
    for place, found in reads.items():
        if any(node.op != "ReadVariableOp" for node in found):
            kept.append(variables.pop(place))
            continue
        tensor = tf.make_tensor_proto(variables[place].numpy())
        for node in found:
            name = node.name
            after = [edge for edge in node.input if edge.startswith("^")]
            node.Clear()
            node.name, node.op = name, "Const"
            node.input.extend(after)
            node.attr["value"].tensor.CopyFrom(tensor)
            node.attr["dtype"].type = tensor.dtype
    return kept


def _shorten(graph):
    """Renames nodes to numbers, and drops debug information.

    Long names are most of a small graph's bytes: every input repeats one.
    Returns a dict from the names before to the names now.
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
