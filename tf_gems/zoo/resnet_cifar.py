"""ResNet-20 and ResNet-32 for 32x32 images, as in the authors' code."""

import keras
from keras import layers
from keras import ops

from tf_gems.zoo._arguments import checked
from tf_gems.zoo._blocks import Blocks


@checked
def resnet20(
    input_shape=(32, 32, 3),
    classes=10,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
):
    """Returns ResNet-20 with 268,336 weights on CIFAR-10.

    It has a 3x3 stem with 16 filters, three stages of three basic blocks with
    16, 32 and 64 filters, global average pooling, and a classifier. There are
    no biases, and `BatchNormalization` has no scale and offset. The first
    block of stages two and three has stride 2, padded by one pixel on each
    side. Shortcuts have no weights (option A): if the shape changes, every
    second pixel is used, and the new channels, which are zeros, are added in
    equal parts on both sides.

    Args:
        input_shape: Tuple of integers, without the batch.
        classes: Integer, number of logits.
        kernel_initializer: Keras initializer. Defaults to `"he_normal"`.
        kernel_regularizer: Keras regularizer. Defaults to `None`.

    Returns:
        `keras.Model` from float32 images to logits.

    Example:

    >>> sum(int(np.prod(w.shape)) for w in resnet20().trainable_weights)
    268336

    Reference: He et al., 2016, "Deep Residual Learning for Image
    Recognition", section 4.2.
    """
    blocks = Blocks(kernel_initializer, kernel_regularizer)
    return _resnet("resnet20", blocks, input_shape, classes, depth=3, width=1)


@checked
def resnet32(
    input_shape=(32, 32, 3),
    classes=10,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
    width=1,
):
    """Returns ResNet-32 with 461,872 weights on CIFAR-10.

    It is like `resnet20`, with five blocks in each stage. On CIFAR-100 it has
    467,632 weights, and 1,856,864 with double width, which the paper prunes.

    Args:
        input_shape: Tuple of integers, without the batch.
        classes: Integer, number of logits.
        kernel_initializer: Keras initializer. Defaults to `"he_normal"`.
        kernel_regularizer: Keras regularizer. Defaults to `None`.
        width: Integer by which the number of filters of all convolutions is
            multiplied. Defaults to `1`.

    Returns:
        `keras.Model` from float32 images to logits.

    Raises:
        ValueError: If `width` is not a positive integer.

    Example:

    >>> model = resnet32(classes=100, width=2)
    >>> sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    1856864

    Reference: He et al., 2016, "Deep Residual Learning for Image
    Recognition", section 4.2; of double width: Su et al., 2020,
    "Sanity-Checking Pruning Methods".
    """
    blocks = Blocks(kernel_initializer, kernel_regularizer)
    return _resnet("resnet32", blocks, input_shape, classes, 5, width)


def _resnet(name, blocks, input_shape, classes, depth, width):
    inputs = keras.Input(input_shape, name="image")
    x = blocks.convolution_norm_relu(inputs, 16 * width, 3, name="stem")
    filters = [n * width for n in (16, 32, 64)]
    x = blocks.stages(x, _basic_block, filters, [depth] * 3)
    return blocks.model(inputs, x, classes, name)


def _basic_block(blocks, x, filters, stride, name):
    y = blocks.convolution_norm(x, filters, 3, stride, name=f"{name}_conv1")
    y = layers.ReLU(name=f"{name}_relu1")(y)
    y = blocks.convolution_norm(y, filters, 3, name=f"{name}_conv2")
    if stride > 1:
        x = layers.AveragePooling2D(1, stride, name=f"{name}_subsample")(x)
        missing = (filters - x.shape[-1]) // 2
        x = ops.pad(x, [(0, 0), (0, 0), (0, 0), (missing, missing)])
    y = layers.Add(name=f"{name}_add")([x, y])
    return layers.ReLU(name=f"{name}_relu2")(y)
