import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tf_gems.selection import distributions
from tf_gems.selection.masks import keep_largest

STAGES = [
    (3, 3, 3, 16),
    *[(3, 3, 16, 16)] * 6,
    (3, 3, 16, 32),
    *[(3, 3, 32, 32)] * 5,
    (3, 3, 32, 64),
    *[(3, 3, 64, 64)] * 5,
    (64, 10),
]
SIZES = [math.prod(shape) for shape in STAGES]
COUNTED = ["uniform", "erk", "smart_ratio"]

SHAPES = st.lists(
    st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=300)
@given(SHAPES, st.floats(0.0001, 1.0), st.sampled_from(COUNTED))
def test_counts_sum_to_total_and_fit(shapes, density, name):
    sizes = [math.prod(shape) for shape in shapes]
    try:
        counts = distributions.get(name)(shapes, density)
    except ValueError:
        assert name == "smart_ratio"
        assert 0.3 * sizes[-1] > density * sum(sizes)
        return
    assert sum(counts) == round(density * sum(sizes))
    assert all(0 <= c <= n for c, n in zip(counts, sizes, strict=True))
    assert all(type(count) is int for count in counts)


def test_dense_network_stays_dense():
    for name in COUNTED:
        assert distributions.get(name)(STAGES, 1.0) == SIZES


@pytest.mark.parametrize("density", [0.5, 0.0144, 0.001])
def test_uniform(density):
    counts = np.array(distributions.Uniform()(STAGES, density))
    assert np.max(np.abs(counts - density * np.array(SIZES))) < 1


def test_largest_remainder_example():
    # 0.35 * (3, 5, 6) = 1.05, 1.75, 2.1: 4.9 in total, so 1.75 rounds up.
    assert distributions.Uniform()([(3,), (5,), (6,)], 0.35) == [1, 2, 2]
    # Of equal remainders, the first ones round up.
    assert distributions.Uniform()([(3,), (3,), (3,), (3,)], 0.5) == [
        2,
        2,
        1,
        1,
    ]


@pytest.mark.parametrize("density", [0.5, 0.0144])
def test_erk(density):
    counts = np.array(distributions.ErdosRenyiKernel()(STAGES, density))
    sizes = np.array(SIZES)
    ratio = np.array([sum(shape) for shape in STAGES]) / sizes
    whole = counts == sizes
    assert whole.any() == (density == 0.5)
    # All other layers share one constant, which would exceed the size of the
    # dense ones.
    constant = counts[~whole].sum() / (ratio * sizes)[~whole].sum()
    expected = np.where(whole, sizes, constant * ratio * sizes)
    assert np.max(np.abs(counts - expected)) < 1.01
    assert (constant * ratio[whole] >= 1).all()


@pytest.mark.parametrize(
    "percent, gamma, published",
    [
        (3.72, 6.3986e-4, {0: 26.85, 1: 24.31, 7: 11.63, 13: 3.58, 18: 0.38}),
        (1.44, 2.4000e-4, {0: 9.95, 1: 9.11, 7: 4.36, 13: 1.34, 18: 0.14}),
        (0.59, 9.0925e-5, {0: 3.70, 1: 3.43, 7: 1.65, 13: 0.51, 18: 0.05}),
    ],
)
def test_smart_ratio_matches_paper_resnet20(percent, gamma, published):
    sizes = np.array(SIZES, "float64")
    smart = distributions.SmartRatio()
    shares = smart.shares(STAGES, sizes, percent / 100 * sum(SIZES), None)
    depth = np.arange(20, 1, -1)
    found = shares[:-1] / sizes[:-1] / (depth**2 + depth)
    np.testing.assert_allclose(found, gamma, rtol=2e-5)
    assert shares[-1] == 0.3 * 640
    # The authors' table of layers, in percent with two decimals.
    counts = smart(STAGES, percent / 100)
    for layer, value in published.items():
        expected = value / 100 * SIZES[layer]
        assert abs(counts[layer] - expected) <= 1 + 0.5e-4 * SIZES[layer]


def test_smart_ratio_redistributes_excess():
    # 0.3 * 20 = 6 of 24 for the last. 12 : 6 for the others, but 10 fit.
    shapes = [(10,), (10,), (20,)]
    assert distributions.SmartRatio()(shapes, 24 / 40) == [10, 8, 6]
    assert distributions.SmartRatio()(shapes, 30 / 40) == [10, 10, 10]


