"""Gradual magnitude pruning against its rule in NumPy."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_gems as gems
from tf_gems import methods
from tf_gems import schedules
from tf_gems.callbacks import GradualMagnitudeCallback
from tf_gems.network import prunable_weights

random = np.random.default_rng(0)
DATA = [
    (
        random.normal(size=(8, 8)).astype("float32"),
        random.normal(size=(8, 4)).astype("float32"),
    )
    for _ in range(3)
]
SIZES = [96, 48]


def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, activation="relu", name="a"),
            layers.Dense(4, name="b"),
        ],
        name="network",
    )
    sparse = gems.SparseModel(model, seed=0)
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return sparse


class Watch(keras.callbacks.Callback):
    """Keeps weights and flags as they are when epochs begin."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        weights = prunable_weights(self.model)
        self.seen.append(
            (
                np.concatenate([np.ravel(w.weight) for w in weights]),
                np.concatenate([np.ravel(w.alive) for w in weights]) > 0,
            )
        )


def watch(**arguments):
    """Trains for eight epochs in a `fit` of one's own."""
    sparse = network()
    method = methods.GradualMagnitude(0.75, epochs=8, **arguments)
    method.prepare(sparse)
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    watched = Watch()
    fit = sparse.fit(
        np.concatenate([x for x, _ in DATA]),
        np.concatenate([y for _, y in DATA]),
        batch_size=8,
        epochs=8,
        verbose=0,
        callbacks=[method.callback(), watched],
    )
    return sparse, watched.seen, fit.history


def test_golden_masks_of_every_epoch():
    sparse, seen, history = watch()
    alive = np.ones(144, bool)
    counts = []
    for epoch, (weights, flags) in enumerate(seen):
        # Equation 1 of Zhu & Gupta from epoch 0 to 6, with 25 % in the end.
        density = 0.25 + 0.75 * (1 - min(epoch, 6) / 6) ** 3
        counts.append(round(144 * density))
        ranks = np.argsort(-np.where(alive, abs(weights), -1), kind="stable")
        alive = np.zeros(144, bool)
        alive[ranks[: counts[-1]]] = True
        np.testing.assert_array_equal(flags, alive)
    assert counts[0] == 144 and counts[-2:] == [36, 36]
    np.testing.assert_allclose(history["density"], np.array(counts) / 144)
    assert sparse.ticket().kept == 36


@pytest.mark.parametrize(
    "shape, allocation",
    [
        ("unstructured", "uniform"),
        ("2:4", "global"),
        ("2x1", "erk"),
        ("unstructured", {"a/kernel": 0.9}),
    ],
    ids=str,
)
def test_shapes_and_allocations(shape, allocation):
    sparse, seen, _ = watch(shape=shape, allocation=allocation)
    method = methods.GradualMagnitude(0.75, shape=shape, allocation=allocation)
    flags = [flags for _, flags in seen]
    assert all((b <= a).all() for a, b in zip(flags, flags[1:], strict=False))
    assert all(
        a.sum() > b.sum() for a, b in zip(flags[:6], flags[1:6], strict=False)
    )
    masks = sparse.ticket().masks
    assert all(method.shape.holds(mask) for mask in masks.values())
    counts = method.allocation([(8, 12), (12, 4)], 0.25, list(masks))
    kept = [mask.sum() for mask in masks.values()]
    if counts is None:
        assert sum(kept) == 36
    elif shape == "2x1":  # whole blocks only
        assert kept == [2 * (count // 2) for count in counts]
    else:
        assert kept == counts


def test_named_weights_fall_at_their_own_rate():
    _, seen, _ = watch(allocation={"a/kernel": 0.9})
    share = 1 - (1 - 2 / 6) ** 3  # of the way, when epoch 2 begins
    kept = [part.sum() for part in np.split(seen[2][1], [96])]
    ends = [10, 26]
    assert kept == [
        round(size - share * (size - end))
        for size, end in zip(SIZES, ends, strict=True)
    ]


def test_density_of_every_epoch():
    callback = GradualMagnitudeCallback(
        0.9, begin=0.25, end=0.75, schedule=schedules.Polynomial(1.0, 0.1, 1.0)
    )
    expected = [1.0, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1, 0.1]
    found = [callback.density(epoch, 8) for epoch in range(8)]
    np.testing.assert_allclose(found, expected)
    # However short training is, and whatever the schedule says.
    assert callback.density(0, 1) == pytest.approx(0.1)
    odd = GradualMagnitudeCallback(0.9, end=1.0, schedule=0.05)
    assert odd.density(1, 5) == pytest.approx(0.1)
    copy = type(odd).from_config(odd.get_config())
    assert copy.get_config() == odd.get_config()


def test_refusals():
    sparse = network()
    callback = GradualMagnitudeCallback(0.9)
    with pytest.raises(ValueError, match="which is mining.*prepare"):
        sparse.fit(*DATA[0], callbacks=[callback], verbose=0)
    for arguments in ({"begin": 0.8}, {"end": 1.1}, {"begin": -0.1}):
        with pytest.raises(ValueError, match="begin=.*end="):
            methods.GradualMagnitude(0.9, **arguments)
    with pytest.raises(ValueError, match="schedule='cubic'"):
        methods.GradualMagnitude(0.9, schedule="cubic")
