"""MobileNetV2 for 32x32 images, as in the authors' code."""

import keras
from keras import layers

from tf_gems.zoo._arguments import checked
from tf_gems.zoo._blocks import Blocks

# Expansion, filters, blocks, stride of each stage.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@checked
def mobilenet_v2(
    input_shape=(32, 32, 3),
    classes=10,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
):
    """Returns MobileNetV2 with 2,261,824 weights on CIFAR-10.

    Seventeen inverted residuals: a 1x1 convolution that expands the channels,
    a 3x3 convolution of each channel by itself, and a 1x1 convolution without
    ReLU. No biases; `BatchNormalization` without scale and offset.

    It differs from the network for ImageNet: the stem and the second stage
    have stride 1; ReLU is not capped at 6; the first block expands too, by
    one; and every block of stride 1 has a shortcut, which is a 1x1
    convolution and normalization where the number of channels changes.

    Keras' initializers count all channels in the fan-in of a depthwise kernel,
    so these begin smaller than He's; `tf_gems.SparseModel` counts one channel
    in those it draws.

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
    for stage, (expansion, filters, depth, stride) in enumerate(_STAGES, 1):
        for index in range(1, depth + 1):
            x = _inverted_residual(
                blocks,
                x,
                expansion,
                filters,
                stride if index == 1 else 1,
                f"stage{stage}_block{index}",
            )
    x = blocks.convolution_norm_relu(x, 1280, 1, name="head")
    return blocks.model(inputs, x, classes, "mobilenet_v2")


def _inverted_residual(blocks, x, expansion, filters, stride, name):
    channels = x.shape[-1]
    y = blocks.convolution_norm_relu(
        x, expansion * channels, 1, name=f"{name}_expand"
    )
    y = blocks.depthwise_norm_relu(y, 3, stride, name=f"{name}_depthwise")
    y = blocks.convolution_norm(y, filters, 1, name=f"{name}_project")
    if stride > 1:
        return y
    if channels != filters:
        x = blocks.convolution_norm(x, filters, 1, name=f"{name}_shortcut")
    return layers.Add(name=f"{name}_add")([x, y])
