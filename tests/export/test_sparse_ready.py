"""Tests rewrites for XNNPACK: exactness, eligibility and outputs."""

import json
import os
import shutil
import sys

import keras
import numpy as np
import pytest
from export_networks import run_alone
from export_networks import save_reference

import tf_gems
from tf_gems import zoo
from tf_gems.export import make_sparse_ready
from tf_gems.export import readiness_report

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")

layers = keras.layers
SHAPE = (64, 64, 3)
IMAGES = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype("float32")


def with_values(model):
    """Randomizes the weights so that the outputs depend on the inputs."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        shape = variable.shape
        fan_in = np.prod(shape[:-1]) if "depthwise" not in variable.path else 9
        value = random.normal(size=shape) * np.sqrt(2 / max(fan_in, 1))
        if "variance" in variable.path or "gamma" in variable.path:
            value = random.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            value = random.normal(size=shape) * 0.1
        variable.assign(value.astype("float32"))
    return model


@pytest.fixture(scope="module")
def rewritten():
    """The stock networks, a dict from names to (model, new model, report)."""
    found = {}
    for name, alpha in [("MobileNet", 0.25), ("MobileNetV2", 0.35)]:
        stock = getattr(keras.applications, name)(
            SHAPE,
            alpha=alpha,
            weights=None,
            classes=5,
            classifier_activation=None,
        )
        found[name] = stock, *make_sparse_ready(with_values(stock))
    return found


@pytest.mark.parametrize(
    "name, counterpart, alpha, changes",
    [
        ("MobileNet", zoo.mobilenet_v1, 0.25, (5, 3)),
        ("MobileNetV2", zoo.mobilenet_v2_sparse_ready, 0.35, (5, 0)),
    ],
)
def test_stock_networks_match_zoo_after_rewrite(
    rewritten, name, counterpart, alpha, changes
):
    stock, ready, report = rewritten[name]
    assert report.eligible and not report.exact and report.left == []
    kinds = [change["exact"] for change in report.changes]
    assert (kinds.count(False), kinds.count(True)) == changes
    assert [tuple(w.shape)[-2:] for w in ready.weights] == [
        tuple(w.shape)[-2:] for w in stock.weights
    ]
    # The same weights in a handwritten network.
    other = counterpart(SHAPE, 5, alpha=alpha, affine=True)
    *values, bias = ready.get_weights()
    other.set_weights(values)
    for layer in other.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.epsilon = 1e-3
    expected = np.asarray(other(IMAGES)) + bias
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ready(IMAGES), expected, atol=1e-4 * scale)
    # The outputs differ from the stock network, so it is near-exact.
    assert np.abs(np.asarray(stock(IMAGES)) - expected).max() > 1e-3 * scale


def test_exact_rewrites_keep_outputs():
    x = inputs = keras.Input((15, 15, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="odd")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="average")(x)
    x = layers.Conv2D(6, 1, activation="relu", name="hidden")(x)
    x = layers.BatchNormalization(axis=3, name="norm")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    x = layers.Conv2D(4, 1, use_bias=False, name="head")(x)
    x = layers.Flatten(name="flat")(x)
    model = with_values(keras.Model(inputs, layers.Softmax()(x)))
    ready, report = make_sparse_ready(model)
    # There is no 1x1 convolution left.
    assert report.exact and report.eligible is False
    assert {x["layer"] for x in report.changes} == {
        "odd",
        "average",
        "hidden",
        "head",
        "flat",
    }
    images = IMAGES[:, :15, :15]
    np.testing.assert_allclose(ready(images), model(images), atol=1e-6)
    assert isinstance(ready.get_layer("hidden"), layers.Dense)
    assert ready.get_layer("norm").input.shape == (None, 6)
    pad = ready.get_layer("odd_pad")
    assert pad.padding == ((1, 1), (1, 1))


def test_near_exact_rewrites_shift_by_one_pixel():
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="same")(x)
    x = layers.ZeroPadding2D(((1, 2), (1, 2)), name="pad")(x)
    x = layers.DepthwiseConv2D(5, strides=2, name="wide")(x)
    model = with_values(keras.Model(inputs, x))
    ready, report = make_sparse_ready(model)
    assert [change["layer"] for change in report.changes] == ["same", "pad"]
    assert not any(change["exact"] for change in report.changes)
    images = IMAGES[:, :12, :12]

    def convolve(x, layer, reach):
        """Each output reads the inputs at 2i - reach ... 2i + reach."""
        kernel = np.asarray(layer.kernel)
        sides = [(0, 0), (reach, reach), (reach, reach), (0, 0)]
        x, total = np.pad(x, sides), 0
        for i, j in np.ndindex(kernel.shape[:2]):
            seen = x[:, i:, j:][:, : x.shape[1] - 2 * reach : 2]
            seen = seen[:, :, : x.shape[2] - 2 * reach : 2]
            depthwise = isinstance(layer, layers.DepthwiseConv2D)
            weight = kernel[i, j, :, 0] if depthwise else kernel[i, j]
            total = total + (seen * weight if depthwise else seen @ weight)
        return total + np.asarray(layer.bias)

    y = convolve(images, model.get_layer("same"), 1)
    y = convolve(y, model.get_layer("wide"), 2)
    np.testing.assert_allclose(ready(images), y, atol=1e-4)


def test_unsupported_layers_are_reported():
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, name="unpadded")(x)
    x = y = layers.Conv2D(8, 1, strides=2, name="pointwise")(x)
    x = layers.Conv2D(8, 4, strides=2, padding="same", name="even")(x)
    scale = layers.GlobalAveragePooling2D(keepdims=True, name="excite")(y)
    x = layers.Multiply(name="multiply")([x, scale])
    x = layers.GlobalAveragePooling2D(keepdims=True, name="average")(x)
    model = with_values(keras.Model(inputs, x))
    ready, report = make_sparse_ready(model)
    reasons = {row["layer"]: row["reason"] for row in report.left}
    assert set(reasons) == {
        "unpadded",
        "pointwise",
        "even",
        "excite",
        "average",
    }
    assert "'multiply' needs them" in reasons["excite"]
    assert report.changes == [] and report.exact
    assert "not changed  is not padded" in str(report)
    images = IMAGES[:, :16, :16]
    np.testing.assert_array_equal(ready(images), model(images))
    assert json.loads(json.dumps(report.to_dict()))["left"] == report.left


def test_refusals():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    wrapped = tf_gems.SparseModel(model)
    with pytest.raises(ValueError, match="type SparseModel. Build it from"):
        make_sparse_ready(wrapped)
    inputs = keras.Input((4,))
    x = tf_gems.GemLayer(layers.Dense(3))(inputs)
    with pytest.raises(ValueError, match="before it is wrapped"):
        make_sparse_ready(keras.Model(inputs, x))


def test_pruned_stock_network_is_correct_when_sparse(rewritten, tmp_path):
    _, ready, _ = rewritten["MobileNet"]
    sparse = tf_gems.SparseModel(ready, filters="pointwise", seed=0)
    ticket = tf_gems.methods.Magnitude(0.9).find(sparse)
    ticket.apply(sparse)
    path = tmp_path / "ready.tflite"
    report = tf_gems.export_litert(sparse, path, inputs=IMAGES)
    encoded = {t["name"] for t in report.tensors if t["encoding"] == "sparse"}
    large = {k for k, mask in ticket.masks.items() if mask.size > 1000}
    assert large <= encoded
    found = readiness_report(path)
    assert found.eligible and found.faster
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("needs qemu-x86_64, package qemu-user")
    [image] = ready.inputs
    save_reference(path, {image.name: IMAGES}, {"output_0": sparse(IMAGES)})
    command = (emulator, "-cpu", "Nehalem", sys.executable)
    env = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem"}
    errors = run_alone([path], command, env)[str(path)]
    assert max(max(e) for e in errors.values()) < 1e-4
