"""Tests that exact rewrites keep the outputs of any graph."""

import keras
import numpy as np
import pytest

from tf_gems.export import ReadinessReport
from tf_gems.export import make_sparse_ready
from tf_gems.export import sparse_ready

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)

layers = keras.layers
ops = keras.ops
SIZE = (9, 9, 3)


def images():
    return keras.Input(SIZE)


def maps(filters=4, **kwargs):
    return layers.Conv2D(filters, 3, **kwargs)


def scores(x):
    return layers.Dense(3)(layers.Flatten()(x))


class Standardized(layers.Conv2D):
    """A user's convolution that normalizes its kernel."""

    def call(self, x):
        kernel = self.kernel - ops.mean(self.kernel, axis=(0, 1, 2))
        return ops.conv(x, kernel, self.strides, self.padding) + self.bias


class Untracked(layers.Layer):
    """Computes with an array that Keras does not save."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factors = np.random.default_rng().normal(size=4)

    def call(self, x):
        return x * ops.cast(self.factors, x.dtype)


def inputs_in_another_order():
    one, other = keras.Input(SIZE, name="z"), keras.Input(SIZE, name="a")
    x = layers.Subtract()([maps()(one), maps()(other)])
    within = keras.Model([one, other], x)
    one, other = images(), images()
    x = within({"a": one, "z": other})
    return keras.Model([other, one], scores(x))


def arguments_by_name():
    one, other = keras.Input((9, 4)), keras.Input((9, 4))
    x = layers.MultiHeadAttention(2, 3)(one, key=one, value=other)
    return keras.Model({"b": one, "a": other}, scores(x))


def training_within():
    within = keras.Sequential([maps(), layers.BatchNormalization()])
    x = images()
    return keras.Model(x, scores(within(x, training=True)))


def maps_of_two_sizes():
    """The second call reads even sizes, so the paddings differ."""
    layer, x = maps(3, strides=2, padding="same"), images()
    y = layers.ZeroPadding2D(((0, 1), (0, 1)))(layer(x))
    return keras.Model(x, scores(layer(y)))


def padded_maps_are_an_output():
    x = keras.Input((8, 8, 3))
    y = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    return keras.Model(x, [scores(maps(strides=2)(y)), y])


def scaled_images_are_an_output():
    x = images()
    scaled = x / 100.0 + 3.0
    return keras.Model(x, [scores(maps()(scaled)), scaled])


def convolution_before_normalization_is_an_output():
    x = images()
    y = maps(use_bias=False)(x / 100.0 + 3.0)
    return keras.Model(x, [scores(layers.BatchNormalization()(y)), y])


def normalization_is_called_twice():
    x, norm = images(), layers.BatchNormalization()
    y = maps(use_bias=False)(x / 100.0 + 3.0)
    return keras.Model(x, scores(norm(norm(y))))


def normalization_of_rows():
    x = images()
    y = maps(use_bias=False)(x / 100.0 + 3.0)
    return keras.Model(x, scores(layers.BatchNormalization(axis=1)(y)))


def scaling_of_rows():
    x = keras.Input((3, 9, 3))
    y = x * np.reshape([1, 2, 3], (3, 1, 1)).astype("float32")
    return keras.Model(x, scores(maps()(y)))


def scaling_of_integers():
    x = keras.Input(SIZE, dtype="uint8")
    return keras.Model(x, scores(maps()(layers.Rescaling(1 / 255)(x))))


def standardized_head():
    x = images()
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = Standardized(5, 1)(y)
    return keras.Model(x, layers.Flatten()(y))


def functions_of_a_user():
    x, factor = images(), 3.0
    y = layers.Lambda(lambda t: t * factor, output_shape=SIZE)(x)
    y = layers.Conv2D(4, 1, activation=lambda t: ops.relu(t) * 2)(y)
    return keras.Model(x, scores(Untracked()(y)))


def activation_over_the_axes_of_size_one():
    x = images()
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Activation(lambda t: t / ops.max(t, axis=(1, 3), keepdims=True))(
        y
    )
    return keras.Model(x, layers.Flatten()(y))


def adapted_within():
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(3, 4, size=(9, *SIZE)))
    x = images()
    return keras.Model(x, scores(keras.Sequential([norm, maps()])(x)))


def adapted_words():
    words = layers.StringLookup()
    words.adapt(np.array(["a", "b"]))
    x, text = images(), keras.Input((1,), dtype="string")
    y = layers.Flatten()(layers.Embedding(4, 3)(words(text)))
    return keras.Model(
        {"x": x, "text": text}, layers.Concatenate()([scores(maps()(x)), y])
    )


def called_by_another_model():
    """The layers also have calls outside of this model."""
    x, y = keras.Input((8, 8, 3)), keras.Input((9, 9, 3))
    layer = maps(strides=2, padding="same")
    layer(x)
    return keras.Model(y, scores(layer(y)))


GRAPHS = [
    inputs_in_another_order,
    arguments_by_name,
    training_within,
    maps_of_two_sizes,
    padded_maps_are_an_output,
    scaled_images_are_an_output,
    convolution_before_normalization_is_an_output,
    normalization_is_called_twice,
    normalization_of_rows,
    scaling_of_rows,
    scaling_of_integers,
    standardized_head,
    functions_of_a_user,
    activation_over_the_axes_of_size_one,
    adapted_within,
    adapted_words,
    called_by_another_model,
]


def example(tensor):
    random = np.random.default_rng(len(tensor.name))
    shape = (2, *tensor.shape[1:])
    if tensor.dtype == "string":
        return np.full(shape, "b", object)
    return random.uniform(0, 9, shape).astype(tensor.dtype)


@pytest.mark.parametrize("build", GRAPHS, ids=lambda build: build.__name__)
def test_exact_rewrites_are_exact(build, monkeypatch):
    # Conversion takes most of the time, and is tested elsewhere.
    empty = ReadinessReport(None, [])
    monkeypatch.setattr(sparse_ready, "readiness_report", lambda _: empty)
    model = build()
    random = np.random.default_rng(0)
    for variable in model.trainable_weights:
        variable.assign(random.uniform(0.1, 1, variable.shape))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            mean = random.uniform(0.1, 1, layer.moving_mean.shape)
            layer.moving_mean.assign(mean)
    structure = getattr(model, "_inputs_struct", model.inputs[0])
    x = keras.tree.map_structure(example, structure)
    if build is adapted_words:
        with pytest.raises(ValueError, match="Pass a batch as `inputs`"):
            make_sparse_ready(model)
    ready, report = make_sparse_ready(model, inputs=x)
    expected, received = (
        keras.tree.flatten(m(x, training=False)) for m in (model, ready)
    )
    assert report.exact
    for one, other in zip(expected, received, strict=True):
        scale = np.abs(one).max()
        np.testing.assert_allclose(other, one, atol=1e-5 * scale)
    assert bool(report.shared) == any(
        isinstance(o, layers.Lambda | Untracked | Standardized)
        or hasattr(o, "adapt")
        for o in ready.operations
    )
