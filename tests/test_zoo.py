import functools
import math
import warnings

import keras
import numpy as np
import pytest

import tf_gems
from tf_gems import zoo

# Numbers of weights and tensors of the authors' networks.
SIZES = {
    "conv4": (2_425_024, 7),
    "lenet_300_100": (784 * 300 + 300 * 100 + 1000, 3),
    # As in keras.applications, without normalization and biases.
    "mobilenet_v1": (4_253_864 - 2 * 10_944 * 2 - 1_000, 28),
    "mobilenet_v2": (2_261_824, 58),
    "mobilenet_v2_sparse_ready": (3_538_984 - 2 * 17_056 * 2 - 1_000, 53),
    "resnet18": (11_097_280 + 172_032, 21),
    "resnet20": (268_336, 20),
    "resnet32": (461_872, 32),
    "resnet50": (22_734_016 + 2_768_896, 54),
    "vgg16": (14_715_584, 14),
    "wide_resnet28_2": (1_463_984, 29),
}
VARIANTS = {
    "resnet32": [
        ({"classes": 100}, 467_632),
        ({"classes": 100, "width": 2}, 1_856_864),
    ],
    "resnet18": [
        (
            {"input_shape": (32, 32, 3), "classes": 10, "stem": "cifar"},
            11_164_352,
        ),
    ],
}
VARIANTS = [
    (name, arguments, size)
    for name, variants in VARIANTS.items()
    for arguments, size in variants
]
CLASSES = {
    "mobilenet_v1": 1000,
    "mobilenet_v2_sparse_ready": 1000,
    "resnet18": 200,
    "resnet50": 1000,
}


@functools.cache
def network(name):
    """Returns the network with random statistics of normalization."""
    model = getattr(zoo, name)()
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(generator.normal(size=shape))
            layer.moving_variance.assign(generator.uniform(0.5, 2, shape))
    return model


def weights_of(model):
    return [math.prod(w.shape) for w in model.trainable_weights]


def values(model, *names):
    """Returns the outputs of the layers for one image."""
    outputs = [model.get_layer(name).output for name in names]
    images = np.random.default_rng(0).normal(size=(1, *model.input_shape[1:]))
    found = keras.Model(model.input, outputs)(images.astype("float32"))
    return [keras.ops.convert_to_numpy(x) for x in found]


def convolve(x, layer, stride=1):
    """Returns a convolution of odd size, padded symmetrically."""
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    height, width = x.shape[1:3]
    pad = len(kernel) // 2
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    total = 0.0
    for (i, j), _ in np.ndenumerate(kernel[..., 0, 0]):
        seen = x[:, i : i + height : stride, j : j + width : stride]
        total += seen * kernel[i, j, :, 0] if depthwise else seen @ kernel[i, j]
    return total


def normalize(x, layer):
    mean, variance = map(
        keras.ops.convert_to_numpy, (layer.moving_mean, layer.moving_variance)
    )
    return (x - mean) / np.sqrt(variance + 1e-5)


def relu(x):
    return np.maximum(x, 0)


def convolve_normalize(x, model, name, stride=1):
    x = convolve(x, model.get_layer(name), stride)
    return normalize(x, model.get_layer(f"{name}_norm"))


def assert_near(found, expected):
    scale = np.abs(expected).max()
    assert scale > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale, rtol=1e-4)


def test_every_network_has_a_known_size():
    assert sorted(SIZES) == sorted(zoo.__all__)


@pytest.mark.parametrize("name", zoo.__all__)
def test_sizes_and_prunable_kernels(name):
    model = network(name)
    sizes = weights_of(model)
    assert (sum(sizes), len(sizes)) == SIZES[name]
    assert model.output_shape == (None, CLASSES.get(name, 10))
    report = tf_gems.PruningReport(model)
    assert report.skipped == []
    assert len(report.prunable) == len(sizes)


@pytest.mark.parametrize("name, arguments, size", VARIANTS)
def test_sizes_of_variants(name, arguments, size):
    model = getattr(zoo, name)(kernel_initializer="zeros", **arguments)
    assert sum(weights_of(model)) == size
    assert model.output_shape == (None, arguments["classes"])


def test_resnet20_tensors_match_reference():
    assert weights_of(network("resnet20")) == (
        [432] + [2304] * 6 + [4608] + [9216] * 5 + [18432] + [36864] * 5 + [640]
    )


@pytest.mark.parametrize(
    "name", ["conv4", "lenet_300_100", "resnet20", "wide_resnet28_2"]
)
def test_config_round_trip_keeps_outputs(name):
    model = getattr(zoo, name)(classes=7)
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
    expected = model.predict(images, verbose=0)
    assert expected.shape == (2, 7)
    np.testing.assert_array_equal(copy.predict(images, verbose=0), expected)


