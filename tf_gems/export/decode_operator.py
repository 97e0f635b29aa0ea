"""Weights without zeros, as TensorFlow Lite for Microcontrollers reads them.

Its operator `TFLM_DECODE` decodes a weight from two constants each time before
the layer that reads it runs. For a weight with the values `w`, in the order in
which they are stored, the constants are:

| constant | bytes | what they hold |
| --- | --- | --- |
| mask | all | bit `7 - i % 8` of byte `i // 8` is 1 if `w[i]` is kept |
| table | 0 | 2, the decode type "prune" |
| | 1 | 1, the version of this header |
| | 2, 3 | 0, reserved |
| | 4 | 1, the version of the decode type |
| | 5 to 15 | 0 |
| | from 16 | the kept values, in order |

Other values are the zero point of the weight, which is 0 for all weights that
TensorFlow's converter writes. The scales belong to the decoded weight.

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
    """Replaces weights of a `ModelT` by encoded ones if these are smaller.

    Returns:
        `(sizes, reasons)`: dicts from places, see `flatbuffer.Weight`, to the
        bytes that a weight takes now, and to why it is left dense.
    """
    sizes, reasons = {}, {}
    for weight in flatbuffer.weights(model):
        mask, table = encode(weight.value)
        size = len(mask) + len(table)
        reason = _reason(weight)
        if reason is None and size + _OVERHEAD_BYTES >= weight.value.nbytes:
            reason = "that is smaller"
        if reason is not None:
            reasons[weight.place] = reason
            continue
        _decode(model, weight, mask, table)
        sizes[weight.place] = size
    return sizes, reasons


def _reason(weight):
    """Returns why the runtime would not decode a weight right."""
    others = weight.readers - READERS
    if others:
        names = " and ".join(sorted(map(str, others)))
        return f"the runtime does not decode the weights of {names}"
    if weight.value.dtype != np.int8:
        return "it does not contain 8-bit integers"
    quantization = weight.tensor.quantization
    if np.any(quantization.zeroPoint):
        return "its zeros are not stored as zeros"
    last = weight.value.ndim - 1
    axis = quantization.quantizedDimension
    if axis and not (axis == last and len(quantization.scale) > 1):
        return "the runtime does not decode scales along its axis"
    return None


def _decode(model, weight, mask, table):
    """Turns a tensor into its mask, decoded before each of its readers.

    Each reader has a decoded weight of its own, so that a runtime may decode
    all weights into the same memory.
    """
    graph, tensor, index = weight.graph, weight.tensor, weight.place[1]
    dense = copy.copy(tensor)
    _fill(model, tensor, mask)
    values = copy.copy(tensor)
    values.name = (dense.name or b"") + b"/values"
    _fill(model, values, table)
    graph.tensors.append(values)
    constants = [index, len(graph.tensors) - 1]
    code = flatbuffer.operator_code(model, "CUSTOM", custom=_NAME)
    operators = []
    for operator in graph.operators:
        if index in operator.inputs:
            decoded = copy.copy(dense)
            decoded.name = (dense.name or b"") + b"/decoded"
            decoded.buffer = 0
            graph.tensors.append(decoded)
            position = len(graph.tensors) - 1
            decode = flatbuffer.load_schema().OperatorT()
            decode.opcodeIndex = code
            decode.inputs, decode.outputs = constants, [position]
            operators.append(decode)
            operator.inputs = [
                position if i == index else int(i) for i in operator.inputs
            ]
        operators.append(operator)
    graph.operators = operators
    if not any(
        dense.buffer == other.buffer
        for part in model.subgraphs
        for other in part.tensors
    ):
        model.buffers[dense.buffer].data = None


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
