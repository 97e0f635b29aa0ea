"""What the networks of the zoo are built of."""

import keras
from keras import layers

from tf_gems.validation import check_choice

# The stride of a MobileNet's stem, and how many of the next strides are left
# out, by the size of its images.
_STEMS = {"imagenet": (2, 0), "small": (2, 2), "cifar": (1, 1)}


class Blocks:
    """Layers of one network: no biases, one initializer, one regularizer."""

    def __init__(
        self,
        kernel_initializer,
        kernel_regularizer,
        affine=False,
        relu_limit=None,
    ):
        self._settings = {
            "use_bias": False,
            "kernel_initializer": kernel_initializer,
            "kernel_regularizer": kernel_regularizer,
        }
        self._affine = affine
        self._relu_limit = relu_limit

    def dense(self, x, units, activation=None, *, name):
        """Multiplies by a matrix."""
        layer = layers.Dense(units, activation, name=name, **self._settings)
        return layer(x)

    def convolution(self, x, filters, size, stride=1, activation=None, *, name):
        """Convolves."""
        x, padding = self._pad(x, size, stride, name)
        return layers.Conv2D(
            filters,
            size,
            strides=stride,
            padding=padding,
            activation=activation,
            name=name,
            **self._settings,
        )(x)

    def convolution_norm(self, x, filters, size, stride=1, *, name):
        """Convolves and normalizes."""
        x = self.convolution(x, filters, size, stride, name=name)
        return self.norm(x, f"{name}_norm")

    def convolution_norm_relu(self, x, filters, size, stride=1, *, name):
        """Convolves, normalizes and rectifies."""
        x = self.convolution_norm(x, filters, size, stride, name=name)
        return layers.ReLU(self._relu_limit, name=f"{name}_relu")(x)

    def depthwise_norm_relu(self, x, stride, *, name):
        """Convolves every channel by itself, 3x3, normalizes and rectifies."""
        x, padding = self._pad(x, 3, stride, name)
        x = layers.DepthwiseConv2D(
            3,
            strides=stride,
            padding=padding,
            use_bias=False,
            depthwise_initializer=self._settings["kernel_initializer"],
            depthwise_regularizer=self._settings["kernel_regularizer"],
            name=name,
        )(x)
        x = self.norm(x, f"{name}_norm")
        return layers.ReLU(self._relu_limit, name=f"{name}_relu")(x)

    def norm(self, x, name):
        """Normalizes by batch, with scale and offset if it is affine."""
        return layers.BatchNormalization(
            momentum=0.9,
            epsilon=1e-5,
            center=self._affine,
            scale=self._affine,
            name=name,
        )(x)

    def stages(self, x, block, filters, depths):
        """Chains blocks; the first of each stage but one has stride 2."""
        for stage, (width, depth) in enumerate(
            zip(filters, depths, strict=True)
        ):
            for index in range(depth):
                stride = 2 if stage and not index else 1
                name = f"stage{stage + 1}_block{index + 1}"
                x = block(self, x, width, stride, name)
        return x

    def model(self, inputs, x, classes, name):
        """Averages each channel, classifies, and returns the `keras.Model`."""
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        outputs = self.dense(x, classes, name="classifier")
        return keras.Model(inputs, outputs, name=name)

    def _pad(self, x, size, stride, name):
        if stride == 1:
            return x, "same"
        if size > 1:
            # "same" would pad unevenly, on the right and below only.
            x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        return x, "valid"


def strides_of(stem, strides):
    """Returns the stride of a stem, and those of what follows.

    Example:

    >>> strides_of("small", [1, 2, 1, 2, 2])
    (2, [1, 1, 1, 1, 2])
    """
    first, left_out = _STEMS[check_choice(stem, "stem", _STEMS)]
    found = []
    for stride in strides:
        if stride > 1 and left_out:
            stride, left_out = 1, left_out - 1
        found.append(stride)
    return first, found
