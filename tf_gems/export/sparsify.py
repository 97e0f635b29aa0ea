"""Stores the zeros of a TFLite model sparsely.

The option of the converter for this is not used: it skips embeddings, includes
unsafe cases, and chooses blocks of four by its own rule.
"""

import collections
import copy

import numpy as np

from tf_gems.export import flatbuffer
from tf_gems.export import sparse_tensor

# The reason for a dense weight with too few zeros.
SMALLER = "that is smaller"
# What the format needs for one more tensor and one more operator.
OVERHEAD_BYTES = 256
BLOCK = 4
# The largest fraction of nonzero blocks: measured to be 1.8 times faster.
MOST_BLOCKS = 0.2
_INT8_BLOCK = 16
_SPARSE_FULLY_CONNECTED = 8
# Which input of an operator is its data, if not the first.
_DATA = {"TRANSPOSE_CONV": 2, "GATHER": 1}
# Operators that LiteRT runs correctly with sparse weights, by type of weights.
# Integer weights of operators on floats are "hybrid". Each was tested. Others
# give NaN or wrong values, do not load, or were not tested.
_RIGHT = {
    "float32": set(flatbuffer.WEIGHTS),
    "float16": {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"},
    "int8": {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"},
    "hybrid": {"DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"},
}


def sparsify(model, safe, optimize):
    """Encodes weights sparsely where that is correct and smaller.

    A weight in compressed sparse rows is expanded once, when the model is
    loaded, by a `DENSIFY` operator. A weight in blocks of four, or of sixteen
    8-bit integers, is read by the sparse kernel of `FULLY_CONNECTED` as it is.
    Integers have no other sparse form there: LiteRT refuses to load them after
    `DENSIFY`, and to run them in smaller blocks. If zeros have no structure,
    blocks of sixteen save space from about 95 % zeros.

    Args:
        model: `ModelT` to change.
        safe: Whether `DENSIFY` is safe in this model, see `xnnpack`.
        optimize: `"size"`: all weights in compressed sparse rows.
            `"latency"`: in blocks where the sparse kernel is faster.

    Returns:
        `(count, reasons)`: the number of weights that were encoded, and a
        dict from `(subgraph, index of the tensor)` to why a weight with zeros
        was not; it ends the words "stored densely, as".
    """
    count, reasons = 0, {}
    uses = collections.Counter(
        tensor.buffer for graph in model.subgraphs for tensor in graph.tensors
    )
    schema = flatbuffer.load_schema()
    for weight in flatbuffer.weights(model):
        tensor, value = weight.tensor, weight.value
        if value.all() or tensor.sparsity is not None:
            continue
        kind = _kind(model, weight)
        block = _native_block(weight, kind, optimize)
        reason = _reason(weight, kind, safe) if block == 1 else None
        if reason is None:
            values, parameters = sparse_tensor.encode(value, schema, block)
            size = values.nbytes + sparse_tensor.index_bytes(parameters)
            if size + OVERHEAD_BYTES >= value.nbytes:
                reason = SMALLER
        if reason is not None:
            reasons[weight.place] = reason
            continue
        if block > 1:
            _announce_sparse(model, weight)
        else:
            _densify(model, weight)
        if uses[tensor.buffer] > 1:
            uses[tensor.buffer] -= 1
            tensor.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT())
        model.buffers[tensor.buffer].data = values.tobytes()
        tensor.sparsity = parameters
        count += 1
    return count, reasons


def _native_block(weight, kind, optimize):
    """Returns the block that a sparse kernel reads as it is, or 1."""
    if weight.readers != {"FULLY_CONNECTED"}:
        return 1
    if optimize == "latency" and kind == "float32":
        if _faster_in_blocks(weight.value):
            return BLOCK
    if kind == "int8" and not weight.value.shape[1] % _INT8_BLOCK:
        return _INT8_BLOCK
    return 1


def _reason(weight, kind, safe):
    """Returns why LiteRT would not run a sparse weight correctly."""
    if None in weight.readers:
        return "it is also read as something other than a weight"
    wrong = weight.readers - _RIGHT[kind]
    if wrong:
        return (
            f"LiteRT does not compute {' and '.join(sorted(wrong))} correctly "
            f"with sparse {'int8' if kind == 'hybrid' else kind} weights"
            + (" and float inputs" if kind == "hybrid" else "")
        )
    return (
        None
        if safe
        else ("XNNPACK may compute wrong outputs with sparse weights")
    )


def _kind(model, weight):
    """Returns the type of a weight; integers among floats are `"hybrid"`."""
    kind = weight.value.dtype.name
    if kind != "int8":
        return kind
    graph, index = weight.graph, weight.place[1]
    for operator, _ in flatbuffer.readers(model, graph)[index]:
        if operator is None:  # an output of the graph
            return "hybrid"
        name = flatbuffer.operator_name(model, operator)
        data = graph.tensors[operator.inputs[_DATA.get(name, 0)]]
        if flatbuffer.dtype_of(data) != np.dtype("int8"):
            return "hybrid"
    return kind


def _faster_in_blocks(matrix):
    """Whether enough blocks are zero for the sparse kernel to be faster."""
    rows, columns = matrix.shape
    if columns % BLOCK:
        return False
    groups = matrix.reshape(rows, -1, BLOCK)
    return (groups != 0).any(axis=-1).mean() <= MOST_BLOCKS


def _densify(model, weight):
    """Inserts an operator between a tensor and all its readers."""
    schema = flatbuffer.load_schema()
    graph, index = weight.graph, weight.place[1]
    dense = copy.copy(weight.tensor)
    dense.name = (dense.name or b"") + b"/dense"
    dense.buffer = 0
    dense.sparsity = None
    position = len(graph.tensors)
    for operator in graph.operators:
        operator.inputs = [
            position if i == index else i for i in operator.inputs
        ]
    graph.tensors.append(dense)
    # The scales of integers belong to the dense copy alone.
    weight.tensor.quantization = None

    operator = schema.OperatorT()
    operator.opcodeIndex = flatbuffer.operator_code(model, "DENSIFY")
    operator.inputs = [index]
    operator.outputs = [position]
    operator.builtinOptionsType = schema.BuiltinOptions.DensifyOptions
    operator.builtinOptions = schema.DensifyOptionsT()
    graph.operators.insert(0, operator)


def _announce_sparse(model, weight):
    """Marks the readers of a weight as the version that reads it sparse.

    XNNPACK treats earlier versions as dense, and computes wrong values.
    """
    code = flatbuffer.operator_code(
        model, "FULLY_CONNECTED", _SPARSE_FULLY_CONNECTED
    )
    for operator in weight.graph.operators:
        if weight.place[1] in operator.inputs:
            operator.opcodeIndex = code
