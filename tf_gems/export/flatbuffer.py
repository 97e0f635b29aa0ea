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
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    # Operators without inputs or outputs, and scalars, leave the list out.
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            operator.inputs = _listed(operator.inputs)
            operator.outputs = _listed(operator.outputs)
        for tensor in graph.tensors or []:
            tensor.shape = _listed(tensor.shape)
        graph.operators = graph.operators or []
        graph.inputs = _listed(graph.inputs)
        graph.outputs = _listed(graph.outputs)
    return model


def _listed(values):
    return [] if values is None else values


def write(model):
    """Returns the bytes of a `ModelT`, as a `memoryview`."""
    import flatbuffers

    schema = load_schema()

    class AlignedBuffer(schema.BufferT):
        """Aligns data to 16 bytes, as the format requires."""

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
    # It has its final size from the start and is not copied at the end, so
    # that a large network is in memory only once.
    vectors = sum(_size(buffer.data) + 32 for buffer in model.buffers)
    vectors += sum(
        sparse_tensor.index_bytes(tensor.sparsity)
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.sparsity is not None
    )
    builder = flatbuffers.Builder(vectors + (1 << 16))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return memoryview(builder.Bytes)[builder.Head() :]


def _size(data):
    return 0 if data is None else len(data)


def operator_name(model, operator):
    """Returns the name of an operator, such as `"CONV_2D"`."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Codes above 127 are in the newer field only.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    for name, value in vars(load_schema().BuiltinOperator).items():
        if value == number:
            return name
    return f"UNKNOWN_{number}"


def constant(model, tensor):
    """Returns the value of a constant tensor as it is stored, or `None`.

    Quantised values are returned as the integers they are stored as.
    """
    dtype = dtype_of(tensor)
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or dtype is None:
        return None
    values = np.frombuffer(data, dtype)
    shape = tuple(tensor.shape)
    if tensor.sparsity is not None:
        return sparse_tensor.decode(values, tensor.sparsity, shape)
    return values.reshape(shape)


def dtype_of(tensor):
    """Returns the NumPy type of a tensor's values, or `None` for others."""
    types = load_schema().TensorType
    dtypes = {
        types.FLOAT32: "<f4",
        types.FLOAT16: "<f2",
        types.INT8: "<i1",
        types.INT32: "<i4",
    }
    name = dtypes.get(tensor.type)
    return None if name is None else np.dtype(name)


def stored(model, graph):
    """Returns the stored constants that operators expand.

    Returns:
        Dict from the index of an output of `DENSIFY` or `DEQUANTIZE` to the
        index of the constant that is stored.
    """
    found = {}
    for operator in graph.operators:
        if operator_name(model, operator) in ("DENSIFY", "DEQUANTIZE"):
            index = int(operator.inputs[0])
            index = found.get(index, index)
            if constant(model, graph.tensors[index]) is not None:
                found[int(operator.outputs[0])] = index
    return found


def expands_constant(operator, sources):
    """Whether an operator only expands a constant, see `stored`.

    Some operators have no output, such as those that assign variables.
    """
    return len(operator.outputs) > 0 and int(operator.outputs[0]) in sources


def readers(model, graph):
    """Returns the operators that read each tensor, expanded or not.

    Returns:
        Dict from the index of a stored tensor to a list of
        `(operator, position among its inputs)`. `(None, None)` means an
        output of the graph.
    """
    sources = stored(model, graph)
    found = {}
    for operator in graph.operators:
        if expands_constant(operator, sources):
            continue
        for position, index in enumerate(operator.inputs):
            index = sources.get(int(index), int(index))
            found.setdefault(index, []).append((operator, position))
    for index in graph.outputs:
        index = sources.get(int(index), int(index))
        found.setdefault(index, []).append((None, None))
    return found


def weights(model):
    """Returns the weights of a model: float32, float16 or int8 constants.

    Returns:
        Dict from `(subgraph, index of the tensor)` to the set of names of
        the operators that read it. `None` means a use that is not as a
        weight. The key is the stored tensor, not its dense copy.
    """
    found = {}
    for number, graph in enumerate(model.subgraphs):
        for index, uses in readers(model, graph).items():
            if index < 0:
                continue
            names = set()
            for operator, position in uses:
                name = operator and operator_name(model, operator)
                is_weight = operator and WEIGHTS.get(name) == position
                names.add(name if is_weight else None)
            value = constant(model, graph.tensors[index])
            if names == {None} or value is None:
                continue
            if value.dtype != "<i4" and value.ndim > 1:
                found[number, index] = names
    return found


def describe(model, variables=(), reasons=None):
    """Describes the weights of a model, from what is stored.

    Args:
        model: `ModelT`.
        variables: List of `(path, kept)` to name the weights after: the
            path of a variable, and a boolean array of where it is not zero.
            A weight is named after the variable with the most similar zeros.
        reasons: Dict, see `sparsify`. Defaults to `None`.

    Returns:
        List of dicts, see `tf_gems.ExportReport`.
    """
    kernels = list(variables)
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
                "type": value.dtype.name,
                "zeros": int(np.count_nonzero(value == 0)),
                "encoding": "dense" if tensor.sparsity is None else "sparse",
                "bytes": size,
                "reason": (reasons or {}).get((number, index)),
            }
        )
    return rows


def _name(pattern, kernels):
    """Returns the path of the kernel most like this pattern, removing it."""
    pattern = pattern.ravel()
    best, found = None, None
    count = np.count_nonzero(pattern)
    for position, (_, kernel) in enumerate(kernels):
        if kernel.size != pattern.size:
            continue
        # Rounding may add zeros, and removes none.
        kept = np.count_nonzero(kernel)
        if not kept / 2 <= count <= kept:
            continue
        # Keras' axes in the orders that TFLite may store them in.
        for moved in ((0, 0), (-1, 0), (-2, 0), (0, -1)):
            moved_kernel = np.moveaxis(kernel, *moved).ravel()
            if np.any(pattern & ~moved_kernel):
                continue
            lost = kept - count
            if best is None or lost < best:
                best, found = lost, position
            break
        if best == 0:
            break
    return None if found is None else kernels.pop(found)[0]
