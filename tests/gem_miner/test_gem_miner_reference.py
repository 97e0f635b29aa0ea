"""Compares Gem-Miner with NumPy and with the authors' decay of scores."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

import tf_gems as gems

BACKEND = keras.backend.backend()


class GemMiner:
    """Algorithm 1 of "Rare Gems" in NumPy for a ReLU network of two layers.

    Written from the paper, independently of the library. Scores are projected
    after each update, rounded at 0.5, and frozen by rank over both layers. In
    addition to the paper, the penalty is inactive while no more than `limit`
    scores round to one. With a limit, the weights that are alive after the last
    freeze round to one immediately, as in the authors' code after the last
    epoch.
    """

    def __init__(self, weights, biases, scores, rate, momentum, penalty, limit):
        self.weights, self.biases = weights, biases
        self.scores = [s.copy() for s in scores]
        self.flags = [np.ones(s.shape, "float32") for s in scores]
        self.velocity = [np.zeros(s.shape, "float32") for s in scores]
        self.rate, self.momentum, self.penalty = rate, momentum, penalty
        self.limit, self.rests = limit, 0

    def masks(self):
        pairs = zip(self.scores, self.flags, strict=True)
        return [np.where(p > 0.5, q, 0.0).astype("float32") for p, q in pairs]

    def step(self, x, y):
        first, second = [
            w * m for w, m in zip(self.weights, self.masks(), strict=True)
        ]
        before = x @ first + self.biases[0]
        hidden = np.maximum(before, 0)
        logits = hidden @ second + self.biases[1]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax = powers / powers.sum(axis=1, keepdims=True)

        logit_gradient = (softmax - np.eye(logits.shape[1])[y]) / len(x)
        hidden_gradient = (logit_gradient @ second.T) * (before > 0)
        effective = [x.T @ hidden_gradient, hidden.T @ logit_gradient]
        acts = sum(m.sum() for m in self.masks()) > self.limit
        self.rests += not acts
        penalty = self.penalty if acts else 0.0
        for i, gradient in enumerate(effective):
            # The straight-through gradient: d mask / d score is 1.
            gradient = gradient * self.weights[i] * self.flags[i]
            gradient = gradient + 2 * penalty * self.scores[i]
            self.velocity[i] = (
                self.momentum * self.velocity[i] - self.rate * gradient
            ).astype("float32")
            self.scores[i] = np.clip(self.scores[i] + self.velocity[i], 0, 1)

    def freeze(self, count, last):
        scores = np.concatenate([s.ravel() for s in self.scores])
        flags = np.concatenate([q.ravel() for q in self.flags])
        alive = np.flatnonzero(flags)
        # The sort is stable, so the first of equal scores is kept.
        order = alive[np.argsort(-scores[alive], kind="stable")]
        flags[:] = 0
        flags[order[:count]] = 1
        split = self.flags[0].size
        self.flags = [
            flags[:split].reshape(self.flags[0].shape),
            flags[split:].reshape(self.flags[1].shape),
        ]
        if last and self.limit:
            for p, q in zip(self.scores, self.flags, strict=True):
                p[q > 0] = 1.0


class Recorder(keras.callbacks.Callback):
    """Records scores, flags and masks after every step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        gem = self.model.gem
        read = ops.convert_to_numpy
        self.steps.append(
            (
                [np.array(read(w.score)) for w in gem.prunable],
                [np.array(read(w.alive)) for w in gem.prunable],
                [np.array(read(m)) for m in gem.masks()],
            )
        )