@pytest.mark.parametrize("name", zoo.__all__)
def test_layers_have_no_biases_and_take_initializer_and_regularizer(name):
    arguments = {
        "kernel_initializer": "ones",
        "kernel_regularizer": keras.regularizers.L2(0.5),
    }
    if name == "resnet50":
        arguments["classes"] = 2
    model = getattr(zoo, name)(**arguments)
    for weight in model.trainable_weights:
        assert "kernel" in weight.path
        assert weight.regularizer.l2 == 0.5
        assert np.all(keras.ops.convert_to_numpy(weight[..., :2]) == 1)


@pytest.mark.parametrize("alpha", [1.0, 0.35])
@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("mobilenet_v1", "MobileNet"),
        ("mobilenet_v2_sparse_ready", "MobileNetV2"),
    ],
)
def test_mobilenet_weights_match_keras_applications(ours, theirs, alpha):
    shape = (96, 96, 3)
    found = getattr(zoo, ours)(
        shape, 7, "zeros", alpha=alpha, affine=True, stem="imagenet"
    )
    expected = getattr(keras.applications, theirs)(
        shape, alpha=alpha, weights=None, classes=7
    )
    # Keras' classifiers have a bias, and the one of V1 is a convolution.
    *expected, last, _ = (tuple(w.shape) for w in expected.weights)
    assert [tuple(w.shape) for w in found.weights] == [*expected, last[-2:]]


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2_sparse_ready"])
@pytest.mark.parametrize(
    "stem, side, first",
    [("imagenet", 64, 32), ("small", 32, 16), ("cifar", 32, 32)],
)
def test_stems_of_mobilenets(name, stem, side, first):
    model = getattr(zoo, name)(
        (side, side, 3), 5, "zeros", alpha=0.25, stem=stem
    )
    last = model.get_layer("pool").input.shape[1:3]
    assert last == ((2, 2) if stem == "imagenet" else (4, 4))
    assert model.get_layer("stem").output.shape[1:3] == (first, first)


@pytest.mark.parametrize("name", zoo.__all__)
def test_strided_convolutions_have_symmetric_padding(name):
    model = network(name)
    for layer in model.layers:
        if not hasattr(layer, "kernel_size") or layer.strides == (1, 1):
            continue
        assert layer.padding == "valid"
        pad = layer.kernel_size[0] // 2
        if pad:
            padding = model.get_layer(f"{layer.name}_pad")
            assert layer.input is padding.output
            assert padding.padding == ((pad, pad), (pad, pad))


@pytest.mark.parametrize(
    "name, before",
    [("resnet20", "stage1_block3_relu2"), ("resnet32", "stage1_block5_relu2")],
)
def test_shortcut_subsamples_and_pads_channels(name, before):
    model = network(name)
    block = "stage2_block1"
    x, found = values(model, before, f"{block}_relu2")
    y = relu(convolve_normalize(x, model, f"{block}_conv1", stride=2))
    y = convolve_normalize(y, model, f"{block}_conv2")
    shortcut = np.pad(x[:, ::2, ::2], [(0, 0)] * 3 + [(8, 8)])
    assert_near(found, relu(y + shortcut))


def test_wide_resnet_activates_before_both_branches():
    model = network("wide_resnet28_2")
    block = "stage2_block1"
    x, found, after = values(
        model, "stage1_block4_add", f"{block}_add", "stage2_block2_add"
    )

    def branch(x, block, stride):
        a = relu(normalize(x, model.get_layer(f"{block}_norm1")))
        y = convolve(a, model.get_layer(f"{block}_conv1"), stride)
        y = relu(normalize(y, model.get_layer(f"{block}_norm2")))
        return a, convolve(y, model.get_layer(f"{block}_conv2"))

    a, y = branch(x, block, stride=2)
    shortcut = convolve(a, model.get_layer(f"{block}_shortcut"), 2)
    assert_near(found, shortcut + y)
    _, y = branch(found, "stage2_block2", stride=1)
    assert_near(after, found + y)


@pytest.mark.parametrize(
    "before, block, stride, shortcut",
    [
        ("stem_relu", "stage1_block1", 1, "convolution"),
        ("stage2_block1_add", "stage2_block2", 1, "identity"),
        ("stage2_block2_add", "stage3_block1", 2, None),
    ],
)
def test_mobilenet_blocks(before, block, stride, shortcut):
    model = network("mobilenet_v2")
    last = f"{block}_add" if shortcut else f"{block}_project_norm"
    x, found = values(model, before, last)
    y = relu(convolve_normalize(x, model, f"{block}_expand"))
    assert y.max() > 6  # ReLU6 would differ.
    y = relu(convolve_normalize(y, model, f"{block}_depthwise", stride))
    y = convolve_normalize(y, model, f"{block}_project")
    if shortcut == "convolution":
        y += convolve_normalize(x, model, f"{block}_shortcut")
    elif shortcut == "identity":
        y += x
    assert_near(found, y)


