import keras
import numpy as np
import pytest
from keras import ops

from tf_gems.initializers import SignedConstant
from tf_gems.initializers import reseed


def draw(initializer, shape, **kwargs):
    return ops.convert_to_numpy(initializer(shape, **kwargs))


@pytest.mark.parametrize(
    "shape, magnitude",
    [  # The authors' ResNet-20.
        ((3, 3, 3, 16), 0.2722),
        ((3, 3, 16, 16), 0.1179),
        ((3, 3, 32, 32), 0.0833),
        ((3, 3, 64, 64), 0.0589),
        ((64, 10), 0.1768),
    ],
)
def test_one_magnitude_per_layer(shape, magnitude):
    kernel = draw(SignedConstant(seed=1), shape)
    assert np.unique(np.abs(kernel)).size == 1
    np.testing.assert_allclose(np.abs(kernel).max(), magnitude, atol=5e-5)
    positive = (kernel > 0).mean()
    assert abs(positive - 0.5) < 4 * 0.5 / np.sqrt(kernel.size)


def test_gain_and_dtype_and_vectors():
    kernel = draw(SignedConstant(gain=3.0, seed=1), (9,), dtype="float16")
    assert kernel.dtype == np.float16
    np.testing.assert_array_equal(np.abs(kernel), 1.0)


def test_seeds():
    shape = (20, 20)
    first = draw(SignedConstant(seed=5), shape)
    np.testing.assert_array_equal(first, draw(SignedConstant(seed=5), shape))
    assert (first != draw(SignedConstant(seed=6), shape)).any()
    keras.utils.set_random_seed(3)
    free = SignedConstant()
    unseeded = [draw(free, shape) for _ in range(2)]
    assert (unseeded[0] != unseeded[1]).any()
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(unseeded[0], draw(free, shape))


def test_config_round_trip():
    initializer = SignedConstant(gain=2.5, seed=7)
    config = keras.initializers.serialize(initializer)
    copy = keras.initializers.deserialize(config)
    assert copy.get_config() == {"gain": 2.5, "seed": 7}


def test_reseed_gives_each_weight_different_values():
    uniform = keras.initializers.RandomUniform(0.0, 1.0)
    values = [draw(reseed(uniform, 9, i), (50,)) for i in range(3)]
    assert (values[0] != values[1]).any()
    assert (values[1] != values[2]).any()
    np.testing.assert_array_equal(values[1], draw(reseed(uniform, 9, 1), (50,)))
    assert (values[1] != draw(reseed(uniform, 8, 1), (50,))).any()
    assert uniform.get_config()["seed"] != reseed(uniform, 9, 1).seed


def test_reseed_ignores_initializers_without_seed():
    ones = keras.initializers.Ones()
    assert reseed(ones, 1, 2) is ones
