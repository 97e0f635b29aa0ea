"""Tests that constant scores give no ticket."""

import keras
import numpy as np
import pytest

import tf_gems

x = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")
y = (x[:, :1] > 0).astype("float32")


def model():
    network = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(6, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    sparse = tf_gems.SparseModel(network, seed=0)
    sparse.compile("sgd", "mse")
    return sparse


@pytest.mark.parametrize("name", ["Snip", "Grasp", "ProsPr"])
def test_zero_data_gives_no_ticket(name):
    method = getattr(tf_gems.methods, name)(0.5, batches=4)
    zeros = [(np.zeros_like(x), np.zeros_like(y))] * 4
    with pytest.raises(
        ValueError, match=f"{name} requires .* Received: .*data"
    ):
        method.find(model(), zeros)
    assert method.find(model(), [(x, y)] * 4).kept == 18


def test_equal_magnitudes_give_no_ticket():
    sparse = model()
    for prunable in sparse.gem.prunable:
        prunable.weight.assign(keras.ops.ones_like(prunable.weight))
    with pytest.raises(ValueError, match="a score of 1 for every weight"):
        tf_gems.methods.Magnitude(0.5).find(sparse)
    assert tf_gems.methods.Magnitude(0.0).find(sparse).density == 1


def test_nan_weights_give_no_ticket():
    sparse = model()
    weight = sparse.gem.prunable[0].weight
    weight.assign(weight * np.inf)
    with pytest.raises(ValueError, match="scores with NaN or infinite"):
        tf_gems.methods.Magnitude(0.5).find(sparse)
