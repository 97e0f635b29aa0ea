"""Tests custom layers: weights in `call`, functions and `Lambda`."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import tf_gems as gems

random = np.random.default_rng(0)
X = random.normal(size=(48, 8)).astype("float32")


@keras.saving.register_keras_serializable(package="tests.user_layers")
class Scale(layers.Layer):
    """Computes with its weights on either side of a product."""

    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=(shape[-1],))
        self.rates = [self.add_weight(name="rate", shape=(shape[-1],))]

    def call(self, x):
        return self.gain * (x * (1.0 + self.gain)) / ops.exp(self.rates[0])


@keras.saving.register_keras_serializable(package="tests.user_layers")
class Linear(layers.Layer):
    """The first custom layer of many tutorials."""

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1], 5))
        self.b = self.add_weight(name="b", shape=(5,))

    def call(self, x):
        return ops.matmul(x, self.w) + self.b


def sequential(*parts):
    return keras.Sequential([keras.Input((8,)), *parts])


def with_weights():
    keras.utils.set_random_seed(0)
    return sequential(layers.Dense(6), Scale(), Linear(), layers.Dense(2))


def assert_close(aware, model, x=X):
    found = ops.convert_to_numpy(aware(x, training=False))
    expected = ops.convert_to_numpy(model(x, training=False))
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_changed_weights_are_read_again(tmp_path):
    """The weights change by training, by `assign` and by loading."""
    model = with_weights()
    gain = model.layers[1].gain
    gain.assign(np.linspace(1, 2, 6))
    aware = gems.QuantizationAwareModel(model, X)
    assert_close(aware, model)
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(
        aware.predict(X, verbose=0), loaded.predict(X, verbose=0)
    )
    before = [ops.convert_to_numpy(w) for w in model.trainable_weights]
    aware.compile(keras.optimizers.SGD(0.01), "mse")
    aware.fit(X, X[:, :2], batch_size=16, verbose=0)
    for value, weight in zip(before, model.trainable_weights, strict=True):
        assert (ops.convert_to_numpy(weight) != value).any(), weight.path
    gain.assign(0.5 * gain)
    assert aware.gem.difference(X) < 1e-5  # Without rounding.
    assert gems.strip(aware) is model
    assert isinstance(gain, keras.Variable) and model.layers[1].gain is gain


def test_product_with_weight_is_rounded_per_channel():
    model = with_weights()
    aware = gems.QuantizationAwareModel(model, X)
    kernels = [(w.path, axes) for w, axes in aware.gem.kernels]
    assert (model.layers[2].w.path, (-1,)) in kernels


class Noise(layers.Layer):
    def build(self, shape):
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal((1,), seed=self.seeds)


class Tied(layers.Layer):
    def __init__(self, dense, **kwargs):
        super().__init__(**kwargs)
        self.dense = dense

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.dense.kernel))


def tied():
    inputs, dense = keras.Input((8,)), layers.Dense(3)
    return keras.Model(inputs, Tied(dense)(dense(inputs)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: sequential(Noise()),
            "seed_generator_state'",
        ),
        (tied, "reads the value of 'dense"),
        (
            lambda: sequential(layers.Dense(3, activation="mish", name="a")),
            "'a' with the activation `mish`",
        ),
        (
            lambda: sequential(layers.Lambda(lambda x: ops.abs(x), name="b")),
            "'b' the operation `absolute`",
        ),
    ],
)
def test_unsupported_operations_are_refused(build, message):
    with pytest.raises(ValueError, match="Received: ") as caught:
        gems.QuantizationAwareModel(build(), X)
    assert message in str(caught.value)


class DropPath(layers.Layer):
    """Returns its inputs in inference, and draws random numbers in training."""

    def build(self, shape):
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x, training=None):
        if not training:
            return x
        kept = keras.random.uniform((ops.shape(x)[0], 1), seed=self.seeds)
        return 2.0 * x * ops.cast(kept > 0.5, x.dtype)


def test_stochastic_depth_is_active_only_in_training():
    inputs = keras.Input((8,))
    branch = DropPath()(layers.Dense(8)(inputs))
    model = keras.Model(inputs, layers.Add()([inputs, branch]))
    aware = gems.QuantizationAwareModel(model, X)
    assert_close(aware, model)
    found = ops.convert_to_numpy(aware(X, training=True))
    dropped = np.abs(found - X).max(1) < 0.1
    assert 0.2 < dropped.mean() < 0.8


ACTIVATIONS = {
    "of keras.ops": ops.relu,
    "a function": lambda x: ops.relu(x) * 0.5 - 1.0,
    "a layer": layers.LeakyReLU(0.1),
    "nothing": lambda x: x,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_in_all_forms(name):
    model = sequential(layers.Dense(4, activation=ACTIVATIONS[name]))
    assert_close(gems.QuantizationAwareModel(model, X), model)


def test_tensorflow_functions_and_lambda_layers():
    activation = "relu"
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        activation = tf.nn.relu
    model = sequential(
        layers.Lambda(lambda x, by: x / by, arguments={"by": 4.0}),
        layers.Dense(4, activation=activation),
    )
    assert_close(gems.QuantizationAwareModel(model, X), model)


def test_lambda_layers_that_depend_on_training():
    model = sequential(
        layers.Dense(4),
        layers.Lambda(lambda x, training=False: x * (0.5 if training else 1.0)),
    )
    aware = gems.QuantizationAwareModel(model, X)
    assert_close(aware, model)
    found = ops.convert_to_numpy(aware(X, training=True))
    expected = ops.convert_to_numpy(model(X, training=True))
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_attributes_that_hold_themselves():
    model = with_weights()
    loop = []
    object.__setattr__(model.layers[1], "loop", loop)
    loop += [model.layers[1].gain, loop]
    aware = gems.QuantizationAwareModel(model, X)
    assert_close(aware, model)
    assert loop[0] is model.layers[1].gain and loop[1] is loop


class WithMask(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x, mask=None, training=None):
        return self.dense(x)


def test_optional_mask_argument():
    model = WithMask()
    model(X)
    assert_close(gems.QuantizationAwareModel(model, X), model)


@pytest.mark.parametrize("place", [0, 40])
def test_nan_in_any_batch_is_refused(place):
    x = X.copy()
    x[place] = np.nan
    with pytest.raises(ValueError, match="activations are NaN"):
        gems.QuantizationAwareModel(sequential(layers.Dense(2)), x)


def test_fixed_batch_size():
    inputs = keras.Input(batch_shape=(4, 8))
    x = ops.reshape(layers.Dense(6)(inputs), (4, 2, 3))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match="no batch of 4 examples"):
        gems.QuantizationAwareModel(model, X[:3])
    aware = gems.QuantizationAwareModel(model, X[:46])  # 11 batches.
    assert_close(aware, model, X[:4])
