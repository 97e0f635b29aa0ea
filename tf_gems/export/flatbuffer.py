"""Reads and writes TFLite files as objects."""

import numpy as np

from tf_gems.export import sparse_tensor

# Operators that have weights, and which of their inputs these are.
WEIGHTS = {
    "BATCH_MATMUL": 1,
    "CONV_2D": 1,
    "CONV_3D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "EMBEDDING_LOOKUP": 1,
    "FULLY_CONNECTED": 1,
    "GATHER": 0,
    "TRANSPOSE_CONV": 1,
}


def load_schema():
    """Returns the module of the classes of TFLite's file format."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        from tensorflow.lite.python import schema_py_generated
    return schema_py_generated


def read(data):
    """Returns the `ModelT` of the bytes of a file."""
    schema = load_schema()
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))


def write(model):
    """Returns the bytes of a `ModelT`."""
    import flatbuffers

    schema = load_schema()

    class AlignedBuffer(schema.BufferT):
        """Starts data at multiples of 16 bytes, as the format demands."""

        def Pack(self, builder):  # noqa: N802
            data = b"" if self.data is None else bytes(self.data)
            if data:
                builder.StartVector(1, len(data), 16)
                builder.head -= len(data)
                end = builder.head + len(data)
                builder.Bytes[builder.head : end] = data
                vector = builder.EndVector()
            schema.BufferStart(builder)
            if data:
                schema.BufferAddData(builder, vector)
            return schema.BufferEnd(builder)

    for buffer in model.buffers:
        buffer.__class__ = AlignedBuffer
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def operator_name(model, operator):
    """Returns the name of an operator, such as `"CONV_2D"`."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Codes above 127 stand in the newer field only.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    for name, value in vars(load_schema().BuiltinOperator).items():
        if value == number:
            return name
    return f"UNKNOWN_{number}"


def constant(model, tensor):
    """Returns the value of a float32 or int32 tensor, or `None`."""
    types = load_schema().TensorType
    dtypes = {types.FLOAT32: "<f4", types.INT32: "<i4"}
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or tensor.type not in dtypes:
        return None
    values = np.frombuffer(bytes(data), dtypes[tensor.type])
    shape = tuple(tensor.shape)
    if tensor.sparsity is not None:
        return sparse_tensor.decode(values, tensor.sparsity, shape)
    return values.reshape(shape)


def weights(model):
    """Returns the float32 weights of a model.

    Returns:
        Dict from `(subgraph, index of the tensor)` to the set of names of
        the operators that read it; `None` stands among them for a use that is
        not as a weight. A weight is named by the tensor that is stored, not
        by its dense copy.
    """
    found = {}
    for number, graph in enumerate(model.subgraphs):
        stored = {}
        readers = {}
        for operator in graph.operators:
            name = operator_name(model, operator)
            if name == "DENSIFY":
                stored[operator.outputs[0]] = operator.inputs[0]
                continue
            for position, index in enumerate(operator.inputs):
                index = stored.get(index, index)
                is_weight = WEIGHTS.get(name) == position
                readers.setdefault(index, set()).add(
                    name if is_weight else None
                )
        for index in graph.outputs:
            readers.setdefault(index, set()).add(None)
        for index, names in readers.items():
            if index < 0 or names == {None}:
                continue
            tensor = graph.tensors[index]
            value = constant(model, tensor)
            if value is not None and value.dtype == "f4" and value.ndim > 1:
                found[number, int(index)] = names
    return found


def describe(model, variables=()):
    """Describes the float32 weights of a model, from what is stored.

    Args:
        model: `ModelT`.
        variables: `keras.Variable`s to name the weights after. A weight is
            named after a variable if it has its zeros in the same places.

    Returns:
        List of dicts, see `tf_gems.ExportReport`.
    """
    kernels = [
        (v.path, np.asarray(v.numpy()) != 0)
        for v in variables
        if len(v.shape) > 1
    ]
    rows = []
    for number, index in weights(model):
        tensor = model.subgraphs[number].tensors[index]
        value = constant(model, tensor)
        size = len(model.buffers[tensor.buffer].data)
        if tensor.sparsity is not None:
            size += sparse_tensor.index_bytes(tensor.sparsity)
        rows.append(
            {
                "name": _name(value != 0, kernels) or tensor.name.decode(),
                "shape": list(value.shape),
                "zeros": int(np.count_nonzero(value == 0)),
                "encoding": "dense" if tensor.sparsity is None else "sparse",
                "bytes": size,
            }
        )
    return rows


def _name(pattern, kernels):
    """Returns the path of the first kernel with this pattern, removing it."""
    pattern = pattern.ravel()
    for position, (path, kernel) in enumerate(kernels):
        if kernel.size != pattern.size:
            continue
        # Keras' axes in the orders that TFLite may store them in.
        for moved in ((0, 0), (-1, 0), (-2, 0), (0, -1)):
            if np.array_equal(np.moveaxis(kernel, *moved).ravel(), pattern):
                kernels.pop(position)
                return path
    return None
