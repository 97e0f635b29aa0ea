import itertools

import hypothesis.extra.numpy as hnp
import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import layers
from keras import ops

import tf_gems as gems
from tf_gems import methods
from tf_gems.selection import distributions
from tf_gems.selection import patterns
from tf_gems.selection.masks import keep_largest

# Few distinct values, so that ties are common and means are exact.
VALUES = st.integers(-6, 6).map(np.float32)
ANY = st.floats(width=32, allow_nan=False)
KERNELS = hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=6)


def networks(values):
    arrays = hnp.arrays("float32", KERNELS, elements=values)
    return st.lists(arrays, min_size=1, max_size=3)


N_OF_M = st.tuples(
    st.integers(1, 4), st.integers(0, 3), st.sampled_from([-2, -1, 0])
).map(lambda t: patterns.NOfM(t[0], t[0] + t[1], t[2]))
BLOCKS = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(
    lambda sizes: patterns.Block(*sizes)
)


def joined(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


def drawn_among(scores, data):
    return [data.draw(hnp.arrays(bool, s.shape)) for s in scores]


def groups(pattern, weight):
    """Returns indices of a weight in groups of M neighbors along an axis."""
    axis = pattern.axis % len(weight)
    others = [range(n) for i, n in enumerate(weight) if i != axis]
    for rest in itertools.product(*others):
        line = [(*rest[:axis], i, *rest[axis:]) for i in range(weight[axis])]
        for start in range(0, len(line), pattern.m):
            yield line[start : start + pattern.m]


def oracle_n_of_m(pattern, scores, count, among):
    """Loops over groups, then ranks by a stable sort."""
    first = [np.zeros(s.shape, bool) for s in scores]
    for mask, score, alive in zip(first, scores, among, strict=True):
        for group in groups(pattern, score.shape):
            ranked = sorted(
                [place for place in group if alive[place]],
                key=lambda place: -score[place],
            )
            for place in ranked[: pattern.n]:
                mask[place] = True
    first, flat, alive = joined(first), joined(scores), joined(among)
    ranked = sorted(
        np.flatnonzero(alive), key=lambda i: (not first[i], -flat[i])
    )
    mask = np.zeros(flat.shape, bool)
    mask[ranked[:count]] = True
    return mask, first


def matches(pattern, mask):
    return all(
        sum(mask[place] for place in group) <= pattern.n
        for group in groups(pattern, mask.shape)
    )


@settings(deadline=None, max_examples=150)
@given(N_OF_M, networks(st.one_of(VALUES, ANY)), st.data())
def test_n_of_m_matches_loops(pattern, scores, data):
    among = drawn_among(scores, data)
    count = data.draw(st.integers(0, int(joined(among).sum())))
    masks = pattern.keep_largest(scores, count, among)
    expected, first = oracle_n_of_m(pattern, scores, count, among)
    np.testing.assert_array_equal(joined(masks), expected)
    assert [m.shape for m in masks] == [s.shape for s in scores]
    assert joined(masks).sum() == count
    if count <= first.sum():
        assert all(matches(pattern, mask) for mask in masks)
    for mask in masks:
        assert pattern.matches(mask) == matches(pattern, mask)


@settings(deadline=None, max_examples=100)
@given(N_OF_M, networks(VALUES), st.data())
def test_n_of_m_holds_at_every_valid_density(pattern, scores, data):
    density = data.draw(st.floats(0.0, pattern.max_density))
    # Without a minimum, which may not fit.
    rules = [distributions.Global(minimum=0), distributions.Uniform()]
    rule = data.draw(st.sampled_from(rules))
    masks = rule.keep(scores, density, pattern=pattern)
    assert all(matches(pattern, mask) for mask in masks)
    size = sum(s.size for s in scores)
    assert joined(masks).sum() == round(density * size)


def blocks(pattern, weight):
    """Yields slices of the blocks of a weight."""
    edges = [1] * len(weight)
    for axis, edge in zip(
        reversed(range(len(weight))), reversed(pattern.sizes), strict=False
    ):
        edges[axis] = edge
    starts = [range(0, n, e) for n, e in zip(weight, edges, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(
            slice(start, start + edge)
            for start, edge in zip(corner, edges, strict=True)
        )


def oracle_block(pattern, scores, count, among):
    """Takes whole blocks with the largest means, while they fit."""
    masks = [np.zeros(s.shape, bool) for s in scores]
    found = [
        (-np.mean(score[block], dtype="float64"), index, block)
        for index, score in enumerate(scores)
        for block in blocks(pattern, score.shape)
        if among[index][block].all()
    ]
    for _, index, block in sorted(found, key=lambda entry: entry[0]):
        if sum(m.sum() for m in masks) + masks[index][block].size > count:
            break
        masks[index][block] = True
    return masks


@settings(deadline=None, max_examples=150)
@given(BLOCKS, networks(VALUES), st.data())
def test_block_matches_loops(pattern, scores, data):
    among = None
    if data.draw(st.booleans()):
        among = drawn_among(scores, data)
    everything = [np.ones(s.shape, bool) for s in scores]
    count = data.draw(st.integers(0, sum(s.size for s in scores)))
    masks = pattern.keep_largest(scores, count, among)
    expected = oracle_block(pattern, scores, count, among or everything)
    for mask, wanted in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(mask, wanted)
        assert pattern.matches(mask)
    kept = joined(masks).sum()
    assert kept <= count
    if among is None:
        assert kept > count - max(pattern.unit(s.shape) for s in scores)
    for mask in [*masks, *drawn_among(scores, data)]:
        whole = [mask[block] for block in blocks(pattern, mask.shape)]
        assert pattern.matches(mask) == all(
            b.all() or not b.any() for b in whole
        )


def test_minus_infinity_is_a_valid_score():
    scores = [np.full((4, 1), -np.inf)]
    among = [np.array([[False], [False], [True], [True]])]
    [mask] = patterns.NOfM(1, 4).keep_largest(scores, 1, among)
    assert mask.sum() == 1 and mask[2, 0]
    [mask] = patterns.Block(2, 1).keep_largest(scores, 2, among)
    np.testing.assert_array_equal(mask, among[0])


@settings(deadline=None, max_examples=60)
@given(networks(VALUES), st.data())
def test_unstructured_equals_keep_largest(scores, data):
    among = drawn_among(scores, data)
    count = data.draw(st.integers(0, int(joined(among).sum())))
    pattern = patterns.get("unstructured")
    np.testing.assert_array_equal(
        joined(pattern.keep_largest(scores, count, among)),
        joined(keep_largest(scores, count, among)),
    )
    assert all(pattern.matches(a) for a in among)


@pytest.mark.parametrize("name", ["1:2", "2:4", "2x1", "2x2", "channel"])
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_minimum_per_weight_keeps_pattern(name, data):
    pattern = patterns.get(name)
    sides = st.tuples(st.integers(2, 6), st.integers(2, 6))
    arrays = hnp.arrays("float32", sides, elements=st.integers(-6, 6))
    scores = data.draw(st.lists(arrays, min_size=1, max_size=3))
    size = sum(s.size for s in scores)
    # From the largest density to one unit in each weight.
    units = [pattern.unit(s.shape) for s in scores]
    densest, least = int(size * pattern.max_density), sum(units)
    count = densest - data.draw(st.integers(0, densest - least))
    rule = distributions.Global(minimum=1)
    masks = rule.keep(scores, count / size, pattern=pattern)
    assert all(pattern.matches(mask) for mask in masks)
    assert all(mask.any() for mask in masks)
    assert count - max(units) < joined(masks).sum() <= count


@settings(deadline=None, max_examples=40)
@given(networks(VALUES), st.data())
def test_channels_are_ranked_by_their_means(scores, data):
    count = data.draw(st.integers(0, sum(s.size for s in scores)))
    masks = patterns.Channel().keep_largest(scores, count)
    channels = []
    for number, score in enumerate(scores):
        depthwise = score.ndim > 2 and score.shape[-1] == 1
        rows = np.moveaxis(score, -2 if depthwise else -1, 0)
        channels += [
            (-np.mean(row, dtype="float64"), number, place, row.size)
            for place, row in enumerate(rows)
        ]
    left, expected = count, set()
    for _, number, place, size in sorted(channels, key=lambda c: c[0]):
        left -= size
        if left < 0:
            break
        expected.add((number, place))
    for number, mask in enumerate(masks):
        depthwise = mask.ndim > 2 and mask.shape[-1] == 1
        rows = np.moveaxis(mask, -2 if depthwise else -1, 0)
        found = {(number, i) for i, row in enumerate(rows) if row.all()}
        assert found == {pair for pair in expected if pair[0] == number}
        assert patterns.Channel().matches(mask)


def test_get():
    two_of_four = patterns.get("2:4")
    assert (two_of_four.n, two_of_four.m, two_of_four.axis) == (2, 4, -2)
    assert two_of_four.max_density == 0.5 and two_of_four.unit((4, 8)) == 1
    block = patterns.get("3x3x1x1")
    assert block.sizes == (3, 3, 1, 1) and block.unit((3, 3, 8, 8)) == 9
    assert isinstance(patterns.get("unstructured"), patterns.Unstructured)
    assert patterns.get(block) is block


@pytest.mark.parametrize(
    "pattern",
    [patterns.Unstructured(), patterns.NOfM(1, 16, 0), patterns.Block(4, 1)],
    ids=lambda pattern: type(pattern).__name__,
)
def test_config_round_trip(pattern):
    config = keras.saving.serialize_keras_object(pattern)
    copy = patterns.get(config)
    assert type(copy) is type(pattern) and copy is not pattern
    assert copy.get_config() == pattern.get_config()
    assert vars(copy) == vars(pattern)
    finder = methods.Magnitude(0.95, pattern=pattern)
    again = methods.get(keras.saving.serialize_keras_object(finder))
    assert vars(again.pattern) == vars(pattern)


@pytest.mark.parametrize(
    "identifier, message",
    [
        ("4:2", "n <= m. Received: n=4, m=2. Did you mean 2:4"),
        ("0:4", "`n` must be a positive integer. Received: n=0"),
        ("0x4", "`sizes` must be a positive integer. Received: sizes=0"),
        ("2-4", "Unknown `pattern`. Received: pattern='2-4'.*'2:4'.*'4x1'"),
        ("2:4:8", "Unknown `pattern`. Received: pattern='2:4:8'"),
        ("block", "at least one size"),
        ("n_of_m", "Received: pattern='n_of_m'.*Pass an instance of `NOfM`"),
        (None, "`pattern` must be a name"),
        (distributions.Global(), "`pattern` must be a name"),
    ],
)
def test_get_refuses(identifier, message):
    with pytest.raises(ValueError, match=message):
        patterns.get(identifier)


def test_invalid_numbers_are_refused():
    for build, message in [
        (lambda: patterns.NOfM(1.5, 4), "n=1.5"),
        (lambda: patterns.Block(2.0), "sizes=2.0"),
        (
            lambda: methods.Magnitude(0.4, pattern="2:4"),
            "at most 50.0%.*0.5 or",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            build()
    methods.Magnitude(0.5, pattern="2:4")
    with pytest.raises(ValueError, match=r"axis=-2 for .*\(4,\).*`filters`"):
        patterns.NOfM(2, 4).keep_largest([np.zeros(4)], 1)
    for pattern in (patterns.NOfM(1, 2), patterns.Block(2, 1)):
        with pytest.raises(ValueError, match="scores with NaN"):
            pattern.keep_largest([np.full((4, 1), np.nan)], 1)


random = np.random.default_rng(0)
DATA = [
    (
        random.normal(size=(8, 6, 6, 5)).astype("float32"),
        random.integers(0, 3, 8),
    )
    for _ in range(4)
]


def network():
    """Kernels with and without a multiple of four inputs."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 5)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(13, activation="relu"),
            layers.Dense(3),
        ]
    )
    sparse = gems.SparseModel(model, seed=0)
    sparse.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return sparse


ONE_SHOT = [
    name
    for name, method in methods.METHODS.items()
    if not issubclass(method, methods.Trained)
]


@pytest.mark.parametrize("name", ONE_SHOT)
def test_one_shot_methods_take_patterns(name):
    sparse = network()
    size = sparse.gem.size
    for pattern, sparsity in [("2:4", 0.5), ("2:4", 0.9), ("4x1", 0.8)]:
        finder = methods.get(name, target_sparsity=sparsity, pattern=pattern)
        ticket = finder.find(sparse, DATA)
        masks = ticket.masks.values()
        target = round((1 - sparsity) * size)
        if pattern == "2:4":
            assert all(matches(patterns.NOfM(2, 4), mask) for mask in masks)
            assert ticket.kept == target
        else:
            for mask in masks:
                for block in blocks(patterns.Block(4, 1), mask.shape):
                    assert mask[block].all() or not mask[block].any()
            assert target - 4 < ticket.kept <= target


def test_distribution_without_room_is_named():
    sparse = network()
    pattern = sparse.gem.prunable[-1].path
    finder = methods.Magnitude(0.5, {pattern: 0.1}, "2:4")
    with pytest.raises(ValueError, match="be compatible.*NOfM.*keeps 89.7%"):
        finder.find(sparse)


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.alive = []

    def on_epoch_end(self, epoch, logs=None):
        self.alive.append(
            [
                np.array(ops.convert_to_numpy(w.alive))
                for w in self.model.gem.prunable
            ]
        )


@pytest.mark.parametrize("pattern", ["2:4", "4x1", "channel"])
def test_gradual_freezing_ends_in_pattern(pattern):
    sparse, recorder = network(), Recorder()
    size = sparse.gem.size
    finder = methods.GemMiner(0.8, 6, freeze_period=1, pattern=pattern)
    finder.prepare(sparse)
    sparse.compile("sgd", sparse.loss)
    x, y = DATA[0]
    sparse.fit(
        x, y, epochs=6, verbose=0, callbacks=[finder.callback(), recorder]
    )
    ticket = finder.ticket(sparse, finder.masks(sparse))
    target = round(0.2 * size)
    unit = max(finder.pattern.unit(m.shape) for m in ticket.masks.values())
    assert target - unit < ticket.kept <= target
    if pattern == "2:4":
        assert ticket.kept == target
    steps = recorder.alive
    for index, (before, after) in enumerate(itertools.pairwise(steps)):
        counts = joined(before).sum(), joined(after).sum()
        assert counts[1] < counts[0]
        assert not np.any(joined(after) & ~joined(before))
        bound = round(size * 0.2 ** ((index + 1) / 5))
        assert bound - unit < counts[1] <= bound
        # Blocks from the first freeze on. 2:4 once the density allows it.
        if pattern != "2:4" or counts[1] <= size / 2:
            assert all(finder.pattern.matches(mask) for mask in after)
