"""LeNet-300-100: the fully connected network of the first tickets."""

import keras
from keras import layers

from tf_gems.zoo._arguments import checked
from tf_gems.zoo._blocks import Blocks


@checked
def lenet_300_100(
    input_shape=(28, 28, 1),
    classes=10,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
):
    """Returns LeNet-300-100 with normalization, 266,200 weights on MNIST.

    It has three dense layers without biases. The hidden layers are followed by
    non-affine `BatchNormalization` and ReLU.

    Args:
        input_shape: Tuple of integers, without the batch.
        classes: Integer, number of logits.
        kernel_initializer: Keras initializer. Defaults to `"he_normal"`.
        kernel_regularizer: Keras regularizer. Defaults to `None`.

    Returns:
        `keras.Model` from float32 images to logits.

    Example:

    >>> model = lenet_300_100()
    >>> sum(layer.kernel.shape[0] * layer.kernel.shape[1]
    ...     for layer in model.layers if hasattr(layer, "kernel"))
    266200

    Reference: LeCun et al., 1998, "Gradient-Based Learning Applied to
    Document Recognition"; Frankle & Carbin, 2019, "The Lottery Ticket
    Hypothesis", table 1.
    """
    blocks = Blocks(kernel_initializer, kernel_regularizer)
    inputs = keras.Input(input_shape, name="image")
    x = layers.Flatten(name="flatten")(inputs)
    for index, units in enumerate((300, 100), 1):
        x = blocks.dense(x, units, name=f"dense{index}")
        x = blocks.norm(x, f"norm{index}")
        x = layers.ReLU(name=f"relu{index}")(x)
    outputs = blocks.dense(x, classes, name="classifier")
    return keras.Model(inputs, outputs, name="lenet_300_100")
