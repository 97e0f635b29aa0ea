"""MobileNetV2 for images of any size, whose zeros save time."""

import keras
from keras import layers

from tf_gems.zoo._arguments import checked
from tf_gems.zoo._blocks import Blocks
from tf_gems.zoo._stems import strides_of

# Expansion, filters, blocks, stride of each stage.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@checked
def mobilenet_v2_sparse_ready(
    input_shape=(224, 224, 3),
    classes=1000,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
    alpha=1.0,
    stem="imagenet",
    affine=False,
):
    """Returns MobileNetV2 with 3,469,760 weights for 1,000 classes.

    The network of the paper and of `keras.applications.MobileNetV2`: ReLU6,
    no expansion in the first block, shortcuts where the shape stays. Unlike
    `tf_gems.zoo.mobilenet_v2`, the authors' network for 32x32 images, it is
    laid out so that the zeros of its 1x1 convolutions save time under
    XNNPACK; see `tf_gems.zoo.mobilenet_v1` for the rules, for when the gain
    begins, and for the stems.

    Args:
        input_shape: Tuple of integers, without the batch. XNNPACK's stem
            reads three channels.
        classes: Integer, number of logits.
        kernel_initializer: Keras initializer. Defaults to `"he_normal"`.
        kernel_regularizer: Keras regularizer. Defaults to `None`.
        alpha: Float that multiplies the filters of every layer; they are
            rounded to multiples of eight, as in `keras.applications`. Above
            1, the last 1x1 convolution grows too. Defaults to `1.0`.
        stem: `"imagenet"`, `"small"` or `"cifar"`. Defaults to `"imagenet"`.
        affine: Whether the normalization learns a scale and an offset, which
            are not pruned. Defaults to `False`.

    Returns:
        `keras.Model` from float32 images to logits.

    Raises:
        ValueError: If there is no such stem, or `alpha` is not positive.

    Example:

    >>> model = mobilenet_v2_sparse_ready((64, 64, 3), 20, stem="small")
    >>> model.get_layer("head_relu").output.shape
    (None, 8, 8, 1280)

    Reference: Sandler et al., 2018, "MobileNetV2: Inverted Residuals and
    Linear Bottlenecks", table 2.
    """
    stem_stride, strides = strides_of(stem, [s for *_, s in _STAGES])
    blocks = Blocks(kernel_initializer, kernel_regularizer, affine, 6.0)
    inputs = keras.Input(input_shape, name="image")
    x = blocks.convolution_norm_relu(
        inputs, _filters(32, alpha), 3, stem_stride, name="stem"
    )
    for stage, stride in enumerate(strides, 1):
        expansion, filters, depth, _ = _STAGES[stage - 1]
        for index in range(1, depth + 1):
            x = _inverted_residual(
                blocks,
                x,
                expansion,
                _filters(filters, alpha),
                stride if index == 1 else 1,
                f"stage{stage}_block{index}",
            )
    x = blocks.convolution_norm_relu(
        x, _filters(1280, max(1.0, alpha)), 1, name="head"
    )
    return blocks.model(inputs, x, classes, "mobilenet_v2_sparse_ready")


def _inverted_residual(blocks, x, expansion, filters, stride, name):
    channels = x.shape[-1]
    y = x
    if expansion > 1:
        y = blocks.convolution_norm_relu(
            y, expansion * channels, 1, name=f"{name}_expand"
        )
    y = blocks.depthwise_norm_relu(y, 3, stride, name=f"{name}_depthwise")
    y = blocks.convolution_norm(y, filters, 1, name=f"{name}_project")
    if stride > 1 or channels != filters:
        return y
    return layers.Add(name=f"{name}_add")([x, y])


def _filters(count, alpha):
    """Returns a multiple of 8 near `count * alpha`, not 10 % below it."""
    rounded = max(8, int(count * alpha + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * count * alpha else rounded
