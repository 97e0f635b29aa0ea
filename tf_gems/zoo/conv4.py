"""Conv-4: a small VGG without normalization."""

import keras
from keras import layers

from tf_gems.zoo._arguments import checked
from tf_gems.zoo._blocks import Blocks


@checked
def conv4(
    input_shape=(32, 32, 3),
    classes=10,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
):
    """Returns Conv-4, with 2,425,024 weights on CIFAR-10.

    It has two pairs of 3x3 convolutions with 64 and 128 filters, each pair
    followed by 2x2 max pooling, and then dense layers with 256, 256 and
    `classes` units. The activation is ReLU, without biases and normalization.

    Args:
        input_shape: Tuple of integers, without the batch.
        classes: Integer, number of logits.
        kernel_initializer: Keras initializer. Defaults to `"he_normal"`.
        kernel_regularizer: Keras regularizer. Defaults to `None`.

    Returns:
        `keras.Model` from float32 images to logits.

    Example:

    >>> conv4().count_params()
    2425024

    Reference: Frankle & Carbin, 2019, "The Lottery Ticket Hypothesis",
    figure 2; Ramanujan et al., 2020, table 1.
    """
    blocks = Blocks(kernel_initializer, kernel_regularizer)
    x = inputs = keras.Input(input_shape, name="image")
    for block, filters in enumerate((64, 128), 1):
        for index in (1, 2):
            name = f"block{block}_conv{index}"
            x = blocks.convolution(x, filters, 3, activation="relu", name=name)
        x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for index in (1, 2):
        x = blocks.dense(x, 256, "relu", name=f"dense{index}")
    outputs = blocks.dense(x, classes, name="classifier")
    return keras.Model(inputs, outputs, name="conv4")