def test_mobilenet_shortcuts():
    names = [layer.name for layer in network("mobilenet_v2").layers]
    assert [n for n in names if n.endswith("_shortcut")] == [
        f"stage{stage}_block1_shortcut" for stage in (1, 2, 5, 7)
    ]
    without = {f"stage{stage}_block1_add" for stage in (3, 4, 6)}
    assert not without & set(names)
    assert sum(n.endswith("_add") for n in names) == 17 - 3


def test_vgg_pools_after_normalization_and_relu():
    model = network("vgg16")
    x, found = values(model, "block1_conv1_relu", "block1_pool")
    y = relu(convolve_normalize(x, model, "block1_conv2"))
    assert_near(found, y.reshape(1, 16, 2, 16, 2, 64).max((2, 4)))


def test_imagenet_stem():
    model = network("resnet18")
    x, found = values(model, "image", "stem_pool")
    y = relu(convolve_normalize(x, model, "stem", stride=2))
    y = np.pad(y, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = [
        y[:, i : i + 32 : 2, j : j + 32 : 2] for i, j in np.ndindex(3, 3)
    ]
    assert_near(found, np.max(windows, 0))


def test_resnet18_block():
    model = network("resnet18")
    block = "stage2_block1"
    x, found = values(model, "stage1_block2_relu", f"{block}_relu")
    y = relu(convolve_normalize(x, model, f"{block}_conv1", stride=2))
    y = convolve_normalize(y, model, f"{block}_conv2")
    y += convolve_normalize(x, model, f"{block}_shortcut", stride=2)
    assert_near(found, relu(y))


def test_resnet50_block_strides_in_3x3_convolution():
    model = network("resnet50")
    block = "stage2_block1"
    x, found = values(model, "stage1_block3_relu", f"{block}_relu")
    y = relu(convolve_normalize(x, model, f"{block}_conv1"))
    y = relu(convolve_normalize(y, model, f"{block}_conv2", stride=2))
    y = convolve_normalize(y, model, f"{block}_conv3")
    y += convolve_normalize(x, model, f"{block}_shortcut", stride=2)
    assert_near(found, relu(y))


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_pretrained_resnet50_with_other_classes(tmp_path):
    path = tmp_path / "pretrained.weights.h5"
    shape = (32, 32, 3)
    source = zoo.resnet50(shape, 5, "he_normal", affine=True)
    norms = {w.path for w in source.trainable_weights if "norm" in w.path}
    assert len(norms) == 2 * 53
    skipped = {w.path for w, _ in tf_gems.PruningReport(source).skipped}
    assert norms == skipped
    source.save_weights(path)
    model = zoo.resnet50(shape, 3, "zeros", affine=True)
    with warnings.catch_warnings(action="error"):
        assert tf_gems.load_pretrained(model, path) is model
    *trunk, classifier = model.weights
    for weight, expected in zip(trunk, source.weights, strict=False):
        np.testing.assert_array_equal(weight, expected)
    assert len(trunk) == len(source.weights) - 1
    assert classifier.shape == (2048, 3)
    np.testing.assert_array_equal(classifier, 0)
    other = zoo.resnet50(shape, 5, "zeros", affine=False)
    with pytest.raises(ValueError, match="(?i)layer"):
        tf_gems.load_pretrained(other, path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        tf_gems.load_pretrained(model, path)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("name", ["resnet20", "lenet_300_100"])
def test_pretrained_weights_of_any_network(name, suffix, tmp_path):
    path = tmp_path / f"pretrained{suffix}"
    source = getattr(zoo, name)((16, 16, 3), 5)
    save = source.save if suffix == ".keras" else source.save_weights
    save(path)
    model = tf_gems.load_pretrained(getattr(zoo, name)((16, 16, 3), 3), path)
    for weight, expected in zip(
        model.weights[:-1], source.weights[:-1], strict=True
    ):
        np.testing.assert_array_equal(weight, expected)
    assert model.output_shape == (None, 3)


def test_errors_state_the_rule():
    with pytest.raises(ValueError, match="above 0. Received: alpha=0"):
        zoo.mobilenet_v1(alpha=0)
    with pytest.raises(ValueError, match="Did you mean 'small'"):
        zoo.mobilenet_v2_sparse_ready(stem="smal")
    with pytest.raises(ValueError, match="at least 1.*Received: width=0"):
        zoo.resnet32(width=0)
    with pytest.raises(ValueError, match="Did you mean 'imagenet'"):
        zoo.resnet18(stem="image_net")
