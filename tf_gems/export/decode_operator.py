"""Weights without their zeros, as TensorFlow Lite for Microcontrollers reads.

Its operator `TFLM_DECODE` takes two constants and makes a weight of them, each
time before the layer runs that reads it. Of a weight with the values `w`, in
the order in which they are stored, the constants are:

| constant | bytes | what they hold |
| --- | --- | --- |
| mask | all | bit `7 - i % 8` of byte `i // 8` is 1 if `w[i]` is kept |
| table | 0 | 2, the decode type "prune" |
| | 1 | 1, the version of this header |
| | 2, 3 | 0, reserved |
| | 4 | 1, the version of the decode type |
| | 5 to 15 | 0 |
| | from 16 | the kept values, in order |

What is not kept is the zero point of the weight, which is 0 for all weights
that TensorFlow's converter writes. The scales belong to the decoded weight.

Source: `DecodeStatePrune` and the design of the DECODE operator in
github.com/tensorflow/tflite-micro.
"""

import copy

import numpy as np

from tf_gems.export import flatbuffer

# Operators of the runtime that read their weights when they run.
READERS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
_NAME = b"TFLM_DECODE"
_HEADER = bytes([2, 1, 0, 0, 1]) + bytes(11)
# What the format needs for more tensors and one more operator.
_OVERHEAD_BYTES = 320


def encode(value):
    """Returns the mask and the table of a weight, as bytes.

    Args:
        value: Array of integers.

    Example:

    >>> mask, table = encode(np.array([[5, 0, 7]], "int8"))
    >>> list(mask), list(table[16:])
    ([160], [5, 7])
    """
    flat = np.ravel(value)
    kept = flat != 0
    little = flat[kept].astype(flat.dtype.newbyteorder("<"))
    return np.packbits(kept).tobytes(), _HEADER + little.tobytes()


def compress(model):
    """Replaces weights by what decodes them, where that is smaller.

    Args:
        model: `ModelT` with dense 8-bit weights, to change.

    Returns:
        `(sizes, reasons)`: dicts from `(subgraph, index of the tensor)` to
        the bytes that it takes now, and to why it is left dense.
    """
    sizes, reasons = {}, {}
    for place, names in flatbuffer.weights(model).items():
        number, index = place
        graph = model.subgraphs[number]
        tensor = graph.tensors[index]
        value = flatbuffer.constant(model, tensor)
        reason = _reason(tensor, value, names)
        mask, table = encode(value)
        size = len(mask) + len(table)
        if reason is None and size + _OVERHEAD_BYTES >= value.nbytes:
            reason = "that is smaller"
        if reason is not None:
            reasons[place] = reason
            continue
        _decode(model, graph, index, mask, table)
        sizes[place] = size
    return sizes, reasons


def _reason(tensor, value, names):
    """Returns why the runtime would not decode a weight right."""
    if names - READERS:
        others = " and ".join(sorted(str(x) for x in names - READERS))
        return f"the runtime does not decode weights of {others}"
    if value.dtype != np.int8:
        return "it is not of 8-bit integers"
    quantization = tensor.quantization
    if np.any(quantization.zeroPoint):
        return "its zeros are not stored as zeros"
    last = len(tensor.shape) - 1
    axis = quantization.quantizedDimension
    if axis and not (axis == last and len(quantization.scale) > 1):
        return "the runtime does not decode scales along its axis"
    return None


def _decode(model, graph, index, mask, table):
    """Turns a tensor into its mask, decoded before each of its readers.

    Each reader has a decoded weight of its own, so that a runtime may decode
    all weights into the same memory.
    """
    tensor = graph.tensors[index]
    weight = copy.copy(tensor)
    _fill(model, tensor, mask)
    values = copy.copy(tensor)
    values.name = (weight.name or b"") + b"/values"
    _fill(model, values, table)
    graph.tensors.append(values)
    constants = [index, len(graph.tensors) - 1]
    operators = []
    for operator in graph.operators:
        if index in operator.inputs:
            decoded = copy.copy(weight)
            decoded.name = (weight.name or b"") + b"/decoded"
            decoded.buffer = 0
            graph.tensors.append(decoded)
            position = len(graph.tensors) - 1
            operators.append(_operator(model, constants, position))
            operator.inputs = [
                position if i == index else int(i) for i in operator.inputs
            ]
        operators.append(operator)
    graph.operators = operators
    if not any(
        weight.buffer == other.buffer
        for part in model.subgraphs
        for other in part.tensors
    ):
        model.buffers[weight.buffer].data = None


def _fill(model, tensor, data):
    """Makes a tensor a constant of bytes."""
    schema = flatbuffer.load_schema()
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, "uint8")
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    tensor.shape = [len(data)]
    tensor.shapeSignature = None
    tensor.type = schema.TensorType.UINT8
    tensor.quantization = None


def _operator(model, inputs, output):
    schema = flatbuffer.load_schema()
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(model)
    operator.inputs, operator.outputs = list(inputs), [output]
    return operator


def _code(model):
    """Returns the position of the operator among those of the model."""
    for position, code in enumerate(model.operatorCodes):
        if code.customCode == _NAME:
            return position
    schema = flatbuffer.load_schema()
    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.CUSTOM
    code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = _NAME
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
