"""MobileNetV2: the authors' network for 32x32 images, and that for ImageNet."""

import keras
from keras import layers

from tf_gems.zoo._arguments import checked
from tf_gems.zoo._blocks import Blocks
from tf_gems.zoo._blocks import strides_of

# Expansion, filters and blocks of each stage, and its stride for ImageNet.
_STAGES = (
    (1, 16, 1),
    (6, 24, 2),
    (6, 32, 3),
    (6, 64, 4),
    (6, 96, 3),
    (6, 160, 3),
    (6, 320, 1),
)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)


@checked
def mobilenet_v2(
    input_shape=(32, 32, 3),
    classes=10,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
):
    """Returns MobileNetV2 with 2,261,824 weights on CIFAR-10.

    It has seventeen inverted residuals: a 1x1 convolution that expands the
    channels, a 3x3 depthwise convolution, and a 1x1 convolution without ReLU.
    There are no biases, and `BatchNormalization` has no scale and offset.

    It differs from the network for ImageNet: the stem and the second stage
    have stride 1; ReLU is not limited to 6; the first block has an expansion
    too, by one; and every block with stride 1 has a shortcut, which is a 1x1
    convolution and normalization if the number of channels changes.

    The initializers of Keras count all channels in the fan-in of a depthwise
    kernel, so their values are smaller than He's. `tf_gems.SparseModel` counts
    one channel when it initializes kernels.

    Args:
        input_shape: Tuple of integers, without the batch.
        classes: Integer, number of logits.
        kernel_initializer: Keras initializer. Defaults to `"he_normal"`.
        kernel_regularizer: Keras regularizer. Defaults to `None`.

    Returns:
        `keras.Model` from float32 images to logits.

    Example:

    >>> sum(int(np.prod(w.shape)) for w in mobilenet_v2().trainable_weights)
    2261824

    Reference: Sandler et al., 2018, "MobileNetV2: Inverted Residuals and
    Linear Bottlenecks".
    """
    blocks = Blocks(kernel_initializer, kernel_regularizer)
    inputs = keras.Input(input_shape, name="image")
    x = blocks.convolution_norm_relu(inputs, 32, 3, name="stem")
    strides = (1, 1, *_STRIDES[2:])
    x = _inverted_residuals(blocks, x, strides, 1.0, _with_shortcuts)
    x = blocks.convolution_norm_relu(x, 1280, 1, name="head")
    return blocks.model(inputs, x, classes, "mobilenet_v2")


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

    This is the network of the paper and of `keras.applications.MobileNetV2`:
    ReLU6, no expansion in the first block, and shortcuts if the shape does not
    change. Unlike `tf_gems.zoo.mobilenet_v2`, the authors' network for 32x32
    images, it is designed so that the zeros of its 1x1 convolutions save time
    with XNNPACK. See `tf_gems.zoo.mobilenet_v1` for the requirements and for
    the stems.

    Args:
        input_shape: Tuple of integers, without the batch. XNNPACK's stem
            reads three channels.
        classes: Integer, number of logits.
        kernel_initializer: Keras initializer. Defaults to `"he_normal"`.
        kernel_regularizer: Keras regularizer. Defaults to `None`.
        alpha: Float by which the number of filters of every layer is
            multiplied. It is rounded to multiples of eight, as in
            `keras.applications`. Above 1, the last 1x1 convolution grows too.
            Defaults to `1.0`.
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
    stem_stride, strides = strides_of(stem, _STRIDES)
    blocks = Blocks(kernel_initializer, kernel_regularizer, affine, 6.0)
    inputs = keras.Input(input_shape, name="image")
    x = blocks.convolution_norm_relu(
        inputs, _filters(32, alpha), 3, stem_stride, name="stem"
    )
    x = _inverted_residuals(blocks, x, strides, alpha, _as_in_the_paper)
    x = blocks.convolution_norm_relu(
        x, _filters(1280, max(1.0, alpha)), 1, name="head"
    )
    return blocks.model(inputs, x, classes, "mobilenet_v2_sparse_ready")


def _inverted_residuals(blocks, x, strides, alpha, block):
    for stage, stride in enumerate(strides, 1):
        expansion, filters, depth = _STAGES[stage - 1]
        for index in range(1, depth + 1):
            x = block(
                blocks,
                x,
                expansion,
                _filters(filters, alpha),
                stride if index == 1 else 1,
                f"stage{stage}_block{index}",
            )
    return x


def _with_shortcuts(blocks, x, expansion, filters, stride, name):
    """Returns a block that has a shortcut wherever its stride is 1."""
    channels = x.shape[-1]
    y = _expand(blocks, x, expansion, name)
    y = _project(blocks, y, filters, stride, name)
    if stride > 1:
        return y
    if channels != filters:
        x = blocks.convolution_norm(x, filters, 1, name=f"{name}_shortcut")
    return layers.Add(name=f"{name}_add")([x, y])


def _as_in_the_paper(blocks, x, expansion, filters, stride, name):
    y = _expand(blocks, x, expansion, name) if expansion > 1 else x
    y = _project(blocks, y, filters, stride, name)
    if stride > 1 or x.shape[-1] != filters:
        return y
    return layers.Add(name=f"{name}_add")([x, y])


def _expand(blocks, x, expansion, name):
    filters = expansion * x.shape[-1]
    return blocks.convolution_norm_relu(x, filters, 1, name=f"{name}_expand")


def _project(blocks, x, filters, stride, name):
    x = blocks.depthwise_norm_relu(x, stride, name=f"{name}_depthwise")
    return blocks.convolution_norm(x, filters, 1, name=f"{name}_project")


def _filters(count, alpha):
    """Returns a multiple of 8 near `count * alpha`, not 10 % below it."""
    rounded = max(8, int(count * alpha + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * count * alpha else rounded
