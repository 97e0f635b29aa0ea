"""Tests quantization-aware training: zeros, ranges, saving and errors."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import tf_gems as gems
from tf_gems.layers.wrapped_variable import WrappedVariable
from tf_gems.quantization import operators

random = np.random.default_rng(0)
X = random.normal(size=(64, 8, 8, 3)).astype("float32")
Y = random.integers(0, 4, 64)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network():
    random = np.random.default_rng(2)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(
                3, bias_initializer="ones", name="depthwise"
            ),
            layers.ReLU(),
            layers.Dropout(0.1),
            layers.Flatten(),
            layers.Dense(4, name="dense"),
        ]
    )
    for name in ("conv", "depthwise", "dense"):
        kernel = model.get_layer(name).kernel
        kernel.assign(kernel * (random.random(kernel.shape) < 0.4))
    return model


def aware_of(model, x=X):
    aware = gems.QuantizationAwareModel(model, x)
    aware.compile(keras.optimizers.Adam(1e-2), LOSS)
    return aware


def kernels(model):
    return {
        w.path: ops.convert_to_numpy(w) for w in model.weights if w.ndim > 1
    }


def test_outputs_match_equations():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(3, name="a"), layers.Softmax()]
    )
    x = random.normal(size=(40, 5)).astype("float32")
    aware = gems.QuantizationAwareModel(model, x)

    def nearest(value, low, high):
        below = np.round(-low / ((high - low) / 255))
        needed = max(-low / max(below, 1), high / max(255 - below, 1))
        scale = min(needed, (high - low) / 254)
        q = np.clip(np.round(value / scale), -below, 255 - below)
        return q * scale

    kernel = ops.convert_to_numpy(model.layers[0].kernel)
    scale = np.abs(kernel).max(0) / 127
    inputs = nearest(x, x.min(), x.max())
    logits = inputs @ (np.round(kernel / scale) * scale)
    low, high = aware.ranges()["a"]
    float_logits = x @ (np.round(kernel / scale) * scale)
    assert (low, high) == pytest.approx(
        (float_logits.min(), float_logits.max()), rel=1e-4
    )
    logits = nearest(logits, low, high)
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.clip(np.floor(odds * 256 + 0.5), 0, 255) / 256
    found = ops.convert_to_numpy(aware(x))
    # A logit between two steps may round either way.
    close = np.abs(found - expected).max(1) < 1e-5
    assert close.mean() > 0.9


def test_zeros_stay_exact_and_weights_train():
    model = network()
    aware = aware_of(model)
    before, ranges = kernels(model), aware.ranges()
    aware.fit(X, Y, batch_size=32, epochs=2, verbose=0)
    after = kernels(model)
    for path, value in before.items():
        assert (after[path][value == 0] == 0).all()
        # All but those before a ReLU that is never positive.
        assert (after[path][value != 0] != value[value != 0]).mean() > 0.5
    assert aware.ranges() != ranges
    plain = gems.strip(aware)
    assert plain is model
    for path, value in kernels(plain).items():
        assert (value[before[path] == 0] == 0).all()


def test_ranges_are_moving_averages_of_the_extremes():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    aware = gems.QuantizationAwareModel(model, X[:, 0, 0], momentum=0.9)
    name = next(iter(aware.ranges()))
    [low, high] = aware.ranges()[name]
    assert (low, high) == pytest.approx(
        (X[:, 0, 0].min(), X[:, 0, 0].max()), rel=1e-6
    )
    batch = np.array([[-9.0, 1.0, 5.0]], "float32")
    aware(batch, training=True)
    assert aware.ranges()[name] == pytest.approx(
        (0.9 * low - 0.9, 0.9 * high + 0.5), rel=1e-5
    )
    aware(3 * batch, training=False)
    assert aware.ranges()[name] == pytest.approx(
        (0.9 * low - 0.9, 0.9 * high + 0.5), rel=1e-5
    )


def test_generator_is_read_from_first_batch():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    x = X[:32, 0, 0] * np.linspace(2, 1, 32)[:, None]
    aware = gems.QuantizationAwareModel(model, (x[i : i + 16] for i in (0, 16)))
    assert aware.ranges()["input"] == pytest.approx((x.min(), x.max()))
    gems.strip(aware)
    aware = gems.QuantizationAwareModel(model, iter([x]))
    assert aware.ranges()["input"] == pytest.approx((x.min(), x.max()))


def test_empty_range_is_taken_from_first_batch(tmp_path):
    """For example, the range of a clone without the original weights."""
    aware = aware_of(network())
    clone = keras.models.clone_model(aware)
    assert set(clone.ranges().values()) == {(0.0, 0.0)}
    float_ = clone.model.predict(X, verbose=0)
    np.testing.assert_allclose(clone.predict(X, verbose=0), float_, atol=0.1)
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match="with empty ranges"):
            gems.export_litert(clone, tmp_path / "m.tflite", form="int8")
    clone(X, training=True)
    assert clone.ranges()["input"] == pytest.approx((X.min(), X.max()))
    clone.set_weights(aware.get_weights())
    np.testing.assert_array_equal(
        clone.predict(X, verbose=0), aware.predict(X, verbose=0)
    )


def _by_name(x):
    """A model with a list of inputs that is called with a dict."""
    one, two = (keras.Input((8, 8, 4), name=name) for name in "ba")
    outputs = layers.Subtract()([one, layers.Conv2D(4, 1)(two)])
    inner = keras.Model([one, two], outputs)
    a, b = (layers.Conv2D(4, 3, padding="same")(x) for _ in range(2))
    return inner({"a": a, "b": b})


def _by_keyword(x):
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3)])
    return inner(inputs=x)


def _active(x):
    """A layer that Keras disables in `predict`."""
    x = layers.BatchNormalization()(x, training=True)
    return layers.Dropout(0.9)(x, training=True)


def _penalized(x):
    x = layers.Conv2D(4, 3, activation="relu", activity_regularizer="l2")(x)
    x = layers.SeparableConv2D(4, 3, activity_regularizer="l2")(x)
    x = layers.ReLU(activity_regularizer="l1")(x)
    return layers.ActivityRegularization(0.1)(x)


def _of_two_ranks(x):
    """Scales each feature map by values of its own example."""
    x = layers.Conv2D(4, 3)(x)
    excite = layers.Dense(4)(layers.GlobalMaxPooling2D()(x))
    return layers.Add()([layers.Multiply()([x, excite]), excite, x])


@pytest.mark.parametrize(
    "graph", [_by_name, _by_keyword, _active, _penalized, _of_two_ranks]
)
def test_graphs_match_keras(graph):
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(graph(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    expected = model.predict(X, verbose=0)
    model(X, training=False)
    losses = [float(loss) for loss in model.losses]
    aware = gems.QuantizationAwareModel(model, X)
    found = aware.predict(X, verbose=0)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    aware(X, training=False)
    assert [float(x) for x in aware.losses] == pytest.approx(losses, rel=0.05)


def test_operators_with_other_outputs_are_refused(monkeypatch):
    monkeypatch.setitem(
        operators._LAYERS, layers.Subtract, operators._merge(ops.add)
    )
    inputs = keras.Input((8, 8, 3))
    x = layers.Subtract()([layers.Conv2D(3, 1)(inputs), inputs])
    model = keras.Model(inputs, x)
    expected = model.predict(X, verbose=0)
    with pytest.raises(RuntimeError, match="for which they differ by"):
        gems.QuantizationAwareModel(model, X)
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected)


def test_saved_model_continues_training(tmp_path, eagerly):
    aware = aware_of(network())
    aware.fit(X, Y, batch_size=32, verbose=0)
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    assert list(loaded.ranges().values()) == list(aware.ranges().values())
    np.testing.assert_array_equal(
        loaded.predict(X, verbose=0), aware.predict(X, verbose=0)
    )
    zeros = {k: v == 0 for k, v in kernels(loaded.model).items()}
    loaded.fit(X, Y, batch_size=32, verbose=0)
    for path, value in kernels(loaded.model).items():
        assert (value[zeros[path]] == 0).all()


def test_pruned_model_must_be_stripped_first():
    sparse = gems.SparseModel(network(), start="trained")
    sparse.compile("adam", LOSS)
    with pytest.raises(ValueError, match="tf_gems.strip"):
        gems.QuantizationAwareModel(sparse, X)
    aware = gems.QuantizationAwareModel(gems.strip(sparse), X)
    assert aware.predict(X, verbose=0).shape == (64, 4)


@keras.saving.register_keras_serializable(package="tests.quantization")
class Residual(layers.Layer):
    """A user's layer with sublayers, an operation and a weight."""

    def build(self, shape):
        self.conv = layers.Conv2D(shape[-1], 3, padding="same")
        self.conv.build(shape)
        self.norm = layers.BatchNormalization()
        self.norm.build(shape)
        self.gain = self.add_weight(name="gain", shape=(shape[-1],))

    def call(self, x, training=None):
        y = self.norm(self.conv(x), training=training)
        return ops.relu(x + y * self.gain)


