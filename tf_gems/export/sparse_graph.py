"""A traced network as a SavedModel whose sparse weights are stored compactly.

The graph of a traced network reads its weights from variables. The variables
of weights that are mostly zeros are replaced by others that are in no
checkpoint. What is stored is the gap code of their kept values (`gap_code`),
as constants of a function that fills those variables when the SavedModel is
loaded. That is how TensorFlow initialises lookup tables: `tf.saved_model.load`
does it, and TensorFlow Serving does it by the SavedModel's init operation.

Small weights that are stored densely become constants of the graph. All other
variables are the network's own and stand in the checkpoint, those that it
writes among them.
"""

import hashlib

import numpy as np

from tf_gems.export import gap_code
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
    import tensorflow as tf

    function = traced.function
    graph = function.graph.as_graph_def()
    for node in nodes(graph):
        # Gradients of users' own are of no use in a file that only serves;
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
            chosen[place] = value
        elif value.nbytes <= _LARGEST_CONSTANT:
            small[place] = value
        if value.ndim > 1:
            name = paths.get(id(variable), variable.name.partition(":")[0])
            rows.append(_row(name, value, place if is_sparse else None))
    _freeze(graph, small)
    shorter = _shorten(graph)
    stored = _stored(chosen) if chosen else None

    module = tf.Module()
    module.weights = stored
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
            row["bytes"] = stored.bytes_of(chosen[place])
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
    kept = int(np.count_nonzero(value))
    return kept * (value.itemsize + 1) + _OVERHEAD_BYTES < value.nbytes


def _freeze(graph, values):
    """Turns variables that are only read into constants.

    Those that are handed to a loop or a function stay variables.

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
    """Renames nodes to numbers; drops what only debuggers read.

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


def _stored(arrays):
    """Returns a resource that fills variables with arrays.

    Args:
        arrays: Dict from names to arrays, zeros not stored.
    """
    import tensorflow as tf

    groups, digest = [], hashlib.sha256()
    for dtype in sorted({array.dtype.name for array in arrays.values()}):
        members = {k: v for k, v in arrays.items() if v.dtype.name == dtype}
        values, gaps = _encode(list(members.values()))
        digest.update(values.tobytes() + gaps.tobytes())
        groups.append((members, values, gaps))
    digest.update(repr([a.shape for a in arrays.values()]).encode())
    prefix = f"weights_{digest.hexdigest()[:24]}"
    numbers = {name: number for number, name in enumerate(arrays)}

    class StoredWeights(tf.saved_model.experimental.TrackableResource):
        """The variables, and how they are filled.

        Models with the same weights in one process share them, and they live
        as long as the process, as lookup tables do: they are named by their
        content.
        """

        def _create_resource(self):
            return self.handle(next(iter(arrays)))

        def _initialize(self):
            for members, values, gaps in groups:
                sizes = [array.size for array in members.values()]
                places = tf.cumsum(tf.cast(tf.constant(gaps), tf.int32))
                flat = tf.scatter_nd(
                    places[:, tf.newaxis], tf.constant(values), [sum(sizes)]
                )
                parts = tf.split(flat, sizes)
                for name, part in zip(members, parts, strict=True):
                    value = tf.reshape(part, arrays[name].shape)
                    tf.raw_ops.AssignVariableOp(
                        resource=self.handle(name), value=value
                    )

        def handle(self, name):
            """Returns the handle of one variable, in the present graph."""
            return tf.raw_ops.VarHandleOp(
                dtype=arrays[name].dtype,
                shape=arrays[name].shape,
                shared_name=f"{prefix}_{numbers[name]}",
            )

        def bytes_of(self, array):
            """Returns the bytes of one array's kept values and gaps."""
            kept = int(np.count_nonzero(array))
            gaps = next(g for m, _, g in groups if _holds(m, array))
            return kept * (array.itemsize + gaps.itemsize)

    return StoredWeights()


def _holds(members, array):
    return any(member is array for member in members.values())


def _encode(arrays):
    """Returns the gap code of arrays, one after the other."""
    start, places, kept = 0, [], []
    for array in arrays:
        flat = array.ravel()
        found = np.flatnonzero(flat)
        places.append(found + start)
        kept.append(flat[found])
        start += flat.size
    return gap_code.encode_kept(
        np.concatenate(places), np.concatenate(kept), start
    )
