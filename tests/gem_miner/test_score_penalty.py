"""Tests the adaptive penalty."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.datasets import load_digits

import tf_gems as gems
from tf_gems import gem_miner
from tf_gems.schedules import Constant

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = (IMAGES / 16).astype("float32")
SIZE = 64 * 100 + 100 * 10


def read(variable):
    return float(ops.convert_to_numpy(variable))


def sparse_model(optimizer, seed=0):
    keras.utils.set_random_seed(seed)
    network = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(100, use_bias=False, name="hidden"),
            keras.layers.BatchNormalization(scale=False, center=False),
            keras.layers.ReLU(),
            keras.layers.Dense(10, use_bias=False, name="output"),
        ],
        name="network",
    )
    sparse = gems.SparseModel(
        network, kernel_initializer="signed_constant", seed=seed
    )
    sparse.compile(optimizer, LOSS, metrics=["accuracy"])
    return sparse


def mine(sparse, epochs=15, batch_size=64, callbacks=(), **kwargs):
    callback = gems.GemMinerCallback(0.95, 1, **kwargs)
    return sparse.fit(
        IMAGES,
        LABELS,
        batch_size,
        epochs,
        shuffle=False,
        verbose=0,
        callbacks=[callback, *callbacks],
    ).history


class Steps(keras.callbacks.Callback):
    """Records the state of the penalty before and after every step."""

    def __init__(self):
        super().__init__()
        self.before, self.after = [], []

    def on_train_batch_begin(self, batch, logs=None):
        gem = self.model.gem
        masks = [ops.convert_to_numpy(mask) for mask in gem.masks()]
        row = self.read_penalty()
        row["kept"] = [np.count_nonzero(mask) for mask in masks]
        row["scores"] = [
            ops.convert_to_numpy(w.score) * mask
            for w, mask in zip(gem.prunable, masks, strict=True)
        ]
        self.before.append(row)

    def on_train_batch_end(self, batch, logs=None):
        self.after.append(self.read_penalty())

    def read_penalty(self):
        gem = self.model.gem
        row = {name: read(getattr(gem.penalty, name)) for name in self.names}
        row["shrinkage"] = [read(w.shrinkage) for w in gem.prunable]
        return row

    names = "weight limit final_limit decay gain steps epochs".split()


def test_weight_and_bound_follow_recursions():
    steps = Steps()
    sparse = sparse_model(keras.optimizers.SGD(1.0, momentum=0.9))
    mine(sparse, epochs=8, callbacks=[steps])
    total = 8 * 29  # Batches of 64 from 1,797 images.
    final_limit = round(0.05 * SIZE)
    descent = 0.7 * 7 * 29  # The last of 7 freezes.
    first = steps.before[0]
    kept = sum(first["kept"])
    np.testing.assert_allclose(first["limit"], kept)
    rate = np.log(kept / final_limit) / descent
    np.testing.assert_allclose(first["weight"], rate, rtol=1e-6)
    ups = 0
    assert len(steps.before) == total
    for before, after in zip(steps.before, steps.after, strict=True):
        error = np.log((sum(before["kept"]) + 1) / (before["limit"] + 1))
        error = np.clip(error / 0.1, -1, 1)
        weight = min(0.2, before["weight"] * np.exp(10 / descent * error))
        np.testing.assert_allclose(after["weight"], weight, rtol=1e-4)
        limit = max(final_limit, before["limit"] * np.exp(-rate))
        np.testing.assert_allclose(after["limit"], limit, rtol=1e-4)
        ups += after["weight"] > before["weight"]
    assert 0 < ups < total
    assert steps.after[-1]["limit"] == final_limit
    assert steps.after[-1]["steps"] == total
    assert read(sparse.gem.penalty.epochs) == 8


def test_penalty_steps_respect_bound():
    steps = Steps()
    sparse = sparse_model(keras.optimizers.SGD(1.0, momentum=0.9))
    mine(sparse, epochs=8, callbacks=[steps])
    pulled = 0
    for before, after in zip(steps.before, steps.after, strict=True):
        kept, limit = sum(before["kept"]), before["limit"]
        if kept <= limit:
            assert after["shrinkage"] == [0.0, 0.0]
            continue
        wanted = [
            min(before["weight"], max(0, 1 - 1.0001 * 0.5 / np.max(scores)))
            for scores in before["scores"]
        ]
        falls = sum(
            np.count_nonzero((0.5 < p) & (p * (1 - rate) <= 0.5))
            for p, rate in zip(before["scores"], wanted, strict=True)
        )
        share = min(1.0, (kept - limit) / max(falls, 1))
        expected = np.multiply(wanted, share)
        # A count may differ by one score near the threshold.
        np.testing.assert_allclose(after["shrinkage"], expected, rtol=0.05)
        pulled += 1
    assert pulled > 100


@pytest.mark.parametrize(
    "kept, limit, pulled",
    [((6, 3), 5, 2), ((3, 3), 5, 2), ((3, 2), 5, 0), ((9, 1), 5, 1)],
)
def test_penalty_matches_numpy(kept, limit, pulled):
    sparse = sparse_model("sgd")
    gem = sparse.gem
    for prunable, count in zip(gem.prunable, kept, strict=True):
        scores = np.full(prunable.score.shape, 0.25, "float32")
        scores.ravel()[:count] = 1.0
        prunable.score.assign(scores)
    gem.penalty.set_constant(0.5, limit)
    squares = [
        count + (np.prod(w.score.shape) - count) / 16
        for w, count in zip(gem.prunable, kept, strict=True)
    ]
    penalty = float(gem.penalty(gem.masks()))
    np.testing.assert_allclose(penalty, 0.5 * sum(squares[:pulled]))
    assert [read(w.shrinkage) for w in gem.prunable] == [0.0, 0.0]
    # An adaptive penalty is not part of the loss. None of these scores falls
    # below the threshold when it shrinks by 10 %.
    gem.penalty.adapt(0.1, gain=1.0, limit=limit, decay=1.0)
    assert float(gem.penalty(gem.masks())) == 0.0


def test_step_matches_numpy():
    """A linear network with SGD in NumPy."""
    random = np.random.default_rng(3)
    x = random.normal(size=(8, 6)).astype("float32")
    y = random.normal(size=(8, 4)).astype("float32")
    layer = keras.layers.Dense(4, use_bias=False)
    sparse = gems.SparseModel(
        keras.Sequential([keras.Input((6,)), layer]), seed=0
    )
    sparse.compile(keras.optimizers.SGD(0.3), "mse")
    penalty, [prunable] = sparse.gem.penalty, sparse.gem.prunable
    alive = random.uniform(size=(6, 4)) < 0.8
    prunable.alive.assign(alive)
    penalty.adapt(0.05, gain=0.5, limit=8, decay=0.9)
    penalty.final_limit.assign(4)
    kernel = ops.convert_to_numpy(layer.kernel).astype("float64")
    p = ops.convert_to_numpy(prunable.score).astype("float64")
    limit, rate, rests = 8.0, 0.05, 0
    for _ in range(12):
        sparse.train_on_batch(x, y)
        mask = (p > 0.5) & alive
        slope = x.T @ (x @ (kernel * mask) - y) * 2 / y.size * kernel
        slope = slope * alive
        kept, shrinkage = mask.sum(), 0.0
        if kept > limit:
            slope += 2 * p * np.abs(slope).sum() / alive.sum()
            most = max(p[mask])
            shrinkage = min(rate, 1 - 1.0001 * 0.5 / most)
            falls = np.count_nonzero(mask & (p * (1 - shrinkage) <= 0.5))
            shrinkage *= min(1, (kept - limit) / max(falls, 1))
        rests += kept <= limit
        p = np.clip((p - 0.3 * slope) * (1 - shrinkage), 0, 1)
        error = np.log((kept + 1) / (limit + 1)) / 0.1
        rate = min(0.2, rate * np.exp(0.5 * np.clip(error, -1, 1)))
        limit = max(4, limit * 0.9)
        scores = ops.convert_to_numpy(prunable.score)
        np.testing.assert_allclose(scores[alive], p[alive], atol=1e-5)
        np.testing.assert_allclose(read(prunable.shrinkage), shrinkage, 1e-3)
    assert 0 < rests < 12


OPTIMIZERS = [
    keras.optimizers.SGD(1.0, momentum=0.9),
    keras.optimizers.SGD(5.0),
    keras.optimizers.Adam(0.02),
    keras.optimizers.Lion(0.01),
]


@pytest.mark.parametrize(
    "optimizer, batch_size",
    [
        *((optimizer, 32) for optimizer in OPTIMIZERS),
        pytest.param(OPTIMIZERS[0], 256, marks=pytest.mark.slow),
        pytest.param(OPTIMIZERS[2], 256, marks=pytest.mark.slow),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_reaches_target_with_any_optimizer(optimizer, batch_size):
    epochs = 12 * batch_size // 32
    sparse = sparse_model(optimizer.from_config(optimizer.get_config()))
    logs = mine(sparse, epochs, batch_size)
    # Because of the penalty, before a freeze enforces it.
    late = int(0.76 * epochs)
    assert logs["alive_density"][late] > 0.08
    assert logs["density"][late] < 0.93 * logs["alive_density"][late]
    assert 0.04 <= logs["density"][-1] <= 0.05
    ticket = sparse.ticket()
    assert ticket.kept == round(0.05 * SIZE)
    assert min(row["kept"] for row in ticket.layers()) > 1
    sparse.start_finetuning()
    sparse.compile("sgd", LOSS, metrics=["accuracy"])
    _, accuracy = sparse.evaluate(IMAGES, LABELS, verbose=0)
    assert accuracy > 0.7  # Of a network with untrained weights.


def test_data_of_unknown_length():
    def batches():
        for begin in range(0, len(IMAGES), 64):
            yield IMAGES[begin : begin + 64], LABELS[begin : begin + 64]

    import tensorflow as tf

    data = tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            tf.TensorSpec((None, 64), tf.float32),
            tf.TensorSpec((None,), tf.int64),
        ),
    )
    sparse = sparse_model(keras.optimizers.SGD(1.0, momentum=0.9))
    callback = gems.GemMinerCallback(0.95, 1)
    steps = Steps()
    sparse.fit(data, epochs=8, verbose=0, callbacks=[callback, steps])
    seen = len(steps.before) // 8  # And the end of the data, on TensorFlow.
    for row in steps.before[:seen]:
        assert row["weight"] == row["gain"] == 0.0
    begun = steps.before[seen]
    descent = 0.7 * 7 * -(-len(IMAGES) // 64)
    shrinking = np.log(begun["limit"] / begun["final_limit"]) / descent
    np.testing.assert_allclose(begun["gain"], 10 / descent, rtol=1e-6)
    np.testing.assert_allclose(begun["decay"], np.exp(-shrinking), rtol=1e-6)
    assert sparse.ticket().kept == round(0.05 * SIZE)


@pytest.mark.parametrize(
    "descent, steps, final_limit, expected",
    [
        (0.7, 100_000, 100, 70_000),
        (1.0, 1_000, 100, 1_000),
        (0.7, 120, 100, 100),  # The smallest number.
        (0.7, 50, 100, 50),  # The largest number.
        (0.7, 1_000, 5_000, 700),  # The initial scores meet the target.
    ],
)
def test_limit_and_penalty_rates(descent, steps, final_limit, expected):
    sparse = sparse_model(keras.optimizers.SGD(2.0, momentum=0.9))
    gem_miner.Adaptive(descent).begin_epoch(sparse.gem, final_limit, steps)
    penalty = sparse.gem.penalty
    limit = max(
        final_limit, sum(np.count_nonzero(m) for m in sparse.gem.masks())
    )
    assert read(penalty.limit) == limit
    decay = (final_limit / limit) ** (1 / expected)
    np.testing.assert_allclose(read(penalty.decay), decay, rtol=1e-6)
    np.testing.assert_allclose(read(penalty.gain), 10 / expected, rtol=1e-6)
    rate = np.log(max(2, limit / final_limit)) / expected
    np.testing.assert_allclose(read(penalty.weight), rate, rtol=1e-6)


def test_layer_at_minimum_is_reported():
    sparse = sparse_model(keras.optimizers.SGD(1e-6))
    hidden, output = sparse.gem.prunable
    random = np.random.default_rng(0)
    hidden.score.assign(random.uniform(0.6, 1.0, (64, 100)))
    output.score.assign(np.full((100, 10), 0.55))
    with pytest.warns(UserWarning, match="output/kernel.*1 of 1,000 weights"):
        mine(sparse, epochs=3, regularization=0.0)
    assert [row["kept"] for row in sparse.ticket().layers()] == [369, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        mine(sparse_model(keras.optimizers.SGD(1.0, momentum=0.9)), epochs=3)


def test_identifiers():
    assert gem_miner.get_regularization("auto").descent == 0.7
    config = keras.saving.serialize_keras_object(gem_miner.Adaptive())
    assert gem_miner.get_regularization(config).descent == 0.7
    assert isinstance(gem_miner.get_regularization(1e-4), Constant)
    given = gem_miner.Adaptive(0.2)
    assert gem_miner.get_regularization(given) is given
    config = keras.saving.serialize_keras_object(given)
    assert gem_miner.get_regularization(config).descent == 0.2
    callback = gems.GemMinerCallback(0.9, regularization=given)
    copy = gems.GemMinerCallback.from_config(callback.get_config())
    assert copy.regularization.descent == 0.2
    assert (
        gems.GemMinerCallback(0.9).get_config()["regularization"]["class_name"]
        == "Adaptive"
    )


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: gem_miner.Adaptive(0.0), "Received: descent=0.0"),
        (lambda: gem_miner.Adaptive(1.5), "Received: descent=1.5"),
        (lambda: gem_miner.get_regularization("automatic"), "'auto'"),
        (lambda: gem_miner.get_regularization(-1.0), "regularization=-1.0"),
        (
            lambda: gems.GemMinerCallback(0.9, stop_at_target=False),
            "Received: stop_at_target=False, regularization='auto'",
        ),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
