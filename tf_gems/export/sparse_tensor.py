"""TFLite's sparse encoding of one weight.

A weight of shape `(..., c)` is stored as compressed sparse rows: its axes but
the last are dense and number the rows, the last one is sparse. For row `r`
the kept values are `values[segments[r]:segments[r + 1]]`, in the columns
`indices[segments[r]:segments[r + 1]]`.

With a block of 4, a matrix is stored by groups of four columns: a group is
kept as a whole if any of its values is not zero.
"""

import math

import numpy as np


def encode(array, schema, block=1):
    """Encodes an array of rank 2 or more sparsely.

    Returns `(values, parameters)`: a flat array and a `SparsityParametersT`.
    The block, columns that are kept or dropped together, divides the last axis.
    """
    *rows, columns = array.shape
    groups = array.reshape(-1, columns // block, block)
    kept = (groups != 0).any(axis=-1)
    if not kept.any():
        # A tensor without data would not be read as a constant.
        kept[0, 0] = True
    segments = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    # `nonzero` would take 16 bytes for each entry.
    count = kept.shape[1]
    places = np.arange(count, dtype=np.min_scalar_type(count))
    indices = np.broadcast_to(places, kept.shape)[kept]

    axes = [_dense(schema, size) for size in rows]
    axes.append(_sparse(schema, segments, indices))
    parameters = schema.SparsityParametersT()
    if block > 1:
        axes.append(_dense(schema, block))
        parameters.blockMap = np.array([len(rows)], "int32")
    parameters.traversalOrder = np.arange(len(axes), dtype="int32")
    parameters.dimMetadata = axes
    values = groups[..., 0][kept] if block == 1 else groups[kept].ravel()
    return values, parameters


def decode(values, parameters, shape):
    """Returns the array of a shape that flat values and parameters encode."""
    axis = parameters.dimMetadata[len(shape) - 1]
    segments = np.asarray(axis.arraySegments.values)
    indices = np.asarray(axis.arrayIndices.values)
    has_blocks = parameters.blockMap is not None and len(parameters.blockMap)
    block = parameters.dimMetadata[-1].denseSize if has_blocks else 1
    groups = np.zeros(
        (math.prod(shape[:-1]), shape[-1] // block, block), values.dtype
    )
    rows = np.repeat(np.arange(len(groups)), np.diff(segments))
    groups[rows, indices] = values.reshape(-1, block)
    return groups.reshape(shape)


def index_bytes(parameters):
    """Returns the bytes of the segments and indices."""
    vectors = [
        vector.values
        for axis in parameters.dimMetadata
        for vector in (axis.arraySegments, axis.arrayIndices)
        if vector is not None
    ]
    return sum(np.asarray(vector).nbytes for vector in vectors)


def _dense(schema, size):
    axis = schema.DimensionMetadataT()
    axis.format = schema.DimensionType.DENSE
    axis.denseSize = int(size)
    return axis


def _sparse(schema, segments, indices):
    axis = schema.DimensionMetadataT()
    axis.format = schema.DimensionType.SPARSE_CSR
    axis.arraySegmentsType, axis.arraySegments = _vector(schema, segments)
    axis.arrayIndicesType, axis.arrayIndices = _vector(schema, indices)
    return axis


def _vector(schema, numbers):
    """Returns numbers in the smallest integer type that fits."""
    largest = numbers.max(initial=0)
    for bits, name in ((8, "Uint8Vector"), (16, "Uint16Vector")):
        if largest < 1 << bits:
            vector = getattr(schema, f"{name}T")()
            vector.values = numbers.astype(f"uint{bits}")
            return getattr(schema.SparseIndexVector, name), vector
    vector = schema.Int32VectorT()
    vector.values = numbers.astype("int32")
    return schema.SparseIndexVector.Int32Vector, vector
