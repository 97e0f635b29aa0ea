"""ResNet-18 and ResNet-50, laid out as torchvision does."""

import keras
from keras import layers

from tf_gems.validation import check_choice
from tf_gems.zoo._arguments import checked
from tf_gems.zoo._blocks import Blocks

_FILTERS = (64, 128, 256, 512)


@checked
def resnet18(
    input_shape=(64, 64, 3),
    classes=200,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
    stem="imagenet",
):
    """Returns ResNet-18 with 11,269,312 weights on Tiny ImageNet.

    It has a stem, four stages of two basic blocks with 64, 128, 256 and 512
    filters, global average pooling, and a classifier. There are no biases, and
    `BatchNormalization` has no scale and offset. The first block of stages two
    to four has stride 2, and a shortcut with a 1x1 convolution and
    normalization.

    The authors' code does not prune these three convolutions, which have
    172,032 weights. Here they are pruned and counted like all others.

    Args:
        input_shape: Tuple of integers, without the batch.
        classes: Integer, number of logits.
        kernel_initializer: Keras initializer. Defaults to `"he_normal"`.
        kernel_regularizer: Keras regularizer. Defaults to `None`.
        stem: `"imagenet"`, a 7x7 convolution and 3x3 max pooling, each of
            stride 2; or `"cifar"`, a 3x3 convolution of stride 1, with which
            the network has 11,164,352 weights on CIFAR-10. Defaults to
            `"imagenet"`.

    Returns:
        `keras.Model` from float32 images to logits.

    Raises:
        ValueError: If there is no such stem.

    Example:

    >>> model = resnet18((32, 32, 3), 10, stem="cifar")
    >>> sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    11164352

    Reference: He et al., 2016, "Deep Residual Learning for Image
    Recognition", table 1.
    """
    check_choice(stem, "stem", ("imagenet", "cifar"))
    blocks = Blocks(kernel_initializer, kernel_regularizer)
    inputs = keras.Input(input_shape, name="image")
    if stem == "imagenet":
        x = _imagenet_stem(blocks, inputs)
    else:
        x = blocks.convolution_norm_relu(inputs, 64, 3, name="stem")
    x = blocks.stages(x, _basic_block, _FILTERS, (2, 2, 2, 2))
    return blocks.model(inputs, x, classes, "resnet18")


@checked
def resnet50(
    input_shape=(64, 64, 3),
    classes=1000,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
    affine=False,
):
    """Returns ResNet-50, with 25,502,912 weights for 1,000 classes.

    It has a stem with a 7x7 convolution and 3x3 max pooling, each with stride
    2, four stages of 3, 4, 6 and 3 bottleneck blocks with 256, 512, 1024 and
    2048 output filters, global average pooling, and a classifier. There are no
    biases. The first block of stages two to four has stride 2 in its 3x3
    convolution. The first block of every stage has a shortcut with a 1x1
    convolution and normalization.

    The authors use 1,000 logits for the 200 classes of Tiny ImageNet. Their
    code does not prune the four shortcuts, which have 2,768,896 weights. Here
    they are pruned and counted like all others.

    The weights of `keras.applications.ResNet50` cannot be loaded, because its
    convolutions have biases, and its strides are in the first 1x1 convolution
    of a block. `tf_gems.SparseModel` prunes that network directly. The weights
    of torchvision can be loaded into an affine network, except the bias of the
    classifier, with kernels transposed to (height, width, inputs, outputs).

    Args:
        input_shape: Tuple of integers, without the batch.
        classes: Integer, number of logits.
        kernel_initializer: Keras initializer. Defaults to `"he_normal"`.
        kernel_regularizer: Keras regularizer. Defaults to `None`.
        affine: Whether the normalization learns a scale and an offset, which
            are not pruned; the authors do so on Caltech-101 only. Defaults to
            `False`.

    Returns:
        `keras.Model` from float32 images to logits.

    Example:

    ```python
    caltech = tf_gems.zoo.resnet50((224, 224, 3), 101, affine=True)
    tf_gems.load_pretrained(caltech, "imagenet.weights.h5")
    ```

    Reference: He et al., 2016, "Deep Residual Learning for Image
    Recognition", table 1; Goyal et al., 2017, "Accurate, Large Minibatch SGD",
    section 5.1, for the place of the stride.
    """
    blocks = Blocks(kernel_initializer, kernel_regularizer, affine)
    inputs = keras.Input(input_shape, name="image")
    x = _imagenet_stem(blocks, inputs)
    x = blocks.stages(x, _bottleneck, _FILTERS, (3, 4, 6, 3))
    return blocks.model(inputs, x, classes, "resnet50")


def _imagenet_stem(blocks, x):
    x = blocks.convolution_norm_relu(x, 64, 7, 2, name="stem")
    # After ReLU, zeros never are the only maximum.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return layers.MaxPooling2D(3, 2, name="stem_pool")(x)


def _basic_block(blocks, x, filters, stride, name):
    y = blocks.convolution_norm_relu(
        x, filters, 3, stride, name=f"{name}_conv1"
    )
    y = blocks.convolution_norm(y, filters, 3, name=f"{name}_conv2")
    return _add_shortcut(blocks, x, y, stride, name)


def _bottleneck(blocks, x, filters, stride, name):
    y = blocks.convolution_norm_relu(x, filters, 1, name=f"{name}_conv1")
    y = blocks.convolution_norm_relu(
        y, filters, 3, stride, name=f"{name}_conv2"
    )
    y = blocks.convolution_norm(y, 4 * filters, 1, name=f"{name}_conv3")
    return _add_shortcut(blocks, x, y, stride, name)


def _add_shortcut(blocks, x, y, stride, name):
    filters = y.shape[-1]
    if x.shape[-1] != filters:
        x = blocks.convolution_norm(
            x, filters, 1, stride, name=f"{name}_shortcut"
        )
    y = layers.Add(name=f"{name}_add")([x, y])
    return layers.ReLU(name=f"{name}_relu")(y)
