"""MobileNetV1 whose zeros save time."""

import keras

from tf_gems.zoo._arguments import checked
from tf_gems.zoo._blocks import Blocks
from tf_gems.zoo._blocks import strides_of

# Filters and stride of each block, by its place.
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


@checked
def mobilenet_v1(
    input_shape=(224, 224, 3),
    classes=1000,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
    alpha=1.0,
    stem="imagenet",
    affine=False,
):
    """Returns MobileNetV1 with 4,209,088 weights for 1,000 classes.

    It has a 3x3 stem with stride 2, thirteen blocks of a 3x3 depthwise and a
    1x1 convolution, each followed by normalization and ReLU6, global average
    pooling, and a classifier. There are no biases, and `BatchNormalization`
    has no scale and offset.

    It meets the requirements for which XNNPACK, and thus TFLite on ARM and in
    browsers, computes sparse 1x1 convolutions faster. Layers with stride 2 are
    padded by one pixel on every side (`keras.applications.MobileNet` pads on
    the right and at the bottom), and the average pooling keeps no dimensions
    of size one before a `Dense` classifier. It is faster if more than two
    thirds of all weights of the 1x1 convolutions are zero: prune them with
    `filters="pointwise"`.

    Images of 32 and 64 pixels need fewer strides. `stem="small"` keeps the
    stem with stride 2, and thus meets the requirements, and leaves out the
    next two strides. With `"imagenet"`, images must have 33 pixels or more,
    because feature maps of one pixel have no average pooling, with which
    XNNPACK's sparse part must end. `stem="cifar"` is the usual stem with
    stride 1. XNNPACK's sparse part must begin with a stem of stride 2, so *no*
    zero of that network saves time. With these two stems, the last feature
    maps have an eighth of the size of the image.

    Args:
        input_shape: Tuple of integers, without the batch. XNNPACK's stem
            reads three channels.
        classes: Integer, number of logits.
        kernel_initializer: Keras initializer. Defaults to `"he_normal"`.
        kernel_regularizer: Keras regularizer. Defaults to `None`.
        alpha: Float that multiplies the filters of every layer. Defaults to
            `1.0`.
        stem: `"imagenet"`, `"small"` or `"cifar"`. Defaults to `"imagenet"`.
        affine: Whether the normalization learns a scale and an offset, which
            are not pruned. Defaults to `False`.

    Returns:
        `keras.Model` from float32 images to logits.

    Raises:
        ValueError: If there is no such stem, or `alpha` is not positive.

    Example:

    >>> model = mobilenet_v1((32, 32, 3), 10, stem="small", alpha=0.25)
    >>> sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    210160

    Reference: Howard et al., 2017, "MobileNets: Efficient Convolutional
    Neural Networks for Mobile Vision Applications", table 1.
    """
    stem_stride, strides = strides_of(stem, [s for _, s in _BLOCKS])
    blocks = Blocks(kernel_initializer, kernel_regularizer, affine, 6.0)
    inputs = keras.Input(input_shape, name="image")
    x = blocks.convolution_norm_relu(
        inputs, int(32 * alpha), 3, stem_stride, name="stem"
    )
    for index, stride in enumerate(strides, 1):
        name = f"block{index}"
        filters = int(_BLOCKS[index - 1][0] * alpha)
        x = blocks.depthwise_norm_relu(x, stride, name=f"{name}_depthwise")
        x = blocks.convolution_norm_relu(
            x, filters, 1, name=f"{name}_pointwise"
        )
    return blocks.model(inputs, x, classes, "mobilenet_v1")
