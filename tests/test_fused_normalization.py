"""Compares fused normalization with Keras' own."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import tf_gems as gems

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from fused_normalization import FusedBatchNormalization  # noqa: E402
from fused_normalization import fused  # noqa: E402

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(1.0, 2.0, size=(12, 8, 8, 3)).astype("float32")
Y = RANDOM.integers(0, 4, size=12)


@pytest.mark.parametrize("affine", [False, True])
def test_training_matches_keras(affine):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(5, 3, use_bias=False),
            layers.BatchNormalization(scale=affine, center=affine),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.BatchNormalization(scale=affine, center=affine),
            layers.Dense(4),
        ]
    )
    faster = fused(model)
    kinds = [type(layer) for layer in faster.layers]
    assert kinds.count(FusedBatchNormalization) == 2
    for network in (model, faster):
        network.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        # The last batch is smaller.
        network.fit(X, Y, batch_size=5, epochs=4, shuffle=False, verbose=0)
    assert len(model.weights) == len(faster.weights)
    for one, other in zip(model.weights, faster.weights, strict=True):
        one, other = map(ops.convert_to_numpy, (one, other))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_tickets_of_fused_networks_apply_to_plain_network(tmp_path):
    plain = gems.zoo.resnet20((16, 16, 3), 4)
    sparse = gems.SparseModel(fused(plain), seed=0)
    ticket = gems.methods.get("magnitude", target_sparsity=0.9).find(sparse)
    ticket.save(tmp_path / "model.gem")
    ticket = gems.Ticket.load(tmp_path / "model.gem")
    assert ticket.config is None  # These layers are not part of Keras.
    other = gems.SparseModel(plain, seed=1)
    for model in (sparse, other):
        ticket.apply(model)
    images = RANDOM.normal(size=(3, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(
        gems.strip(other)(images), gems.strip(sparse)(images), atol=1e-5
    )
