"""Tests `SparseModel(model, start="trained")`."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_gems as gems


def network(*more):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.DepthwiseConv2D(3, name="depthwise"),
            *more,
        ],
        name="network",
    )


def test_weights_train_and_depthwise_kernels_are_excluded():
    model = network(layers.Conv2D(3, 1, name="pointwise"))
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype("float32")
    expected = np.array(model(x))
    sparse = gems.SparseModel(model, start="trained")
    assert sparse.phase == "finetuning" and sparse.sparsity == 0
    np.testing.assert_array_equal(sparse(x), expected)
    assert [v.path for v in sparse.report().prunable] == [
        "network/pointwise/kernel"
    ]
    assert len(sparse.trainable_weights) == len(model.trainable_weights)
    everything = gems.SparseModel(
        network(layers.Conv2D(3, 1)), start="trained", filters="all"
    )
    assert len(everything.report().prunable) == 2


def test_config_round_trip():
    sparse = gems.SparseModel(network(layers.Conv2D(3, 1)), start="trained")
    copy = gems.SparseModel.from_config(sparse.get_config())
    assert copy.phase == "finetuning"
    assert copy.gem.filters == "no_depthwise"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"kernel_initializer": "signed_constant"},
            "reinitializes them. Leave",
        ),
        ({"phase": "mining"}, "phase='mining'. Leave `phase` out"),
        ({"start": "train"}, "Did you mean 'trained'"),
        ({"filters": "dense"}, "filters='dense'"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    model = network(layers.Conv2D(3, 1))
    with pytest.raises(ValueError, match=message):
        gems.SparseModel(model, **{"start": "trained", **arguments})


def test_network_with_only_depthwise_kernels():
    with pytest.raises(ValueError, match='Use `filters="all"`'):
        gems.SparseModel(network(), start="trained")
    gems.SparseModel(network(), start="trained", filters="all")
    frozen = network(layers.Conv2D(3, 1))
    frozen.trainable = False
    with pytest.raises(ValueError, match="Set `trainable=True` on the layers"):
        gems.SparseModel(frozen, start="trained")


def test_positional_fit_arguments():
    sparse = gems.SparseModel(network(layers.Conv2D(3, 1)))
    sparse.compile("sgd", "mse")
    x, y = np.ones((4, 6, 6, 4)), np.ones((4, 4, 4, 3))
    callback = gems.GradualMagnitudeCallback(0.5)
    sparse.fit(x, y, 4, 3, 0, [callback])  # Positional arguments.
    assert sparse.phase == "finetuning" and sparse.ticket().sparsity == 0.5
    assert keras.Model.fit.__doc__ == type(sparse).fit.__doc__
