"""Tests the detection of trained models."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_gems
from tf_gems.training_signs import sign_of_training


def new(kind):
    x = inputs = keras.Input((6, 4))
    if kind == "attention":
        x = layers.MultiHeadAttention(2, 3)(x, x)
    elif kind == "recurrent":
        x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
        x = layers.GRU(3)(x)
    elif kind == "normalized":
        x = layers.GroupNormalization(2)(layers.LayerNormalization()(x))
        x = layers.PReLU()(layers.BatchNormalization()(x))
        x = layers.SpectralNormalization(layers.Dense(3))(x)
    elif kind == "constants":
        constant = keras.initializers.Constant(0.3)
        x = layers.Dense(3, bias_initializer=constant)(x)
        x = layers.SeparableConv1D(4, 2, bias_initializer="ones")(x)
    elif kind == "adapted":
        scaling = layers.Normalization()
        scaling.adapt(np.random.default_rng(0).normal(size=(9, 6, 4)))
        x = layers.Conv1D(3, 2)(scaling(x))
    elif kind == "stock":
        return keras.applications.MobileNetV2(
            (32, 32, 3), alpha=0.35, weights=None, classes=2
        )
    return keras.Model(inputs, layers.Dense(2)(x), name="net")


@pytest.mark.parametrize(
    "kind",
    "attention recurrent normalized constants adapted stock".split(),
)
def test_new_models_are_not_detected(kind, recwarn):
    model = new(kind)
    assert sign_of_training(model) is None
    tf_gems.SparseModel(model, kernel_initializer="signed_constant")
    assert not [w for w in recwarn if "reinitializes all" in str(w.message)]


def test_optimizer_steps_are_detected(tmp_path):
    model = new("constants")
    model.compile("sgd", "mse")
    assert sign_of_training(model) is None
    model.fit(np.ones((4, 6, 4)), np.ones((4, 5, 2)), verbose=0)
    assert sign_of_training(model) == "its optimizer has taken 1 steps"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert "has taken 1 steps" in sign_of_training(loaded)
    whole = keras.Sequential([keras.Input((6, 4)), loaded, layers.Dense(2)])
    assert "has taken 1 steps" in sign_of_training(whole)
    # A new optimizer has no steps, but the biases have changed.
    model.compile("sgd", "mse")
    assert "'dense" in sign_of_training(model)


@pytest.mark.parametrize("kind", ["constants", "stock"])
def test_loaded_weights_are_detected(kind, tmp_path):
    source = new(kind)
    name = "bias" if kind == "constants" else "moving_variance"
    [*_, changed] = [w for w in source.weights if w.name == name]
    changed.assign(changed + 0.5)
    source.save_weights(tmp_path / "model.weights.h5")
    model = new(kind)
    model.load_weights(tmp_path / "model.weights.h5")
    assert f"{name}' no longer has the initial" in sign_of_training(model)
    with pytest.warns(UserWarning, match="trained weights are lost"):
        tf_gems.SparseModel(model, kernel_initializer="signed_constant")


def test_undetectable_training():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, use_bias=False)]
    )
    model.layers[0].kernel.assign(np.ones((3, 2)))
    assert sign_of_training(model) is None
