"""Faster batch normalization with a fused TensorFlow operation.

Keras' batch normalization takes a dozen operations. If no compiler fuses them,
as on CPUs, they take about as long as the convolutions of a small network.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tf_gems_recipes")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization with a fused operation for batches of images.

    The results equal those of the base class up to rounding.
    """

    def call(self, inputs, training=None, mask=None):
        images = len(inputs.shape) == 4 and self.axis in (-1, 3)
        if not (training and self.trainable and images and mask is None):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = (inputs.shape[-1],)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma if self.scale else tf.ones(channels),
            offset=self.beta if self.center else tf.zeros(channels),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The operation returns the unbiased variance, but Keras uses the biased
        # one.
        count = ops.cast(ops.prod(ops.shape(inputs)[:-1]), variance.dtype)
        variance *= (count - 1) / count
        for moving, now in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs


def fused(model):
    """Returns the same network with the same weights and fused normalization.

    Args:
        model: Functional or Sequential `keras.Model`.
    """

    def replaced(layer):
        kind = type(layer)
        if kind is keras.layers.BatchNormalization:
            kind = FusedBatchNormalization
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=replaced)
    copy.set_weights(model.get_weights())
    return copy