@pytest.mark.parametrize(
    "sparsity, penalty, stops",
    [(0.9, 2e-3, False), (0.5, 0.0, False), (0.8, 4e-2, True)],
)
def test_matches_algorithm_1_step_by_step(sparsity, penalty, stops):
    random = np.random.default_rng(4)
    epochs, period, batches, batch = 12, 2, 5, 16
    x = random.normal(size=(batches * batch, 12)).astype("float32")
    y = np.argmax(x @ random.normal(size=(12, 4)), axis=1)

    network = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(20, activation="relu"),
            keras.layers.Dense(4),
        ]
    )
    weights = [random.normal(size=s) for s in ((12, 20), (20, 4))]
    biases = [0.3 * random.normal(size=s) for s in (20, 4)]
    weights = [w.astype("float32") for w in weights]
    biases = [b.astype("float32") for b in biases]
    network.set_weights([weights[0], biases[0], weights[1], biases[1]])

    # Many scores are equal: half of them are at 0 or 1.
    scores = [
        np.clip(random.normal(0.5, 0.7, size=w.shape), 0, 1).astype("float32")
        for w in weights
    ]
    sparse = gems.SparseModel(network, seed=0)
    for prunable, score in zip(sparse.gem.prunable, scores, strict=True):
        prunable.score.assign(score)
    rate, momentum = 0.2, 0.9
    sparse.compile(
        keras.optimizers.SGD(rate, momentum=momentum),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    recorder = Recorder()
    sparse.fit(
        x,
        y,
        batch_size=batch,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[
            gems.GemMinerCallback(
                sparsity,
                freeze_period=period,
                regularization=penalty,
                stop_at_target=stops,
                saturate_scores=stops,
            ),
            recorder,
        ],
    )

    size = sum(w.size for w in weights)
    limit = round(size * (1 - sparsity)) if stops else 0
    reference = GemMiner(
        weights, biases, scores, rate, momentum, penalty, limit
    )
    freezes = epochs // period - 1
    assert (len(recorder.steps), freezes) == (60, 5)
    steps = iter(recorder.steps)
    tied_freezes = 0
    for epoch in range(epochs):
        if epoch and epoch % period == 0:
            fraction = (1 - sparsity) ** (epoch // period / freezes)
            count = round(size * fraction)
            tied_freezes += _is_tied(reference, count)
            reference.freeze(count, last=epoch == freezes * period)
        for start in range(0, len(x), batch):
            reference.step(x[start : start + batch], y[start : start + batch])
            got_scores, got_flags, got_masks = next(steps)
            for i in range(2):
                np.testing.assert_allclose(
                    got_scores[i], reference.scores[i], atol=1e-5
                )
                np.testing.assert_array_equal(got_flags[i], reference.flags[i])
                np.testing.assert_array_equal(
                    got_masks[i], reference.masks()[i]
                )
    assert sum(f.sum() for f in reference.flags) == round(size * (1 - sparsity))
    if stops:
        assert 5 < reference.rests < 55, (
            "the penalty must be both active and inactive"
        )
    if not penalty:  # Scores at 0 or 1 stay there.
        assert tied_freezes, "no freeze had ties"
    for variable, value in zip(
        network.weights,
        [weights[0], biases[0], weights[1], biases[1]],
        strict=True,
    ):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


def _is_tied(reference, count):
    """Returns whether the last kept score equals the first dropped score."""
    scores = np.concatenate([s.ravel() for s in reference.scores])
    flags = np.concatenate([q.ravel() for q in reference.flags])
    ranked = np.sort(scores[flags > 0])[::-1]
    return ranked[count - 1] == ranked[count]


RESNET20 = [
    (3, 3, 3, 16),
    *[(3, 3, 16, 16)] * 6,
    (3, 3, 16, 32),
    *[(3, 3, 32, 32)] * 5,
    (3, 3, 32, 64),
    *[(3, 3, 64, 64)] * 5,
    (64, 10),
]


class Unused(keras.layers.Layer):
    """Weights that do not affect the output."""

    def build(self, input_shape):
        self.kernels = [
            self.add_weight(shape=shape, name=f"kernel_{i}")
            for i, shape in enumerate(RESNET20)
        ]

    def call(self, inputs):
        return inputs + 0.0 * self.kernels[0][0, 0, 0, 0]


def test_decay_matches_authors_log():
    # At first only the penalty changes the scores. In the authors' log, the
    # value is 4.144 after epoch 0 and falls by 0.926 per epoch.
    penalty, steps, epochs = 5e-5, 391, 3
    network = keras.Sequential([keras.Input((1,)), Unused()])
    sparse = gems.SparseModel(network, seed=1)
    assert sparse.gem.size == 268_336
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    rates = [0.05 * (1 + np.cos(np.pi * e / 150)) for e in range(epochs)]
    means = []

    def record(epoch, logs):
        scores = ops.convert_to_numpy(sparse.gem.prunable[-1].score)
        means.append(float(np.mean(np.log(scores[scores > 0]))))

    history = sparse.fit(
        np.zeros((steps, 1), "float32"),
        np.zeros((steps, 1), "float32"),
        batch_size=1,
        epochs=epochs,
        verbose=0,
        callbacks=[
            keras.callbacks.LearningRateScheduler(lambda epoch: rates[epoch]),
            gems.GemMinerCallback(
                0.9856,
                regularization=penalty,
                stop_at_target=False,
                saturate_scores=False,
                epochs=150,
            ),
            keras.callbacks.LambdaCallback(on_epoch_end=record),
        ],
    ).history

    penalties = np.array(history["score_penalty"])
    np.testing.assert_allclose(penalties[0], 4.144, rtol=0.01)
    np.testing.assert_allclose(penalties[1:] / penalties[:-1], 0.926, atol=2e-3)
    # The log of an unused score falls by 20 * penalty * sum(rates). It falls
    # less in the first epoch, in which momentum builds up.
    falls = -np.diff(means)
    expected = [20 * penalty * steps * rate for rate in rates[1:]]
    np.testing.assert_allclose(falls, expected, rtol=2e-3)
    # The authors' log. Four standard deviations of 268,336 samples.
    np.testing.assert_allclose(history["density"][0], 0.4807, atol=4e-3)
    np.testing.assert_allclose(history["density"][1], 0.4599, atol=4e-3)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "jax", reason="the tests already run on JAX")
@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed"
)
def test_on_jax():
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            # The results are the same, and compiling takes less time.
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert "4 passed" in run.stdout
