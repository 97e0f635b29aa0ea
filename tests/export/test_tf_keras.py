"""Tests conversion to `tf_keras` for tfmot, and back."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_gems
from tf_gems.export import from_tf_keras
from tf_gems.export import to_tf_keras

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
tf_keras = pytest.importorskip("tf_keras")

layers = keras.layers


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None,
    reason="tfmot is not installed",
)
def test_tfmot_round_trip_on_digits():
    path = Path(__file__).with_name("tf_keras_interop.py")
    root = str(Path(tf_gems.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("dense", "convolutional"):
        of = found[name]
        assert of["difference"] < 1e-5
        assert of["same_zeros"] and of["zeros_after"] == of["zeros_before"]
        # Four of five weights are zero, except in kernels that are too small.
        assert of["zeros_before"] > 500
        assert all(of["moved"])
        assert "Pruned weights must stay zero" in of["refusal"]
        assert of["unchanged"]
    assert found["dense"]["lost"] == ""
    assert "'depthwise_conv2d/kernel'" in found["convolutional"]["lost"]
    assert "'conv2d/kernel'" not in found["convolutional"]["lost"]
    for name in ("accuracy_aware", "accuracy_after"):
        assert found["dense"][name] > 0.9
    assert found["pruned"]["zeros"] == [0.75, 0.75]
    assert found["pruned"]["difference"] == 0.0
    densities = np.array(found["schedules"]["densities"])
    assert len(densities) == 18 and len(np.unique(densities[:9, 0])) == 9
    np.testing.assert_allclose(densities[:, 0], densities[:, 1], atol=1e-6)
    assert "Received: schedule=Own" in found["schedules"]["refusal"]


def test_zoo_and_nested_networks():
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, activation="gelu")], name="inner"
    )
    inputs = keras.Input((4, 6), name="rows")
    x = layers.LSTM(6)(layers.LayerNormalization()(inputs))
    x = inner(layers.LeakyReLU(0.3)(x)) * 2.0 + inner(x)
    nested = keras.Model(inputs, layers.Dropout(0.5)(x), name="nested")
    small = tf_gems.zoo.mobilenet_v1(
        (32, 32, 3), 10, alpha=0.25, stem="small", affine=True
    )
    for model in (nested, small, tf_gems.zoo.resnet20((8, 8, 3))):
        twin = to_tf_keras(model)
        assert isinstance(twin, tf_keras.Model) and twin.name == model.name
        random = np.random.default_rng(0)
        shape = (3, *model.input_shape[1:])
        x = random.normal(size=shape).astype("float32")
        np.testing.assert_allclose(
            twin(x).numpy(), model(x).numpy(), rtol=1e-4, atol=1e-5
        )
        before = [np.array(weight) for weight in model.weights]
        twin.set_weights([2 * value for value in twin.get_weights()])
        from_tf_keras(twin, model)
        for weight, value in zip(model.weights, before, strict=True):
            np.testing.assert_array_equal(weight, 2 * value)


def test_regularizers_and_constraints_are_converted():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(
                4,
                kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2),
                kernel_constraint="non_neg",
                name="dense",
            ),
        ]
    )
    model.layers[0].kernel.assign(np.ones((3, 4)))
    twin = to_tf_keras(model)
    [loss] = twin.losses
    assert float(loss) == pytest.approx(0.1 * 12 + 0.2 * 12)
    assert type(twin.get_layer("dense").kernel_constraint).__name__ == "NonNeg"


def test_unsupported_layers_are_named():
    class Own(layers.Layer):
        def call(self, x):
            return x

    inputs = keras.Input((8,), name="numbers")
    x = layers.Dense(4, name="fine")(inputs)
    x = Own(name="mine")(x)
    x = layers.RMSNormalization(name="root")(x)
    x = layers.Dense(3, activation=lambda x: x, name="lambda")(x)
    model = keras.Model(inputs, keras.ops.cumsum(x), name="strange")
    with pytest.raises(ValueError) as caught:
        to_tf_keras(model)
    message = str(caught.value)
    assert "'strange' with 4 layers that" in message
    assert "'mine': Own from" in message and "'fine'" not in message
    assert "'root': `tf_keras` has no RMSNormalization" in message
    assert "'lambda': Dense has activation" in message
    assert "the operation Cumsum has no counterpart" in message

    class Subclassed(keras.Model):
        def build(self, shape):
            self.dense = layers.Dense(2)
            self.dense.build(shape)

        def call(self, x):
            return self.dense(x)

    model = Subclassed(name="mine")
    model(np.ones((1, 3), "float32"))
    with pytest.raises(ValueError, match="'mine': only sequential and"):
        to_tf_keras(model)


def test_converted_model_of_another_network_is_refused():
    def network(units):
        return keras.Sequential(
            [keras.Input((3,)), layers.Dense(units, name="dense")]
        )

    model = network(2)
    before = np.array(model.weights[0])
    with pytest.raises(ValueError, match="layer 'dense' of weights"):
        from_tf_keras(to_tf_keras(network(4)), model)
    other = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d")])
    with pytest.raises(ValueError, match="the twin has none"):
        from_tf_keras(to_tf_keras(other), model)
    np.testing.assert_array_equal(model.weights[0], before)