@keras.saving.register_keras_serializable(package="tests.quantization")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = layers.Conv2D(4, 3)
        self.blocks = [Residual(), Residual()]
        self.drop = layers.Dropout(0.5)
        self.head = layers.Dense(4)

    def build(self, shape):
        self.stem.build(shape)
        for block in self.blocks:
            block.build((None, 6, 6, 4))
        self.head.build((None, 4))

    def call(self, x, training=None):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, training=training)
        x = ops.mean(x, axis=(1, 2))
        if training:
            x = self.drop(x, training=training)
        return self.head(x)


def subclassed(**kwargs):
    model = Subclassed(**kwargs)
    model.build((None, 8, 8, 3))
    return model


def test_subclassed_models_train_and_are_restored(eagerly):
    model = subclassed()
    nodes = [len(part._inbound_nodes) for part in model._flatten_layers()]
    aware = aware_of(model)
    aware.fit(X, Y, batch_size=32, verbose=0)
    assert nodes == [
        len(part._inbound_nodes) for part in model._flatten_layers()
    ]
    float_ = ops.convert_to_numpy(gems.strip(aware)(X))
    rounded = ops.convert_to_numpy(aware(X))
    assert 0 < np.abs(float_ - rounded).max() < 0.1 * np.abs(float_).max()


