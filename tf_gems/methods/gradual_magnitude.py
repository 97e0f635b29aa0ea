"""Gradual magnitude pruning as a method beside others."""

import keras

from tf_gems.callbacks.gradual_magnitude_callback import (
    GradualMagnitudeCallback,
)
from tf_gems.methods.trained import Trained


@keras.saving.register_keras_serializable(package="tf_gems")
class GradualMagnitude(Trained):
    """Trains the weights, and prunes the smallest until the target is reached.

    `tf_gems.callbacks.GradualMagnitudeCallback` in a `fit` of its own. The
    ticket holds the trained weights: it is accurate as it is. Magnitudes are
    compared relative to their layer by default, see
    `tf_gems.methods.Magnitude`.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer. Defaults to `100`.
        learning_rate: See `tf_gems.methods.Trained`. Defaults to `None`: that
            of the compiled optimizer.
        begin: Float, the fraction of training before pruning begins. Defaults
            to `0.0`.
        end: Float, the fraction of training at which it ends. Defaults to
            `None`: 0.75, and at least two epochs before training ends.
        schedule: `tf_gems.schedules.Schedule` of the density. Defaults to
            `None`: the cubic one of the paper from 1 to the target.
        distribution: See `tf_gems.distributions.get`. Defaults to `"lamp"`.
        **kwargs: `pattern`, see `tf_gems.methods.Method`.

    Example:

    ```python
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    pruning = tf_gems.methods.GradualMagnitude(0.9, learning_rate=0.1)
    ticket = pruning.find(sparse, data, directory="pruning")
    ```

    Reference: Zhu & Gupta, 2017, "To prune, or not to prune: exploring the
    efficacy of pruning for model compression".
    """

    phase = "finetuning"
    warns_at_floor = False  # the callback does

    def __init__(
        self,
        target_sparsity,
        epochs=100,
        learning_rate=None,
        begin=0.0,
        end=None,
        schedule=None,
        distribution="lamp",
        **kwargs,
    ):
        super().__init__(
            target_sparsity,
            epochs,
            learning_rate,
            distribution=distribution,
            **kwargs,
        )
        self.begin, self.end, self.schedule = begin, end, schedule
        callback = self.callback()  # refuses what is out of range
        self.begin, self.end = callback.begin, callback.end
        self.schedule = callback.schedule

    def callback(self):
        return GradualMagnitudeCallback(
            self.target_sparsity,
            self.begin,
            self.end,
            self.schedule,
            epochs=self.epochs,
            distribution=self.distribution,
            pattern=self.pattern,
        )

    def get_config(self):
        return {
            **super().get_config(),
            "begin": self.begin,
            "end": self.end,
            "schedule": keras.saving.serialize_keras_object(self.schedule),
        }
