"""ResNet-20 for 32x32 images, as in the authors' code."""

import keras
from keras import layers
from keras import ops


def resnet20(
    input_shape=(32, 32, 3),
    classes=10,
    kernel_initializer="he_normal",
    kernel_regularizer=None,
):
    """Returns ResNet-20 with 268,336 weights on CIFAR-10.

    A 3x3 stem of 16 filters, three stages of three basic blocks with 16, 32
    and 64 filters, global average pooling, a classifier. No biases;
    `BatchNormalization` without scale and offset. The first block of stages
    two and three has stride 2, padded by one pixel on each side. Shortcuts
    have no weights (option A): where the shape changes, every second pixel is
    taken and half of the new channels, zeros, are put on either side.

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
    settings = {
        "use_bias": False,
        "kernel_initializer": kernel_initializer,
        "kernel_regularizer": kernel_regularizer,
    }

    def convolution(x, filters, stride, name):
        if stride > 1:
            # "same" would pad unevenly, on the right and below only.
            x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        x = layers.Conv2D(
            filters,
            3,
            strides=stride,
            padding="valid" if stride > 1 else "same",
            name=name,
            **settings,
        )(x)
        return layers.BatchNormalization(
            momentum=0.9,
            epsilon=1e-5,
            center=False,
            scale=False,
            name=f"{name}_norm",
        )(x)

    def block(x, filters, stride, name):
        y = convolution(x, filters, stride, f"{name}_conv1")
        y = layers.ReLU(name=f"{name}_relu1")(y)
        y = convolution(y, filters, 1, f"{name}_conv2")
        if stride > 1:
            x = layers.AveragePooling2D(1, stride, name=f"{name}_subsample")(x)
            missing = (filters - x.shape[-1]) // 2
            x = ops.pad(x, [(0, 0), (0, 0), (0, 0), (missing, missing)])
        y = layers.Add(name=f"{name}_add")([x, y])
        return layers.ReLU(name=f"{name}_relu2")(y)

    inputs = keras.Input(input_shape, name="image")
    x = convolution(inputs, 16, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage, filters in enumerate((16, 32, 64), 1):
        for index in (1, 2, 3):
            stride = 2 if stage > 1 and index == 1 else 1
            x = block(x, filters, stride, f"stage{stage}_block{index}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, name="classifier", **settings)(x)
    return keras.Model(inputs, outputs, name="resnet20")
