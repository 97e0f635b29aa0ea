"""Tests rewrites of preprocessing and of nested models."""

import keras
import numpy as np
import pytest

from tf_gems.export import make_sparse_ready

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)

layers = keras.layers
random = np.random.default_rng(0)
IMAGES = random.uniform(0, 255, (4, 11, 11, 3)).astype("float32")
MEAN, VARIANCE = [120.0, 90.0, 60.0], [50.0**2, 40.0**2, 30.0**2]


def normalization():
    layer = layers.Normalization(name="scaling")
    layer.adapt(IMAGES)
    return layer


SCALINGS = {
    "Rescaling": lambda x: layers.Rescaling(1 / 127.5, -1, name="scaling")(x),
    "no offset": lambda x: layers.Rescaling(1 / 255, name="scaling")(x),
    "Normalization": lambda x: layers.Normalization(
        mean=MEAN, variance=VARIANCE, name="scaling"
    )(x),
    "adapted": lambda x: normalization()(x),
    "two": lambda x: layers.Normalization(
        mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3]
    )(layers.Rescaling(1 / 255)(x)),
    "operations": lambda x: x / 127.5 - 1.0,
    "more operations": lambda x: (x - 100.0) * 0.02,
}


def network(scaling, norm=True, **convolution):
    """A network with scaled inputs and random weights."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((11, 11, 3))
    x = SCALINGS[scaling](inputs)
    x = layers.Conv2D(5, 3, name="stem", **convolution)(x)
    if norm:
        x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(4, 1, name="head")(layers.ReLU()(x))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    for variable in model.weights:
        if len(variable.shape) == 1 and "scaling" not in variable.path:
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
    return model


def outputs(model):
    return np.asarray(model(IMAGES))


def scaled_layers(model):
    kinds = (layers.Rescaling, layers.Normalization)
    found = [o for o in model.operations if isinstance(o, kinds)]
    return [o.name for o in found]


@pytest.mark.parametrize("norm, use_bias", [(True, False), (False, True)])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaling_moves_after_stem_exactly(scaling, norm, use_bias):
    model = network(scaling, norm, use_bias=use_bias)
    ready, report = make_sparse_ready(model)
    assert report.exact and report.changes
    assert all("moves behind 'stem'" in c["change"] for c in report.changes)
    assert scaled_layers(ready) == ["stem_scale"]
    expected = outputs(model)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs(ready), expected, atol=1e-5 * scale)
    # The kernel keeps its trained shape.
    old, new = (np.std(m.get_layer("stem").kernel) for m in (model, ready))
    assert 0.5 < new / old < 2


def test_padding_is_near_exact_only_at_borders():
    model = network("Rescaling", padding="same")
    ready, report = make_sparse_ready(model)
    assert [c["exact"] for c in report.changes] == [False]
    assert "at the borders" in str(report)
    inside = []
    for one in (model, ready):
        maps = keras.Model(one.inputs, one.get_layer("head").output)
        inside.append(np.asarray(maps(IMAGES)))
    a, b = inside
    scale = np.abs(a).max()
    np.testing.assert_allclose(
        a[:, 1:-1, 1:-1], b[:, 1:-1, 1:-1], atol=1e-5 * scale
    )
    assert np.abs(a - b).max() > 1e-3 * scale
    # Without an offset, the borders are exact.
    model = network("no offset", padding="same", strides=2)
    ready, report = make_sparse_ready(model)
    assert report.exact
    np.testing.assert_allclose(outputs(ready), outputs(model), atol=1e-4)


def test_unmovable_scaling_is_reported():
    inputs = keras.Input((11, 11, 3), name="image")
    x = layers.Rescaling(1 / 255)(inputs)
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="a")(x)
    # The first convolution of three channels can be wide.
    model = keras.Model(inputs, layers.Concatenate()([x, y]))
    ready, report = make_sparse_ready(model)
    [row] = report.left
    assert (
        row["layer"] == "image" and "exactly one convolution" in row["reason"]
    )
    np.testing.assert_array_equal(outputs(ready), outputs(model))
    model = keras.Model(inputs, y)
    ready, report = make_sparse_ready(model)
    [row] = report.left
    assert "the input of 'a'" in row["reason"]
    np.testing.assert_array_equal(outputs(ready), outputs(model))


def inner():
    """A base model for transfer learning, with common layer names."""
    inputs = keras.Input((11, 11, 3))
    x = layers.Conv2D(5, 3, strides=2, padding="same", name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    x = layers.Add()([x, keras.Sequential([layers.Conv2D(5, 1)])(x)])
    base = keras.Model(inputs, x, name="base")
    base.get_layer("norm").moving_mean.assign(np.arange(5) / 3)
    return base


def transfer():
    inputs = keras.Input((11, 11, 3))
    base = inner()
    base.trainable = False
    x = base(layers.Rescaling(1 / 255)(inputs), training=False)
    x = layers.Conv2D(6, 1, name="conv")(x)
    x = layers.GlobalAveragePooling2D()(layers.Dropout(0.5)(x))
    return keras.Model(inputs, layers.Dense(2)(x))


def sequential():
    return keras.Sequential(
        [keras.Input((11, 11, 3)), inner(), layers.Flatten(), layers.Dense(2)]
    )


def siamese():
    left, right = keras.Input((11, 11, 3)), keras.Input((11, 11, 3))
    base = inner()
    return keras.Model([left, right], layers.Add()([base(left), base(right)]))


@pytest.mark.parametrize("build", [transfer, sequential, siamese])
def test_nested_models_are_flattened(build):
    model = build()
    before = [np.array(w) for w in model.weights]
    ready, report = make_sparse_ready(model)
    assert not any(isinstance(o, keras.Model) for o in ready.operations)
    apart = [c["layer"] for c in report.changes if "replaced" in c["change"]]
    assert apart[0] == "base" and len(apart) == 2
    x = [IMAGES, IMAGES[::-1]] if len(model.inputs) > 1 else IMAGES
    np.testing.assert_allclose(ready(x), model(x), atol=1e-4)
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert len(ready.weights) == len(model.weights)
    frozen = [w.trainable for w in ready.weights]
    assert frozen.count(True) == len(model.trainable_weights)
    if build is transfer:  # The base is called with `training=False`.
        assert ready.get_layer("conv") is not ready.get_layer("base_conv")
        first = ready.get_layer("norm").output
        part = keras.Model(ready.inputs, first)
        np.testing.assert_array_equal(part(IMAGES, training=True), part(IMAGES))


def test_subclassed_models_are_unchanged_and_reported():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.dense = layers.Conv2D(3, 1)

        def call(self, x):
            return self.dense(x)

        def get_config(self):
            return {}

    inputs = keras.Input((11, 11, 3))
    model = keras.Model(inputs, Own()(inputs))
    ready, report = make_sparse_ready(model)
    assert report.left == [{"layer": "own", "reason": "is a nested model"}]
    np.testing.assert_array_equal(outputs(ready), outputs(model))


def test_wide_convolutions_are_reported_once():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="stem")(inputs)
    x = layers.Conv2D(4, 3, padding="same", name="wide")(x)
    x = layers.Conv2D(4, (1, 3), strides=2, name="strided")(x)
    x = layers.Conv2D(4, 1, name="pointwise")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    _, report = make_sparse_ready(model)
    reasons = {row["layer"]: row["reason"] for row in report.left}
    assert len(report.left) == 2 and set(reasons) == {"wide", "strided"}
    assert "is a 3x3 convolution: XNNPACK" in reasons["wide"]
    assert "not square with an odd size" in reasons["strided"]
