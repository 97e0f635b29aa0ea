"""Reads and writes TFLite files as objects."""

import functools
import typing

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


class Weight(typing.NamedTuple):
    """A constant of a TFLite file that operators read as a weight.

    Args:
        place: `(number of the subgraph, index of the tensor)`. The tensor is
            the stored one, not its dense copy.
        graph: `SubGraphT` that contains it.
        tensor: `TensorT`.
        value: Array, float32, float16 or int8. Quantized values are the
            integers that are stored.
        readers: Set of names of the operators that read it. `None` stands for
            a use that is not as a weight.
    """

    place: tuple
    graph: object
    tensor: object
    value: np.ndarray
    readers: set


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

    def listed(values):
        return [] if values is None else values

    # Scalars and operators without inputs or outputs omit the list.
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            operator.inputs = listed(operator.inputs)
            operator.outputs = listed(operator.outputs)
        for tensor in graph.tensors or []:
            tensor.shape = listed(tensor.shape)
        graph.operators = listed(graph.operators)
        graph.inputs = listed(graph.inputs)
        graph.outputs = listed(graph.outputs)
    return model


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

    # The builder has its final size from the start and is not copied at the
    # end, so a large network is in memory only once.
    size = 1 << 16
    for buffer in model.buffers:
        buffer.__class__ = AlignedBuffer
        size += 32 + (0 if buffer.data is None else len(buffer.data))
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.sparsity is not None:
                size += sparse_tensor.index_bytes(tensor.sparsity)
    builder = flatbuffers.Builder(size)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return memoryview(builder.Bytes)[builder.Head() :]


@functools.cache
def _operator_names():
    return {n: k for k, n in vars(load_schema().BuiltinOperator).items()}


def operator_name(model, operator):
    """Returns the name of an operator, such as `"CONV_2D"`."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Codes above 127 are in the newer field only.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _operator_names().get(number, f"UNKNOWN_{number}")


def operator_code(model, name, version=1, custom=None):
    """Returns the position of an operator code, which is added if missing."""
    schema = load_schema()
    number = getattr(schema.BuiltinOperator, name)
    for position, code in enumerate(model.operatorCodes):
        same = (code.builtinCode, code.customCode or None) == (number, custom)
        if same and code.version >= version:
            return position
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.customCode, code.version = custom, version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def constant(model, tensor):
    """Returns the value of a constant tensor as it is stored, or `None`."""
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


def details(graph, indices, named):
    """Returns a dict from names to what is known of inputs or outputs.

    Args:
        graph: Subgraph.
        indices: Its inputs or outputs.
        named: Those of a signature.
    """
    places = {int(index): place for place, index in enumerate(indices)}
    found = {}
    for entry in named:
        tensor = graph.tensors[entry.tensorIndex]
        quantization = tensor.quantization
        scale, zero = 0.0, 0
        if quantization is not None and quantization.scale is not None:
            scale = np.float32(quantization.scale[0])
            zero = int(quantization.zeroPoint[0])
        found[entry.name.decode()] = {
            "place": places[int(entry.tensorIndex)],
            "dtype": dtype_of(tensor),
            "quantization": (scale, zero),
        }
    return found


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
    """Whether an operator only expands a constant, see `stored`."""
    # Operators that assign variables have no output.
    return len(operator.outputs) > 0 and int(operator.outputs[0]) in sources


def readers(model, graph):
    """Returns the operators that read each tensor, expanded or not.

    Returns:
        Dict from the index of a stored tensor to a list of
        `(operator, position among its inputs)`. `(None, None)` stands for an
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
    """Returns a list of every `Weight` of a model."""
    found = []
    for number, graph in enumerate(model.subgraphs):
        for index, uses in readers(model, graph).items():
            if index < 0:  # an optional input that is not there
                continue
            names = set()
            for operator, position in uses:
                name = operator and operator_name(model, operator)
                is_weight = operator and WEIGHTS.get(name) == position
                names.add(name if is_weight else None)
            tensor = graph.tensors[index]
            value = constant(model, tensor)
            if names == {None} or value is None:
                continue
            if value.dtype != "<i4" and value.ndim > 1:
                place = number, index
                found.append(Weight(place, graph, tensor, value, names))
    return found
