import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from reference_reader import read_positions

from tf_gems.ticket_file import positions


@st.composite
def masks(draw):
    """Returns flags: few, none, all, at random or consecutive."""
    size = draw(st.integers(0, 300))
    kind = draw(st.sampled_from(["list", "density", "none", "all", "block"]))
    if kind == "list":
        return np.array(draw(st.lists(st.booleans(), max_size=40)), bool)
    if kind == "density":
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        return random.random(size) < draw(st.floats(0, 1))
    if kind == "block":
        mask = np.zeros(size, bool)
        start = draw(st.integers(0, size))
        mask[start : start + draw(st.integers(0, 20))] = True
        return mask
    return np.full(size, kind == "all")


def rows(found, widths):
    return [
        (mask.size, int(mask.sum()), width)
        for mask, width in zip(found, widths, strict=True)
    ]


def decode(data, found, widths):
    return positions.decode(
        data, *([list(c) for c in zip(*rows(found, widths), strict=True)])
    )


@settings(deadline=None, max_examples=300)
@given(st.lists(masks(), min_size=1, max_size=4), st.data())
def test_any_masks_round_trip(found, data):
    """At the best width and at any other width."""
    widths = [positions.best_width(mask) for mask in found]
    other = data.draw(
        st.lists(
            st.integers(0, positions.LARGEST_WIDTH),
            min_size=len(found),
            max_size=len(found),
        )
    )
    for choice in (widths, other):
        code = positions.encode(found, choice)
        bits = sum(map(length, found, choice))
        assert len(code) == math.ceil(bits / 8)
        again = decode(code, found, choice)
        slowly = read_positions(code, rows(found, choice))
        for mask, read, reference in zip(found, again, slowly, strict=True):
            assert read.dtype == bool
            np.testing.assert_array_equal(read, mask)
            assert reference == mask.tolist()
    for mask, width, worse in zip(found, widths, other, strict=True):
        # Never longer than the mask itself, and the best of all widths.
        assert length(mask, width) <= mask.size
        assert length(mask, width) <= length(mask, worse)


def length(mask, width):
    return positions._length(positions._gaps(mask), width)


@pytest.mark.parametrize(
    "density", [1e-4, 1e-3, 0.0144, 0.02, 0.05, 0.1, 0.2, 0.3, 0.38, 0.5, 0.9]
)
def test_code_length_is_near_entropy(density):
    random = np.random.default_rng(3)
    mask = random.random(400_000) < density
    kept = int(mask.sum())
    share = kept / mask.size
    rate = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    bound = positions.entropy(mask.size, kept)
    # Stirling: the logarithm of the binomial is slightly below n H(k/n).
    assert mask.size * rate - 12 < bound < mask.size * rate
    found = length(mask, positions.best_width(mask))
    assert bound <= found * 1.003 and found <= 1.05 * bound
    if density == 0.0144:
        assert found <= 1.02 * bound


def test_entropy_of_masks():
    for size in range(7):
        for kept in range(size + 1):
            expected = math.log2(math.comb(size, kept))
            assert positions.entropy(size, kept) == pytest.approx(
                expected, abs=1e-9
            )


def test_code_example():
    # Gaps 5, 0 and 2. Remainders of width 1 are 1, 0, 0. Quotients are 2, 0, 1.
    mask = np.zeros(12, bool)
    mask[[5, 6, 9]] = True
    assert positions.encode([mask], [1]) == bytes([0b100_001_1_0, 0b1_0000000])
    # If more than half are set, the complement is coded.
    assert positions.encode([~mask], [1]) == positions.encode([mask], [1])
    [inverted] = positions.decode(
        bytes([0b10000110, 0b10000000]), [12], [9], [1]
    )
    np.testing.assert_array_equal(inverted, ~mask)


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=40),
    st.lists(
        st.tuples(
            st.integers(0, 2**20),
            st.integers(0, 2**20),
            st.integers(0, positions.LARGEST_WIDTH),
        ),
        max_size=3,
    ),
)
def test_random_bytes_are_refused_or_valid(data, described):
    sizes = [max(size, kept) for size, kept, _ in described]
    kept = [kept for _, kept, _ in described]
    widths = [width for *_, width in described]
    try:
        found = positions.decode(data, sizes, kept, widths)
    except ValueError:
        return
    assert [mask.size for mask in found] == sizes
    assert [int(mask.sum()) for mask in found] == kept
    assert positions.encode(found, widths) == data


def test_refusals_take_little_memory():
    data = bytes(1000)
    tracemalloc.start()
    try:
        with pytest.raises(
            ValueError, match="cannot be the positions of 1073741824"
        ):
            positions.decode(data, [2**31], [2**30], [0])
        # 8,000 zeros of width 31 would be gaps beyond 64 bits.
        with pytest.raises(ValueError, match="cannot be the positions of 3"):
            positions.decode(b"\xff" + data, [2**31], [3], [31])
        with pytest.raises(ValueError, match="those of 0 weights"):
            positions.decode(data, [2**20], [3], [0])
        with pytest.raises(ValueError, match="a position is 4 in a mask of 4"):
            positions.decode(b"\x08", [4], [1], [0])
        for long in (b"\x10\x01", b"\x18", b"\x10\x00"):
            with pytest.raises(ValueError):
                positions.decode(long, [4], [1], [0])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20