def test_smart_ratio_refuses_too_dense_last_weight():
    with pytest.raises(ValueError, match="last=0.3.*192 of the 27.*Lower"):
        distributions.SmartRatio()(STAGES, 1e-4)
    assert sum(distributions.SmartRatio(0.0)(STAGES, 1e-4)) == 27
    with pytest.raises(ValueError, match="last=30"):
        distributions.SmartRatio(30)


def test_per_path():
    paths = ["net/stem/kernel", "net/body/kernel", "net/head/kernel"]
    shapes = [(4, 5), (10, 10), (10, 8)]
    chosen = distributions.PerPath(
        {"stem|head": 0.5, "head": 0.75, "body": 0.9}
    )
    assert chosen(shapes, 0.3, paths) == [10, 10, 40]
    # 60 of 200 in total, 10 in the stem. The others share 50 at 50 / 180.
    chosen = distributions.PerPath({"stem": 0.5})
    assert chosen(shapes, 0.3, paths) == [10, 28, 22]


@pytest.mark.parametrize(
    "sparsities, message",
    [
        ({"sten": 0.5}, "'sten'. The weights are: stem, body"),
        ({"stem": 0.0}, "keep 20 weights of the 12 allowed"),
        ({"stem": 0.9, "body": 0.9}, "keep 12 weights of the 60 allowed"),
        ({"stem": 98}, r"sparsities\['stem'\]=98. Did you mean 0.98"),
    ],
)
def test_per_path_refuses(sparsities, message):
    density = 0.5 if len(sparsities) > 1 else 0.1
    with pytest.raises(ValueError, match=message):
        distributions.PerPath(sparsities)(
            [(4, 5), (10, 10)], density, ["stem", "body"]
        )


def test_keep():
    random = np.random.default_rng(0)
    scores = [random.normal(size=shape) for shape in STAGES]
    everywhere = keep_largest(scores, round(0.01 * sum(SIZES)))
    found = distributions.Global(minimum=0).keep(scores, 0.01)
    for mask, expected in zip(found, everywhere, strict=True):
        np.testing.assert_array_equal(mask, expected)
    for name in COUNTED:
        chosen = distributions.get(name)
        masks = chosen.keep(scores, 0.01)
        assert [m.sum() for m in masks] == chosen(STAGES, 0.01)
        for mask, score in zip(masks, scores, strict=True):
            assert score[mask].min() > score[~mask].max()


def test_global_minimum():
    scores = [np.array([9.0, 8.0, 7.0]), np.array([1.0, 2.0]), np.array([0.0])]
    masks = distributions.Global(minimum=1).keep(scores, 4 / 6)
    expected = [[True, True, False], [False, True], [True]]
    assert [mask.tolist() for mask in masks] == expected
    with pytest.raises(ValueError, match="minimum=1 for 3.*2 entries"):
        distributions.Global(minimum=1).keep(scores, 2 / 6)


@pytest.mark.parametrize(
    "chosen",
    [
        distributions.Global(minimum=2),
        distributions.Uniform(),
        distributions.ErdosRenyiKernel(),
        distributions.SmartRatio(last=0.25),
        distributions.PerPath({"stem": 0.5}),
    ],
)
def test_config_round_trip(chosen):
    config = keras.saving.serialize_keras_object(chosen)
    copy = distributions.get(config)
    assert type(copy) is type(chosen)
    assert copy.get_config() == chosen.get_config()


def test_get():
    for name, kind in distributions.DISTRIBUTIONS.items():
        assert type(distributions.get(name)) is kind
    chosen = distributions.SmartRatio(0.1)
    assert distributions.get(chosen) is chosen
    assert distributions.get({"stem": 0.5}).sparsities == {"stem": 0.5}
    for identifier in ("per_path", "erc", None):
        with pytest.raises(ValueError, match="Received: distribution=.*Known"):
            distributions.get(identifier)


@pytest.mark.parametrize("name", COUNTED)
def test_gradual_pruning_ends_at_exact_count(name):
    random = np.random.default_rng(0)
    for _ in range(50):
        shapes = [tuple(random.integers(3, 12, 2)) for _ in range(5)]
        size = sum(math.prod(shape) for shape in shapes)
        alive = [np.ones(shape, bool) for shape in shapes]
        for density in 0.8 ** np.arange(1, 7):
            scores = [random.random(shape) for shape in shapes]
            kept = distributions.get(name).keep(scores, density, among=alive)
            for mask, before in zip(kept, alive, strict=True):
                assert not (mask & ~before).any()
            alive = kept
            assert sum(m.sum() for m in alive) == round(density * size)


