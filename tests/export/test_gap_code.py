import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tf_gems.export import gap_code


def encode(*parts):
    """Returns the values and the gaps of one flat array, in parts."""
    gap_type = gap_code.smallest_type(parts, parts[0].dtype.itemsize)
    coded = list(gap_code.encode(parts, gap_type))
    values = [piece for piece, _ in coded] or [np.zeros(0, "float32")]
    gaps = [piece for _, piece in coded] or [np.zeros(0, gap_type)]
    return np.concatenate(values), np.concatenate(gaps)


def expand(values, gaps, size):
    flat = np.zeros(size, values.dtype)
    place = 0
    for value, gap in zip(values.tolist(), gaps.tolist(), strict=True):
        place += gap
        flat[place] = value
    return flat


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    st.integers(1, 2000),
    st.sets(st.integers(0, 1999), max_size=30),
)
def test_round_trip(size, places):
    flat = np.zeros(size, "float32")
    for place in places:
        if place < size:
            flat[place] = place + 0.5
    values, gaps = encode(flat)
    np.testing.assert_array_equal(expand(values, gaps, size), flat)
    # The number of parts in which the array is read makes no difference.
    cut = size // 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gap_code, "_PIECE", 7)
        for one, other in zip(
            encode(flat[:cut], flat[cut:]), (values, gaps), strict=True
        ):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


@pytest.mark.parametrize("gap", [254, 255, 256, 509, 510, 511, 65535, 65536])
def test_gaps_at_dtype_limits(gap):
    for length in (1, 400):
        flat = np.zeros(gap + length + 1, "float32")
        flat[0], flat[gap] = 1, 2
        flat[gap:] = 3  # Many small gaps, for which bytes are the best type.
        values, gaps = encode(flat)
        np.testing.assert_array_equal(expand(values, gaps, flat.size), flat)
        # Each gap equals the limit of its type.
        assert np.count_nonzero(values) == np.count_nonzero(flat)


def test_smallest_dtype_is_chosen():
    near, far = np.zeros(10_000, "float32"), np.zeros(100_000, "float32")
    near[::50] = 1
    far[::1000] = 1
    far[::10_000] = 0
    for flat, dtype in ((near, "uint8"), (far, "uint16")):
        values, gaps = encode(flat)
        assert gaps.dtype == dtype
        assert len(values) == len(gaps) == np.count_nonzero(flat)


def test_all_zeros_take_no_bytes():
    values, gaps = encode(np.zeros(100, "float32"))
    assert values.size == gaps.size == 0
