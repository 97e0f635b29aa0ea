"""A network as a TensorFlow graph whose sparse weights are stored compactly.

The graph of the network has its weights as constants. Those that are mostly
zeros are taken out: all of them together become one variable, a matrix whose
rows of 16 floats begin at multiples of 64 bytes, so that cutting it into
weights again copies nothing. The variable is in no checkpoint. What is stored
is the gap code of its kept values (`gap_code`), as constants of the function
that fills the variable when the SavedModel is loaded. That is how TensorFlow
initialises lookup tables: `tf.saved_model.load` does it, and TensorFlow
Serving does it by the SavedModel's init operation.
"""

import hashlib

import numpy as np

from tf_gems.export import gap_code
from tf_gems.export.tracing import nodes

_ROW = 16
# What the nodes that cut one weight out of the variable need in the file.
_OVERHEAD_BYTES = 512


def write_sparse_graph(traced, directory):
    """Writes a SavedModel with the signature `serving_default`.

    Args:
        traced: `tracing.Traced`, without state.
        directory: String.

    Returns:
        List of `(array, encoding, bytes)`, one for each weight of rank 2 or
        more, the encoding being `"sparse"` or `"dense"`.
    """
    import tensorflow as tf

    graph, inputs, captured, outputs, names = _freeze(traced.function)
    weights = _weights(graph)
    chosen = {
        name: value for name, value in weights.items() if _is_smaller(value)
    }
    for node in graph.node:
        if node.name in chosen:
            zero = tf.make_tensor_proto(np.float32(0))
            node.attr["value"].tensor.CopyFrom(zero)
    shorter = _shorten(graph)
    module = tf.Module()
    if captured:
        module.tables = traced.tables()
    if chosen:
        module.weights = _stored(list(chosen.values()))

    specs = list(traced.specs())

    @tf.function(input_signature=specs, autograph=False)
    def serve(*arguments):
        fed = dict(zip(inputs, arguments, strict=True))
        fed.update(captured)
        if chosen:
            fed.update(zip(chosen, module.weights.read(), strict=True))
        results = tf.graph_util.import_graph_def(
            graph,
            {f"{shorter[name]}:0": tensor for name, tensor in fed.items()},
            [f"{shorter[name]}:{port}" for name, port in outputs],
            name="",
        )
        return dict(zip(names, results, strict=True))

    tf.saved_model.save(
        module, directory, signatures=serve.get_concrete_function()
    )
    return [
        (value, "sparse", module.weights.bytes_of(value))
        if name in chosen
        else (value, "dense", value.nbytes)
        for name, value in weights.items()
    ]


def _freeze(function):
    """Returns a function as a graph of constants.

    Returns:
        `(graph, inputs, captured, outputs, names)`: a `GraphDef`; the names
        of the nodes of its inputs; a dict from the names of others to the
        tables that they stand for; the outputs as `(node, port)`, and the
        names that they have.
    """
    from tensorflow.python.framework import convert_to_constants

    frozen = convert_to_constants.convert_variables_to_constants_v2(
        function, lower_control_flow=False
    )
    captured = {
        placeholder.op.name: table
        for table, placeholder in frozen.graph.captures
    }
    inputs = [
        tensor.op.name
        for tensor in frozen.inputs
        if tensor.op.name not in captured
    ]
    graph = frozen.graph.as_graph_def()
    for node in nodes(graph):
        # Gradients of users' own are of no use in a file that only serves;
        # TensorFlow cannot store them, those of `silu` among them.
        node.attr.pop("_gradient_op_type", None)
    outputs = [
        (tensor.op.name, tensor.value_index) for tensor in frozen.outputs
    ]
    names = sorted(function.structured_outputs)  # as TensorFlow flattens them
    return graph, inputs, captured, outputs, names


def _weights(graph):
    """Returns the float32 constants of rank 2 or more, by node."""
    import tensorflow as tf

    found = {}
    for node in graph.node:
        if (
            node.op == "Const"
            and node.attr["dtype"].type == tf.float32.as_datatype_enum
        ):
            value = tf.make_ndarray(node.attr["value"].tensor)
            if value.ndim > 1:
                found[node.name] = value
    return found


def _is_smaller(value):
    values, gaps = gap_code.encode(value.ravel())
    return values.nbytes + gaps.nbytes + _OVERHEAD_BYTES < value.nbytes


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
    """Returns a resource that holds arrays, zeros not stored."""
    import tensorflow as tf

    parts = [np.pad(a.ravel(), (0, -a.size % _ROW)) for a in arrays]
    rows = [part.size // _ROW for part in parts]
    values, gaps = gap_code.encode(np.concatenate(parts))
    digest = hashlib.sha256(values.tobytes() + gaps.tobytes())
    shape = [sum(rows), _ROW]

    class StoredWeights(tf.saved_model.experimental.TrackableResource):
        """The variable, and how it is filled.

        Models with the same weights in one process share it, and it lives as
        long as the process, as lookup tables do: it is named by its content.
        """

        def _create_resource(self):
            return tf.raw_ops.VarHandleOp(
                dtype=tf.float32,
                shape=shape,
                shared_name=f"weights_{digest.hexdigest()[:32]}",
            )

        def _initialize(self):
            places = tf.cumsum(tf.cast(tf.constant(gaps), tf.int32))
            flat = tf.scatter_nd(
                places[:, tf.newaxis], tf.constant(values), [sum(rows) * _ROW]
            )
            tf.raw_ops.AssignVariableOp(
                resource=self.resource_handle, value=tf.reshape(flat, shape)
            )

        def read(self):
            """Returns the arrays, as tensors."""
            matrix = tf.raw_ops.ReadVariableOp(
                resource=self.resource_handle, dtype=tf.float32
            )
            tensors = []
            for part, array in zip(tf.split(matrix, rows), arrays, strict=True):
                if array.size % _ROW:
                    part = tf.reshape(part, [-1])[: array.size]
                tensors.append(tf.reshape(part, array.shape))
            return tensors

        def bytes_of(self, array):
            """Returns the bytes of one array's kept values and gaps."""
            kept = int(np.count_nonzero(array))
            return kept * (values.itemsize + gaps.itemsize)

    return StoredWeights()
