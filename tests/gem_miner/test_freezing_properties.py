"""Tests properties of freezes for all sequences and scores."""

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tf_gems.schedules import geometric_counts
from tf_gems.selection.distributions import Global

SHAPES = st.lists(
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=6),
    min_size=1,
    max_size=4,
)
TIED = st.sampled_from([0.0, 0.25, 0.5, 0.5, 1.0])


def joined(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


def by_hand(scores, count, alive, minimum):
    """Keeps the largest score of each weight first, then the largest of all."""
    flat, competes = joined(scores), joined(alive)
    tensor = np.repeat(np.arange(len(scores)), [s.size for s in scores])
    order = [i for i in np.argsort(-flat, kind="stable") if competes[i]]
    kept = []
    for number in range(len(scores)):
        kept += [i for i in order if tensor[i] == number][:minimum]
    kept += [i for i in order if i not in kept][: count - len(kept)]
    mask = np.zeros(flat.size, bool)
    mask[kept] = True
    return mask


@settings(deadline=None, max_examples=150)
@given(
    SHAPES, st.floats(0.02, 0.6), st.integers(1, 4), st.booleans(), st.data()
)
def test_freezes_are_exact_nested_and_idempotent(
    shapes, density, freezes, tied, data
):
    size = sum(int(np.prod(shape)) for shape in shapes)
    counts = geometric_counts(size, density, freezes)
    elements = TIED if tied else st.floats(0, 1, width=32)
    distribution = Global(minimum=1)
    alive = [np.ones(shape, bool) for shape in shapes]
    for before, count in zip(counts, counts[1:], strict=False):
        if count < len(shapes):
            break
        assert joined(alive).sum() == before
        scores = [
            data.draw(hnp.arrays("float32", shape, elements=elements))
            for shape in shapes
        ]
        kept = distribution.keep(scores, count / size, among=alive)
        # Counts are exact, masks are nested, no weight dies, the largest stay.
        assert joined(kept).sum() == count
        assert not (joined(kept) & ~joined(alive)).any()
        assert all(mask.any() for mask in kept)
        np.testing.assert_array_equal(
            joined(kept), by_hand(scores, count, alive, 1)
        )
        # A run that resumes within the epoch freezes again to the same masks.
        again = distribution.keep(scores, count / size, among=kept)
        np.testing.assert_array_equal(joined(again), joined(kept))
        alive = kept


@settings(deadline=None, max_examples=100)
@given(SHAPES, st.randoms(use_true_random=False), st.data())
def test_freezing_is_permutation_equivariant(shapes, random, data):
    sizes = [int(np.prod(shape)) for shape in shapes]
    values = list(range(sum(sizes)))
    random.shuffle(values)
    parts = np.split(np.array(values, "float32"), np.cumsum(sizes)[:-1])
    orders = [np.array(random.sample(range(n), n), int) for n in sizes]
    alive = [data.draw(hnp.arrays(bool, n)) for n in sizes]
    for a in alive:
        a[0] = True
    count = data.draw(
        st.integers(len(shapes), int(sum(a.sum() for a in alive)))
    )
    distribution = Global(minimum=1)
    kept = distribution.keep(parts, count / sum(sizes), among=alive)
    permuted = distribution.keep(
        [s[o] for s, o in zip(parts, orders, strict=True)],
        count / sum(sizes),
        among=[a[o] for a, o in zip(alive, orders, strict=True)],
    )
    for mask, order, found in zip(kept, orders, permuted, strict=True):
        np.testing.assert_array_equal(mask[order], found)
