"""Compares ProsPr with central differences through gradient descent."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import tf_gems as gems
from tf_gems import methods

RATE = 0.1

random = np.random.default_rng(0)
X = random.normal(size=(12, 5))
Y = random.normal(size=(12, 3))
START = [
    0.5 * random.normal(size=shape) for shape in [(5, 4), (4,), (4, 3), (3,)]
]
BATCHES = [
    (X[:4].astype("float32"), Y[:4].astype("float32")),
    (X[4:7].astype("float32"), Y[4:7].astype("float32")),
    (X[7:11].astype("float32"), Y[7:11].astype("float32")),
    (X[11:].astype("float32"), Y[11:].astype("float32")),
]


def parts():
    return [layers.Dense(n, kernel_regularizer="l2") for n in (4, 3)]


def whole():
    model = keras.Sequential([keras.Input((5,)), *parts()])
    return assign(gems.SparseModel(model, seed=0))


def layer_by_layer():
    wrapped = [gems.GemLayer(part, seed=i) for i, part in enumerate(parts())]
    return assign(keras.Sequential([keras.Input((5,)), *wrapped]))


def finetuning():
    model = whole()
    methods.RandomPruning(0.5).find(model).apply(model)
    return assign(model)


def assign(model):
    found = gems.network.network_weights(model)
    for variable, value in zip(found, START, strict=True):
        variable.assign(value)
    model.compile("sgd", "mse")
    return model


def loss(weights, x, y):
    v, a, w, b = weights
    return np.mean(((x @ v + a) @ w + b - y) ** 2)


def slopes(weights, x, y):
    v, a, w, b = weights
    hidden = x @ v + a
    error = 2 * (hidden @ w + b - y) / y.size
    back = error @ w.T
    return [x.T @ back, back.sum(0), hidden.T @ error, error.sum(0)]


def loss_after(weights, steps, last, biases=True):
    """Returns the loss after a step of gradient descent on each batch."""
    for x, y in steps:
        trained = zip(weights, slopes(weights, x, y), strict=True)
        weights = [w - RATE * g * (biases or w.ndim > 1) for w, g in trained]
    return loss(weights, *last)


def central_differences(function):
    """Returns `|w dL / dw|` for both kernels, in float64."""
    found = []
    for place in (0, 2):
        score = np.zeros(START[place].shape)
        for index in np.ndindex(score.shape):
            values = []
            for change in (1e-5, -1e-5):
                weights = [w.copy() for w in START]
                weights[place][index] += change
                values.append(function(weights))
            slope = (values[0] - values[1]) / 2e-5
            score[index] = abs(START[place][index] * slope)
        found.append(score)
    return found


def close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("build", [whole, layer_by_layer, finetuning])
def test_golden_prospr(build):
    model = build()
    before = [np.array(ops.convert_to_numpy(v)) for v in model.weights]
    prospr = methods.ProsPr(0.5, steps=2, learning_rate=RATE)
    assert prospr.batches == 3
    found = prospr.scores(model, iter(BATCHES))
    steps, last = BATCHES[:2], BATCHES[2]
    expected = central_differences(lambda w: loss_after(w, steps, last))
    close(found, expected)
    # The comparison distinguishes these: biases are trained in the steps, and
    # the number of steps matters.
    for other in (
        lambda w: loss_after(w, steps, last, biases=False),
        lambda w: loss_after(w, steps[:1], last),
    ):
        unlike = np.abs(central_differences(other)[0] - expected[0])
        assert unlike.max() > 0.02 * expected[0].max()
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


def test_golden_prospr_averages_over_remaining_batches():
    prospr = methods.ProsPr(0.5, steps=1, learning_rate=RATE, batches=4)

    def mean_loss(weights):
        last = BATCHES[1:]
        losses = [loss_after(weights, BATCHES[:1], batch) for batch in last]
        return np.average(losses, weights=[len(x) for x, _ in last])

    close(prospr.scores(whole(), BATCHES), central_differences(mean_loss))


def test_prospr_without_steps_equals_snip():
    snip = methods.Snip(0.5, batches=2).scores(whole(), BATCHES)
    close(methods.ProsPr(0.5, 0, batches=2).scores(whole(), BATCHES), snip)


def test_wrong_arguments_are_refused():
    for arguments, message in [
        ({"steps": -1}, "steps=-1"),
        ({"steps": 3, "batches": 3}, "steps=3, batches=3.*batches=None"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            methods.ProsPr(0.5, **arguments)
    with pytest.raises(ValueError, match="4 batches, for batches=5"):
        methods.ProsPr(0.5, steps=4).find(whole(), BATCHES)
