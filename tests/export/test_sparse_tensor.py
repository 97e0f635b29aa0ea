import itertools

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest

pytest.importorskip("tensorflow")

from tf_gems.export import sparse_tensor
from tf_gems.export.flatbuffer import load_schema


def expand(values, parameters, shape):
    """Decodes a sparse tensor entry by entry, as the format specifies."""
    rank = len(shape)
    dense = np.zeros(shape, values.dtype)
    axes = parameters.dimMetadata
    segments = axes[rank - 1].arraySegments.values
    indices = axes[rank - 1].arrayIndices.values
    block = axes[rank].denseSize if len(axes) > rank else 1
    rows = itertools.product(
        *(range(axes[i].denseSize) for i in range(rank - 1))
    )
    for number, row in enumerate(rows):
        for entry in range(segments[number], segments[number + 1]):
            for offset in range(block):
                column = int(indices[entry]) * block + offset
                dense[(*row, column)] = values[entry * block + offset]
    return dense


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    st.data(),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(1, 3),
    st.sampled_from([1, 4]),
)
def test_round_trip(data, rows, groups, block):
    shape = (*rows, groups * block)
    values = st.sampled_from([0.0, 0.0, 0.0, 1.0, -2.5])
    array = data.draw(arrays.arrays("float32", shape, elements=values))
    kept, parameters = sparse_tensor.encode(array, load_schema(), block)
    np.testing.assert_array_equal(expand(kept, parameters, shape), array)
    np.testing.assert_array_equal(
        sparse_tensor.decode(kept, parameters, shape), array
    )
    if block == 1:
        assert kept.size == max(1, np.count_nonzero(array))
    assert list(parameters.traversalOrder) == list(
        range(len(shape) + (block > 1))
    )


@pytest.mark.parametrize(
    ("columns", "dtype"),
    [(256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "int32")],
)
def test_indices_have_smallest_possible_dtype(columns, dtype):
    array = np.zeros((2, columns), "float32")
    array[0, -1], array[1, 0] = 3, 4
    kept, parameters = sparse_tensor.encode(array, load_schema())
    axis = parameters.dimMetadata[1]
    assert axis.arrayIndices.values.dtype == dtype
    assert kept.tolist() == [3, 4]
    assert axis.arrayIndices.values.tolist() == [columns - 1, 0]
    assert axis.arraySegments.values.tolist() == [0, 1, 2]
    assert sparse_tensor.index_bytes(parameters) == (
        3 + 2 * np.dtype(dtype).itemsize
    )
    np.testing.assert_array_equal(
        sparse_tensor.decode(kept, parameters, array.shape), array
    )
