"""Fake quantization: floats that take the values of 8-bit integers only.

An integer `q` stands for the float `scale * (q - zero_point)` (Jacob et al.,
2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", equation 1). Fake quantization rounds to
the nearest of these floats (equation 12):

    q = round(clip(x, low, high) / scale + zero_point)
    fq(x) = scale * (q - zero_point)

Rounding has the derivative zero almost everywhere. It is replaced by the
straight-through estimate: the gradient passes where `low <= x <= high`, and is
zero where `x` is clipped (Krishnamoorthi, 2018, "Quantizing deep convolutional
networks for efficient inference", section 2.4).

Both are computed by `keras.quantizers.fake_quant_with_min_max_vars`, which
calls the operator that TensorFlow's converter knows.
"""

import contextlib
import math

import keras
from keras import ops

# LiteRT's range of softmax and sigmoid is [0, 1), of tanh [-1, 1): 256 steps.
UNIT = (0.0, 255 / 256)
SYMMETRIC_UNIT = (-1.0, 127 / 128)
# A range is never empty: a tensor of zeros would have a scale of zero.
_SMALLEST = 1e-6
# Whether constant operands are left as they are, see `exact_constants`.
_exact = False


def quantize_kernel(kernel, axes=(-1,)):
    """Fake-quantizes a kernel per output channel, symmetrically.

    For each output channel `c`, with 8-bit integers `q` in [-127, 127]:

        scale[c] = max(abs(w[..., c])) / 127
        fq(w)[..., c] = scale[c] * round(w[..., c] / scale[c])

    Zeros stay exactly zero, because the zero point is zero. Nothing is
    clipped, so the gradient is that of the identity.

    A normalization that follows a convolution multiplies its kernel by one
    factor `a[c]` for each output channel when it is folded into it. The scales
    are multiplied by `abs(a[c])` and the integers change at most their sign,
    so that quantizing and folding give the same in either order:
    `fq(a * w) = a * fq(w)`.

    Args:
        kernel: Float32 tensor.
        axes: Tuple of integers, the axes of the output channels, next to each
            other. Defaults to the last; `(-2, -1)` for depthwise kernels.

    Returns:
        Float32 tensor of the same shape.

    Example:

    >>> kernel = keras.ops.convert_to_tensor([[0.0, 1.4], [0.5, 127.0]])
    >>> quantize_kernel(kernel).numpy().round(2).tolist()
    [[0.0, 1.0], [0.5, 127.0]]
    """
    kernel = ops.convert_to_tensor(kernel)
    rank = len(kernel.shape)
    order = [a for a in range(rank) if a - rank not in axes]
    order += [a + rank for a in axes]
    moved = ops.transpose(kernel, order)
    rows = ops.reshape(moved, (-1, math.prod(moved.shape[rank - len(axes) :])))
    # Rounding must not put the largest weight outside of its own range.
    bound = ops.max(ops.abs(rows), axis=0) * (1 + _SMALLEST)
    bound = ops.stop_gradient(ops.maximum(bound, _SMALLEST**2))
    rows = keras.quantizers.fake_quant_with_min_max_vars(
        rows, -bound, bound, num_bits=8, narrow_range=True, axis=-1
    )
    rows = ops.reshape(rows, moved.shape)
    return ops.transpose(rows, [order.index(a) for a in range(rank)])


def quantize_activation(x, low, high, ties_away=False):
    """Fake-quantizes a tensor with one range, asymmetrically.

    With 8-bit integers `q` in [-128, 127], of which one stands for zero, so
    that padding is exact:

        zero_point = round(-128 - low / ((high - low) / 255))
        needed = max(-low / (zero_point + 128), high / (127 - zero_point))
        scale = min(needed, (high - low) / 254)

    Rounding the zero point moves the range by up to half a step. `needed` is
    the smallest scale with which it still contains `low` and `high`. It is
    taken where it costs one of the 255 steps at most. Otherwise the lowest
    value of a range such as [-1, 1], often that of most pixels, would lie
    half-way between two steps.

    Args:
        x: Float32 tensor.
        low: Float or float32 scalar tensor, at most 0.
        high: Float or float32 scalar tensor, at least 0.
        ties_away: Whether a value half-way between two integers is rounded
            away from the integer zero, as LiteRT does in average pooling,
            where this is frequent. Defaults to `False`: up.

    Returns:
        Float32 tensor of the same shape.

    Example:

    >>> x = keras.ops.convert_to_tensor([-9.0, 0.0, 1.4, 300.0])
    >>> quantize_activation(x, 0.0, 255.0).numpy().tolist()
    [0.0, 0.0, 1.0, 255.0]
    """
    low = ops.convert_to_tensor(low, "float32")
    high = ops.convert_to_tensor(high, "float32")
    low, high = nudged(low, high)
    if ties_away:
        scale = (high - low) / 255
        x = x + 1e-3 * scale * ops.sign(x - (low + 128 * scale))
    return keras.quantizers.fake_quant_with_min_max_vars(x, low, high)


def nudged(low, high):
    """Returns the range that is rounded to, see `quantize_activation`.

    Args:
        low: Float32 scalar array or tensor, at most 0.
        high: Float32 scalar array or tensor, at least 0, and larger.

    Returns:
        `(low, high)`, of which zero is one of 256 equidistant values.
    """
    below = ops.round(-low / ((high - low) / 255))  # steps below zero
    above = 255 - below
    needed = ops.maximum(
        -low / ops.maximum(below, 1), high / ops.maximum(above, 1)
    )
    scale = ops.minimum(needed, (high - low) / 254)
    return -below * scale, above * scale


def quantize_constant(value):
    """Fake-quantizes a constant operand with the range of its values.

    Args:
        value: Float, array, tensor or `keras.Variable`.

    Returns:
        Float32 tensor of the same shape.
    """
    value = ops.convert_to_tensor(value, "float32")
    if _exact:
        return value
    return quantize_activation(value, *range_of(value))


@contextlib.contextmanager
def exact_constants():
    """Leaves constant operands as they are within the block."""
    global _exact
    before, _exact = _exact, True
    try:
        yield
    finally:
        _exact = before


def range_of(x):
    """Returns the smallest range with zero and all values of a tensor.

    Args:
        x: Float32 tensor.

    Returns:
        `(low, high)`, float32 scalar tensors.
    """
    low = ops.minimum(ops.min(x), 0.0)
    high = ops.maximum(ops.max(x), 0.0)
    high = ops.maximum(high, low + _SMALLEST)
    return ops.stop_gradient(low), ops.stop_gradient(high)
