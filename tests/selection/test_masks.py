import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tf_gems.selection.masks import keep_largest

SPECIAL = [0.0, -0.0, 1.0, 0.5, -1.0, np.inf, -np.inf, 1e-45, -1e-45, 1e-38]
# Few distinct values with many ties, or any values.
VALUES = st.one_of(
    st.sampled_from(SPECIAL),
    st.floats(width=32, allow_nan=False, allow_subnormal=True),
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
ARRAYS = hnp.arrays("float32", SHAPES, elements=VALUES)
NETWORKS = st.lists(ARRAYS, min_size=1, max_size=4)


def oracle(scores, count, among):
    """Ranks by a stable sort: larger first, and ties by position."""
    flat = np.concatenate([np.ravel(s) for s in scores]).astype("float64")
    competes = np.concatenate([np.ravel(a) for a in among])
    order = [i for i in np.argsort(-flat, kind="stable") if competes[i]]
    mask = np.zeros(flat.size, bool)
    mask[order[:count]] = True
    return mask


def joined(masks):
    return np.concatenate([np.ravel(m) for m in masks])


@settings(deadline=None, max_examples=300)
@given(NETWORKS, st.data())
def test_matches_stable_sort(scores, data):
    among = [data.draw(hnp.arrays(bool, s.shape)) for s in scores]
    competing = int(sum(a.sum() for a in among))
    count = data.draw(st.integers(0, competing))
    masks = keep_largest(scores, count, among=among)
    assert [m.shape for m in masks] == [s.shape for s in scores]
    assert all(m.dtype == bool for m in masks)
    np.testing.assert_array_equal(joined(masks), oracle(scores, count, among))
    assert joined(masks).sum() == count


@settings(deadline=None, max_examples=100)
@given(NETWORKS, st.data())
def test_without_among_all_entries_compete(scores, data):
    size = sum(s.size for s in scores)
    count = data.draw(st.integers(0, size))
    everything = [np.ones(s.shape, bool) for s in scores]
    np.testing.assert_array_equal(
        joined(keep_largest(scores, count)), oracle(scores, count, everything)
    )


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(
        "float32",
        st.integers(1, 60),
        # Zeros of either sign are equal, and therefore not unique.
        elements=st.floats(width=32, allow_nan=False).filter(lambda x: x != 0),
        unique=True,
    ),
    st.randoms(use_true_random=False),
    st.data(),
)
def test_order_does_not_matter_without_ties(scores, random, data):
    count = data.draw(st.integers(0, scores.size))
    order = np.array(random.sample(range(scores.size), scores.size))
    [mask] = keep_largest([scores], count)
    [permuted] = keep_largest([scores[order]], count)
    np.testing.assert_array_equal(permuted, mask[order])


def test_large_arrays_with_ties_have_exact_counts():
    random = np.random.default_rng(0)
    scores = [
        np.clip(random.normal(size=shape), 0, 1).astype("float32")
        for shape in ((300, 400), (7, 11, 13), (50_000,))
    ]
    everything = [np.ones(s.shape, bool) for s in scores]
    size = sum(s.size for s in scores)
    for count in (1, 1_000, size // 7, size // 2, size - 1, size):
        np.testing.assert_array_equal(
            joined(keep_largest(scores, count)),
            oracle(scores, count, everything),
        )


def test_inputs_are_unchanged():
    scores = np.array([0.3, -0.0, 0.7], "float32")
    among = np.array([True, True, False])
    before = scores.tobytes(), among.tobytes()
    keep_largest([scores], 1, among=[among])
    assert (scores.tobytes(), among.tobytes()) == before


@pytest.mark.parametrize(("count", "rule"), [(-1, "at least 0"), (3, r"\(2\)")])
def test_refuses_too_large_counts(count, rule):
    with pytest.raises(ValueError, match=rf"{rule}.*Received: count={count}"):
        keep_largest([np.zeros(3)], count, among=[np.arange(3) > 0])


def test_refuses_nan():
    with pytest.raises(
        ValueError, match="scores with NaN.*Reduce the learning"
    ):
        keep_largest([np.array([0.1, np.nan])], 1)
