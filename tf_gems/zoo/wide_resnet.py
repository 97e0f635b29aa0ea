"""Wide ResNet for 32x32 images, as in the authors' code."""

import keras
from keras import layers

from tf_gems.zoo._arguments import checked
from tf_gems.zoo._blocks import Blocks


@checked
def wide_resnet28_2(
    input_shape=(32, 32, 3),
    classes=10,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
):
    """Returns WRN-28-2 with 1,463,984 weights on CIFAR-10.

    It has a 3x3 stem with 16 filters, three stages of four blocks with 32, 64
    and 128 filters, normalization and ReLU, global average pooling, and a
    classifier. In a block, normalization and ReLU precede each of two 3x3
    convolutions, `y = conv2(relu(norm2(conv1(a))))` with `a = relu(norm1(x))`.
    A block returns `x + y`. If the number of channels changes, in the first
    block of every stage, it returns `shortcut(a) + y`, where the shortcut is a
    1x1 convolution without normalization. The first block of stages two and
    three has stride 2. There are no biases and no dropout, and
    `BatchNormalization` has no scale and offset.

    Args:
        input_shape: Tuple of integers, without the batch.
        classes: Integer, number of logits.
        kernel_initializer: Keras initializer. Defaults to `"he_normal"`.
        kernel_regularizer: Keras regularizer. Defaults to `None`.

    Returns:
        `keras.Model` from float32 images to logits.

    Example:

    >>> sum(int(np.prod(w.shape)) for w in wide_resnet28_2().trainable_weights)
    1463984

    Reference: Zagoruyko & Komodakis, 2016, "Wide Residual Networks".
    """
    blocks = Blocks(kernel_initializer, kernel_regularizer)
    inputs = keras.Input(input_shape, name="image")
    x = blocks.convolution(inputs, 16, 3, name="stem")
    x = blocks.stages(x, _preactivation_block, (32, 64, 128), (4, 4, 4))
    x = blocks.norm(x, "head_norm")
    x = layers.ReLU(name="head_relu")(x)
    return blocks.model(inputs, x, classes, "wide_resnet28_2")


def _preactivation_block(blocks, x, filters, stride, name):
    activated = blocks.norm(x, f"{name}_norm1")
    activated = layers.ReLU(name=f"{name}_relu1")(activated)
    y = blocks.convolution(activated, filters, 3, stride, name=f"{name}_conv1")
    y = blocks.norm(y, f"{name}_norm2")
    y = layers.ReLU(name=f"{name}_relu2")(y)
    y = blocks.convolution(y, filters, 3, name=f"{name}_conv2")
    if x.shape[-1] != filters:
        x = blocks.convolution(
            activated, filters, 1, stride, name=f"{name}_shortcut"
        )
    return layers.Add(name=f"{name}_add")([x, y])
