"""VGG-16 for 32x32 images, with normalization and one dense layer."""

import keras
from keras import layers

from tf_gems.zoo._arguments import checked
from tf_gems.zoo._blocks import Blocks

_FILTERS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)


@checked
def vgg16(
    input_shape=(32, 32, 3),
    classes=10,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
):
    """Returns VGG-16 with 14,715,584 weights on CIFAR-10.

    It has five groups of 3x3 convolutions: two with 64 filters, two with 128,
    three with 256 and twice three with 512. Each convolution is followed by
    `BatchNormalization` without scale and offset and by ReLU, and each group
    by 2x2 max pooling. The last feature maps, one pixel for a 32x32 image, are
    averaged and classified. There are no biases and no dropout.

    Args:
        input_shape: Tuple of integers, without the batch; images of 32 pixels
            or more.
        classes: Integer, number of logits.
        kernel_initializer: Keras initializer. Defaults to `"he_normal"`.
        kernel_regularizer: Keras regularizer. Defaults to `None`.

    Returns:
        `keras.Model` from float32 images to logits.

    Example:

    >>> sum(int(np.prod(w.shape)) for w in vgg16().trainable_weights)
    14715584

    Reference: Simonyan & Zisserman, 2015, "Very Deep Convolutional Networks
    for Large-Scale Image Recognition", table 1, column D.
    """
    blocks = Blocks(kernel_initializer, kernel_regularizer)
    x = inputs = keras.Input(input_shape, name="image")
    for group, convolutions in enumerate(_FILTERS, 1):
        for index, filters in enumerate(convolutions, 1):
            x = blocks.convolution_norm_relu(
                x, filters, 3, name=f"block{group}_conv{index}"
            )
        x = layers.MaxPooling2D(name=f"block{group}_pool")(x)
    return blocks.model(inputs, x, classes, "vgg16")
