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

    A 3x3 stem of stride 2; thirteen blocks of a 3x3 convolution of each
    channel by itself and a 1x1 convolution, each normalized and capped by
    ReLU6; global average pooling, a classifier. No biases;
    `BatchNormalization` without scale and offset.

    It keeps the rules by which XNNPACK, and thus TFLite on ARM and in
    browsers, computes sparse 1x1 convolutions faster: what has stride 2 is
    padded by one pixel on every side (`keras.applications.MobileNet` pads on
    the right and below), and the average keeps no dimensions of size one
    before a `Dense` classifier. The gain begins when more than two thirds of
    all weights of the 1x1 convolutions are zero: prune these by
    `filters="pointwise"`.

    Images of 32 and 64 pixels need fewer strides. `stem="small"` keeps the
    stem of stride 2, and thus all rules, and leaves out the next two strides.
    With `"imagenet"` images must have 33 pixels or more: where the last maps
    are of one pixel, there is no average left, and XNNPACK's part has no end.
    `stem="cifar"` is the usual one of stride 1, which keeps every pixel, but
    XNNPACK begins at stems of stride 2 only, so *no* zero of that network
    saves time there. In these two the last maps are an eighth of the image.

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