def test_frozen_part_keeps_its_statistics(eagerly):
    base = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(name="norm"),
        ]
    )
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(base(inputs, training=False))
    model = keras.Model(inputs, layers.Dense(4)(x))
    aware = aware_of(model)
    aware.fit(X, Y, batch_size=32, verbose=0)
    mean = base.get_layer("norm").moving_mean
    assert not ops.convert_to_numpy(mean).any()


def sequential(*parts, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *parts])


class OwnStep(keras.Model):
    def train_step(self, data):
        return {}


class Standardized(layers.Conv2D):
    """Changes its kernel when it is used."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - ops.mean(kernel))


def own_step():
    inputs = keras.Input((3,))
    return OwnStep(inputs, layers.Dense(2)(inputs))


def adapted():
    model = sequential(layers.Dense(4, name="adapted"), shape=(3,))
    model.get_layer("adapted").enable_lora(2)
    return model


REFUSED = {
    "a low-rank adapter": (adapted, X[:, 0, 0], "'adapted' whose kernel"),
    "not finite": (network, X * np.nan, "activations are NaN"),
    "another shape": (network, X[:, :2], "representative_data=array([[[["),
    "no batch": (network, [], "representative_data=[]"),
    "no data": (network, None, "representative_data=None"),
    "a recurrent layer": (
        lambda: sequential(
            layers.Dense(4), layers.GRU(3, name="memory"), shape=(5, 3)
        ),
        X[:, 0, :5],
        "'memory' of type GRU",
    ),
    "an activation": (
        lambda: sequential(layers.Conv2D(3, 3, activation="mish", name="c")),
        X,
        "'c' with the activation `mish`",
    ),
    "an activity penalty": (
        lambda: subclassed(activity_regularizer="l2"),
        X,
        "which uses `activity_regularizer`",
    ),
    "a changed convolution": (
        lambda: sequential(Standardized(3, 3, name="ws")),
        X,
        "'ws/conv'",
    ),
    "half precision": (
        lambda: sequential(layers.Conv2D(3, 3, dtype="mixed_bfloat16")),
        X,
        "dtype='mixed_bfloat16'",
    ),
    "an own training step": (own_step, X[:, 0, 0], "train_step"),
    "integers": (
        lambda: keras.Sequential(
            [
                keras.Input((4,), dtype="int32"),
                layers.Embedding(5, 3),
                layers.Flatten(),
            ]
        ),
        np.ones((8, 4), "int32"),
        "dtype='int32'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_models_are_refused_by_name(case):
    build, data, message = REFUSED[case]
    model = build()
    with pytest.raises(ValueError, match="Received: ") as caught:
        gems.QuantizationAwareModel(model, data)
    assert message in str(caught.value)
    # The model is unchanged.
    assert not any(isinstance(w, WrappedVariable) for w in model.weights)


def test_all_unsupported_layers_are_named():
    model = sequential(
        layers.Conv2D(3, 3, activation="mish", name="first"),
        layers.GroupNormalization(3, name="second"),
    )
    with pytest.raises(ValueError, match="'first'.*'second' of type Group"):
        gems.QuantizationAwareModel(model, X)


def test_other_exports_are_refused(tmp_path):
    aware = aware_of(network())
    with pytest.raises(ValueError, match="export_litert"):
        aware.export(tmp_path / "model")
    with pytest.raises(ValueError, match="tf_gems.strip"):
        gems.compact(aware)
