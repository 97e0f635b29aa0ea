"""What the networks of the zoo are built of."""

import keras
from keras import layers


def norm(x, name, affine=False):
    """Normalizes by batch, by default without scale and offset."""
    return layers.BatchNormalization(
        momentum=0.9,
        epsilon=1e-5,
        center=affine,
        scale=affine,
        name=name,
    )(x)


class Blocks:
    """Layers of one network: no biases, one initializer, one regularizer.

    Args:
        kernel_initializer: Keras initializer.
        kernel_regularizer: Keras regularizer.
        affine: Whether the normalization learns a scale and an offset.
            Defaults to `False`.
        relu_limit: Float at which ReLU is capped. Defaults to `None`: nowhere.
    """

    def __init__(
        self,
        kernel_initializer,
        kernel_regularizer,
        affine=False,
        relu_limit=None,
    ):
        self._initializer = kernel_initializer
        self._regularizer = kernel_regularizer
        self._affine = affine
        self._relu_limit = relu_limit

    def convolution(self, x, filters, size, stride=1, *, name):
        """Convolves."""
        x, padding = self._pad(x, size, stride, name)
        return layers.Conv2D(
            filters,
            size,
            strides=stride,
            padding=padding,
            use_bias=False,
            kernel_initializer=self._initializer,
            kernel_regularizer=self._regularizer,
            name=name,
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
            depthwise_initializer=self._initializer,
            depthwise_regularizer=self._regularizer,
            name=name,
        )(x)
        x = self.norm(x, f"{name}_norm")
        return layers.ReLU(self._relu_limit, name=f"{name}_relu")(x)

    def norm(self, x, name):
        """Normalizes by batch."""
        return norm(x, name, self._affine)

    def model(self, inputs, x, classes, name):
        """Averages each channel, classifies, and returns the `keras.Model`."""
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        outputs = layers.Dense(
            classes,
            use_bias=False,
            kernel_initializer=self._initializer,
            kernel_regularizer=self._regularizer,
            name="classifier",
        )(x)
        return keras.Model(inputs, outputs, name=name)

    def _pad(self, x, size, stride, name):
        if stride == 1:
            return x, "same"
        if size > 1:
            # "same" would pad unevenly, on the right and below only.
            x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        return x, "valid"