def lamp_by_definition(weight):
    """Equation 2 of the paper, with a loop over the sorted entries."""
    flat = np.abs(np.ravel(weight)).astype("float64")
    order = np.argsort(flat, kind="stable")  # Ascending.
    scores = np.empty(flat.size)
    for place, index in enumerate(order):
        rest = sum(flat[v] ** 2 for v in order[place:])
        scores[index] = flat[index] ** 2 / rest
    return scores.reshape(np.shape(weight))


def test_lamp_example():
    # 9/9, 4/13, 1/14 and 16/16, 1/17, for layers 100 times apart.
    scores = [np.array([[1.0, 3.0], [2.0, 0.0]]), np.array([0.04, 0.01])]
    expected = [9 / 9, 16 / 16, 4 / 13, 1 / 14, 1 / 17, 0]
    order = [(0, 1), (1, 0), (0, 2), (0, 0), (1, 1), (0, 3)]
    assert expected == sorted(expected, reverse=True)
    for count in range(2, 7):  # One weight of each layer fits.
        masks = distributions.get("lamp").keep(scores, count / 6)
        kept = {
            (layer, int(place))
            for layer, mask in enumerate(masks)
            for place in np.flatnonzero(mask)
        }
        assert kept == set(order[:count])


@pytest.mark.parametrize("density", [0.02, 0.1, 0.37, 0.9])
def test_lamp_matches_definition(density):
    random = np.random.default_rng(0)
    shapes = [(3, 3, 8, 1), (8, 40), (40, 5)]
    weights = [
        (random.normal(size=shape) * scale).astype("float32")
        for shape, scale in zip(shapes, (1e-6, 1.0, 1e4), strict=True)
    ]
    masks = distributions.Lamp().keep([np.abs(w) for w in weights], density)
    flat = np.concatenate([lamp_by_definition(w).ravel() for w in weights])
    expected = np.zeros(flat.size, bool)
    expected[np.argsort(-flat)[: round(density * flat.size)]] = True
    found = np.concatenate([mask.ravel() for mask in masks])
    np.testing.assert_array_equal(found, expected)
    # Only alive weights count, as if the others were zero.
    alive = [random.random(shape) < 0.5 for shape in shapes]
    pruned = [np.where(a, w, 0) for a, w in zip(alive, weights, strict=True)]
    scores = [np.abs(w) for w in weights]
    density *= 0.5
    among = distributions.Lamp().keep(scores, density, among=alive)
    zeroed = distributions.Lamp().keep([np.abs(w) for w in pruned], density)
    for a, b in zip(among, zeroed, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["lamp", "layer_normalized"])
def test_layer_scale_does_not_matter(name):
    random = np.random.default_rng(1)
    scores = [random.random((7, 9)), random.random((30, 4))]
    far = [scores[0] * 2.0**-90, scores[1] * 2.0**90]
    for sign in (1, -1):  # Negative scores keep their order as well.
        pairs = zip(
            distributions.get(name).keep([sign * s for s in scores], 0.3),
            distributions.get(name).keep([sign * s for s in far], 0.3),
            strict=True,
        )
        for index, (a, b) in enumerate(pairs):
            np.testing.assert_array_equal(a, b)
            kept, cut = sign * scores[index][a], sign * scores[index][~a]
            assert 0 < a.sum() < a.size and kept.min() > cut.max()


def test_layer_normalized_matches_numpy():
    random = np.random.default_rng(2)
    scores = [random.random((7, 9)), 100 * random.random((30, 4)) ** 3]
    units = [s / np.sqrt(np.mean(s**2)) for s in scores]
    masks = distributions.LayerNormalized().keep(scores, 0.2)
    expected = distributions.Global().keep(units, 0.2)
    for a, b in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_of_equal_or_zero_magnitudes():
    scores = [np.ones((4, 4)), np.zeros((3, 3))]
    masks = distributions.Lamp().keep(scores, 10 / 25)
    # Of equal weights, the first are kept. A layer of zeros keeps its floor.
    assert np.flatnonzero(masks[0]).tolist() == list(range(9))
    assert np.flatnonzero(masks[1]).tolist() == [0]
