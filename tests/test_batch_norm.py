"""Compares the recalibration of batch normalization with NumPy."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_gems
from tf_gems import methods
from tf_gems import recalibrate_batch_norm

random = np.random.default_rng(0)
BATCHES = [
    (random.normal(size=(16, 5)).astype("float32") * scale + scale, None)
    for scale in (1.0, 2.0, 0.5)
]


def network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(6, name="first"),
            layers.BatchNormalization(name="norm", momentum=0.7),
            layers.Dropout(0.3),
            layers.BatchNormalization(name="frozen", trainable=False),
            layers.Dense(2, name="last"),
        ],
        name="network",
    )
    model.get_layer("norm").moving_mean.assign(np.arange(6.0))
    model.get_layer("frozen").moving_mean.assign(np.arange(6.0))
    return model


def values(model):
    return {w.path: np.array(w) for w in model.variables}


def by_hand(kernel, bias):
    maps = [x @ kernel + bias for x, _ in BATCHES]
    means, variances = ([f(m, 0) for m in maps] for f in (np.mean, np.var))
    return np.mean(means, 0), np.mean(variances, 0)


def test_batches_have_equal_weight_and_only_statistics_change():
    model = network()
    before = values(model)
    assert recalibrate_batch_norm(model, BATCHES) == 2
    first, norm = model.get_layer("first"), model.get_layer("norm")
    assert norm.momentum == 0.7
    mean, variance = by_hand(np.array(first.kernel), np.array(first.bias))
    np.testing.assert_allclose(norm.moving_mean, mean, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-5)
    for path, value in values(model).items():
        if "/norm/moving" not in f"/{path}":
            np.testing.assert_array_equal(value, before[path])
    # The result does not depend on the previous statistics.
    after = values(model)
    recalibrate_batch_norm(model, BATCHES)
    for path, value in values(model).items():
        np.testing.assert_allclose(value, after[path], rtol=1e-6)
    recalibrate_batch_norm(model, iter(BATCHES), batches=1)
    mean = np.mean(BATCHES[0][0] @ np.array(first.kernel), 0)
    np.testing.assert_allclose(norm.moving_mean, mean, atol=1e-5)


def test_edge_cases():
    plain = keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    assert recalibrate_batch_norm(plain, []) == 0
    with pytest.raises(ValueError, match="data without a batch"):
        recalibrate_batch_norm(network(), [])


def test_magnitude_ticket_has_statistics_of_pruned_network():
    sparse = tf_gems.SparseModel(network(), seed=0)
    before, phase = values(sparse), sparse.phase
    found = methods.Magnitude(0.5).find(sparse, BATCHES)
    for path, value in values(sparse).items():
        np.testing.assert_array_equal(value, before[path])
    assert sparse.phase == phase
    plain = methods.Magnitude(0.5).find(sparse)
    for path, mask in plain.masks.items():
        np.testing.assert_array_equal(found.masks[path], mask)
    weights = {p.split("/", 1)[1]: v for p, v in found.weights.items()}
    masks = {p.split("/", 1)[1]: v for p, v in found.masks.items()}
    kernel = weights["first/kernel"] * masks["first/kernel"]
    mean, variance = by_hand(kernel, weights["first/bias"])
    np.testing.assert_allclose(weights["norm/moving_mean"], mean, atol=1e-5)
    np.testing.assert_allclose(
        weights["norm/moving_variance"], variance, rtol=1e-5
    )
    # Applying the ticket and recalibrating gives the same result.
    plain.apply(sparse)
    recalibrate_batch_norm(sparse, BATCHES)
    norm = sparse.model.get_layer("norm")
    np.testing.assert_allclose(norm.moving_mean, mean, atol=1e-5)


def test_layer_called_twice_gets_average():
    inputs = keras.Input((5,))
    norm = layers.BatchNormalization()
    outputs = layers.Add()([norm(inputs), norm(3 * inputs)])
    assert recalibrate_batch_norm(keras.Model(inputs, outputs), BATCHES) == 1
    means = [2 * x.mean(0) for x, _ in BATCHES]
    np.testing.assert_allclose(norm.moving_mean, np.mean(means, 0), atol=1e-5)


@pytest.mark.parametrize(
    "last, message",
    [
        (np.full((16, 5), np.nan), "'norm' are NaN"),
        (np.zeros((16, 4)), "does not accept"),
    ],
)
def test_invalid_data_leaves_model_unchanged(last, message):
    model = network()
    before = values(model)
    with pytest.raises(ValueError, match=message):
        recalibrate_batch_norm(model, [*BATCHES, (last, None)])
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path])
    assert model.get_layer("norm").momentum == 0.7
    assert "call" not in vars(model.get_layer("norm"))
