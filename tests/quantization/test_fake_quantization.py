"""Compares fake quantization and its gradient with NumPy."""

import keras
import numpy as np
import pytest
from hypothesis import assume
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import ops

from tf_gems.quantization import fake_quantization as fq


def kernel_by_hand(w, axes):
    """Returns the integers and the scales of a kernel."""
    others = tuple(a for a in range(w.ndim) if a - w.ndim not in axes)
    scale = np.abs(w).max(others, keepdims=True) / 127
    return w / np.where(scale == 0, 1, scale), scale


KERNELS = {
    "dense": ((7, 5), (-1,)),
    "conv": ((3, 3, 4, 6), (-1,)),
    "conv1d": ((3, 4, 6), (-1,)),
    "depthwise": ((3, 3, 4, 2), (-2, -1)),
    "transposed": ((3, 3, 6, 4), (-2,)),
}


@pytest.mark.parametrize("kind", KERNELS)
def test_kernels_are_rounded_per_output_channel(kind):
    shape, axes = KERNELS[kind]
    w = np.random.default_rng(0).normal(size=shape).astype("float32")
    w[np.abs(w) < 0.3] = 0
    found = ops.convert_to_numpy(fq.quantize_kernel(w, axes))
    ratio, scale = kernel_by_hand(w.astype("float64"), axes)
    clear = np.abs(ratio - np.floor(ratio) - 0.5) > 1e-3  # There are no ties.
    expected = np.round(ratio) * scale
    np.testing.assert_allclose(found[clear], expected[clear], rtol=1e-5)
    assert (found[w == 0] == 0).all()
    integers = found / scale
    np.testing.assert_allclose(integers, np.round(integers), atol=1e-3)
    assert np.abs(np.round(integers)).max() == 127


def test_zero_channel_stays_zero():
    w = np.zeros((3, 2), "float32")
    w[:, 0] = [1.0, -2.0, 0.0]
    found = ops.convert_to_numpy(fq.quantize_kernel(w))
    np.testing.assert_allclose(found[1], [-2.0, 0.0], rtol=1e-5)
    assert (found[:, 1] == 0).all()


def test_rounding_commutes_with_folding_a_normalization():
    generator = np.random.default_rng(1)
    w = generator.normal(size=(3, 3, 4, 6)).astype("float32")
    factor = generator.normal(size=6).astype("float32")
    factor[2] *= -1
    inside = ops.convert_to_numpy(fq.quantize_kernel(w * factor))
    outside = ops.convert_to_numpy(fq.quantize_kernel(w)) * factor
    np.testing.assert_allclose(inside, outside, rtol=1e-4, atol=1e-6)


def activation_by_hand(x, low, high):
    x, low, high = (np.asarray(v, "float64") for v in (x, low, high))
    zero_point = np.round(-128 - low / ((high - low) / 255))
    needed = max(
        -low / max(zero_point + 128, 1), high / max(127 - zero_point, 1)
    )
    scale = min(needed, (high - low) / 254)
    q = x / scale + zero_point
    return (np.clip(np.round(q), -128, 127) - zero_point) * scale, scale, q


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.floats(-50, 0), st.floats(0.01, 50), st.integers(0, 99))
def test_activations_are_rounded_to_256_values(low, high, seed):
    half = -low / ((high - low) / 255) % 1 - 0.5
    assume(abs(half) > 1e-3)  # The zero point may round either way.
    generator = np.random.default_rng(seed)
    x = generator.uniform(2 * low - 1, 2 * high + 1, 50).astype("float32")
    found = ops.convert_to_numpy(fq.quantize_activation(x, low, high))
    expected, scale, q = activation_by_hand(x, low, high)
    clear = np.abs(q - np.floor(q) - 0.5) > 1e-2
    np.testing.assert_allclose(found[clear], expected[clear], atol=scale / 99)
    assert np.all(np.abs(found - np.clip(x, low, high)) < 1.6 * scale)
    zero = fq.quantize_activation(np.zeros(1, "float32"), low, high)
    assert float(zero[0]) == 0


def test_range_limits_are_kept():
    x = np.array([-1.0, 1.0], "float32")
    found = ops.convert_to_numpy(fq.quantize_activation(x, -1.0, 1.0))
    np.testing.assert_allclose(found, x, rtol=1e-6)


def gradient(function, x):
    variable = keras.Variable(x)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = ops.sum(function(ops.convert_to_tensor(variable)))
        return tape.gradient(loss, variable.value).numpy()
    import jax

    return np.asarray(jax.grad(lambda v: ops.sum(function(v)))(variable.value))


def test_gradients_pass_only_within_range():
    x = np.array([-3.0, -1.0, 0.3, 0.9, 1.1, 7.0], "float32")
    factors = np.arange(1.0, 7.0, dtype="float32")
    found = gradient(
        lambda v: factors * fq.quantize_activation(v, -1.0, 1.0), x
    )
    np.testing.assert_array_equal(found, factors * (np.abs(x) <= 1))


def test_gradients_of_kernels_pass_everywhere():
    w = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    factors = np.arange(15.0, dtype="float32").reshape(5, 3)
    found = gradient(lambda v: factors * fq.quantize_kernel(v), w)
    np.testing.assert_array_equal(found, factors)


def test_ranges_contain_zero_and_are_not_empty():
    for x, expected in (([1.0, 3.0], (0, 3)), ([-2.0, -1.0], (-2, 0))):
        low, high = map(float, fq.range_of(np.array(x, "float32")))
        assert (low, high) == pytest.approx(expected, abs=1e-5)
    low, high = map(float, fq.range_of(np.zeros(3, "float32")))
    assert low < high
