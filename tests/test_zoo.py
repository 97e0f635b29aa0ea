import math

import keras
import numpy as np
import pytest

import tf_gems
from tf_gems import zoo


def weights_of(model):
    return [math.prod(w.shape) for w in model.trainable_weights]


def test_resnet20_has_the_tensors_of_the_reference():
    sizes = weights_of(zoo.resnet20())
    assert sizes == (
        [432] + [2304] * 6 + [4608] + [9216] * 5 + [18432] + [36864] * 5 + [640]
    )
    assert sum(sizes) == 268_336


def test_lenet_and_conv4_sizes():
    assert sum(weights_of(zoo.lenet_300_100())) == 784 * 300 + 300 * 100 + 1000
    assert sum(weights_of(zoo.conv4())) == 2_425_024


@pytest.mark.parametrize("name", zoo.__all__)
def test_every_weight_is_a_prunable_kernel(name):
    model = getattr(zoo, name)()
    report = tf_gems.PruningReport(model)
    assert report.skipped == []
    assert len(report.prunable) == len(model.trainable_weights)


@pytest.mark.parametrize("name", zoo.__all__)
def test_config_round_trip_computes_the_same(name):
    model = getattr(zoo, name)(classes=7)
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
    expected = model.predict(images, verbose=0)
    assert expected.shape == (2, 7)
    np.testing.assert_array_equal(copy.predict(images, verbose=0), expected)


def test_resnet20_shortcut_subsamples_and_pads_channels():
    model = zoo.resnet20()
    add = model.get_layer("stage2_block1_add")
    shortcut = keras.Model(model.input, add.input[0])
    before = keras.Model(
        model.input, model.get_layer("stage1_block3_relu2").output
    )
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
    x = before.predict(images, verbose=0)
    expected = np.pad(x[:, ::2, ::2], [(0, 0)] * 3 + [(8, 8)])
    np.testing.assert_array_equal(shortcut.predict(images, verbose=0), expected)


def test_resnet20_strided_convolution_pads_one_pixel_on_each_side():
    model = zoo.resnet20()
    convolution = model.get_layer("stage2_block1_conv1")
    # A kernel that picks its centre sees pixels 0, 2, 4, ... of each row.
    kernel = np.zeros(convolution.kernel.shape, "float32")
    kernel[1, 1, 0, 0] = 1.0
    convolution.kernel.assign(kernel)
    before = model.get_layer("stage1_block3_relu2").output
    pair = keras.Model(model.input, [before, convolution.output])
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3))
    x, y = pair.predict(images, verbose=0)
    np.testing.assert_allclose(y[..., 0], x[:, ::2, ::2, 0], atol=1e-6)
