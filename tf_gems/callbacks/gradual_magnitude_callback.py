"""Gradual magnitude pruning as a callback for `fit`."""

import keras
import numpy as np

from tf_gems import allocation as allocations
from tf_gems import schedules
from tf_gems import shapes
from tf_gems.callbacks import trained_weights
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.layers.zeros import refuse_frozen_beyond
from tf_gems.pointwise import refuse_too_few_zeros
from tf_gems.validation import check_positive_integer
from tf_gems.validation import check_sparsity
from tf_gems.validation import is_number


@keras.saving.register_keras_serializable(package="tf_gems")
class GradualMagnitudeCallback(keras.callbacks.Callback):
    """Prunes the smallest weights, more of them every epoch.

    When epoch `e` begins, the weights of the largest `|w|` among those alive
    stay alive, and the others are pruned for good. The density is that of a
    schedule over the time from `begin` to `end`, in whole epochs; at `end`,
    and not after the beginning of the last epoch, it is exactly the target.
    In between, an allocation other than `"global"` lets the density of each
    weight fall to its own end in equal measure.

    What is pruned depends on the epoch and on the model's variables alone, so
    a run that is interrupted and resumed goes on as if it had not been.

    Epoch logs: `sparsity` and `density`.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros in the end.
        begin: Float, the fraction of training before pruning begins. Defaults
            to `0.0`.
        end: Float, the fraction of training at which it ends. Defaults to
            `0.75`.
        schedule: `tf_gems.schedules.Schedule` of the density, or a sparsity
            schedule of TF Model Optimization, see `tf_gems.schedules.get`.
            Defaults to `None`: the cubic one of the paper from 1 to the
            target.
        epochs: Integer, the length of training. Defaults to `None`: the
            epochs of `fit`.
        allocation: How what is alive is spread over the weights, see
            `tf_gems.allocation.get`. Defaults to `"global"`.
        shape: What is pruned together, see `tf_gems.shapes.get`. Defaults to
            `"unstructured"`.

    Raises:
        ValueError: If an argument is out of range, or the model prunes
            nothing or is mining.

    Example:

    ```python
    method = tf_gems.methods.GradualMagnitude(0.9)
    method.prepare(sparse)
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    sparse.fit(data, epochs=100, callbacks=[
        tf_gems.callbacks.GradualMagnitudeCallback(0.9)])
    ```

    Reference: Zhu & Gupta, 2017, "To prune, or not to prune: exploring the
    efficacy of pruning for model compression", equation 1.
    """

    def __init__(
        self,
        target_sparsity,
        begin=0.0,
        end=0.75,
        schedule=None,
        epochs=None,
        allocation="global",
        shape="unstructured",
    ):
        super().__init__()
        self.target_sparsity = check_sparsity(target_sparsity)
        if not (is_number(begin) and is_number(end) and 0 <= begin < end <= 1):
            raise ValueError(
                "Pruning begins and ends within training, `0 <= begin < end "
                f"<= 1`. Received: begin={begin!r}, end={end!r}."
            )
        self.begin, self.end = float(begin), float(end)
        self.schedule = schedules.Polynomial(1.0, 1.0 - self.target_sparsity)
        if schedule is not None:
            self.schedule = schedules.get(schedule)
        self.epochs = epochs
        if epochs is not None:
            self.epochs = check_positive_integer(epochs, "epochs")
        self.allocation = allocations.get(allocation)
        self.shape = shapes.get(shape)
        shapes.refuse_too_dense(self.shape, self.target_sparsity)
        self._weights = []

    def on_train_begin(self, logs=None):
        self._weights = trained_weights.weights_in_training(
            self.model, type(self).__name__
        )
        gems = find_gem_layers(self.model)
        refuse_too_few_zeros(gems, self.target_sparsity)
        refuse_frozen_beyond(gems, self.target_sparsity)

    def on_epoch_begin(self, epoch, logs=None):
        density = self.density(epoch, self.epochs or self.params["epochs"])
        values, alive = trained_weights.read(self._weights)
        size = sum(value.size for value in values)
        if sum(a.sum() for a in alive) <= round(density * size):
            return
        sizes = [np.abs(value) for value in values]
        masks = self._keep(sizes, density, alive)
        for weight, mask in zip(self._weights, masks, strict=True):
            weight.alive.assign(mask)

    def density(self, epoch, epochs):
        """Returns the density from the beginning of an epoch on.

        Args:
            epoch: Integer, counted from zero.
            epochs: Integer, the length of training.
        """
        target = 1.0 - self.target_sparsity
        last = min(round(self.end * epochs), epochs - 1)
        first = min(round(self.begin * epochs), last)
        if epoch >= last:
            return target
        progress = max(0.0, (epoch - first) / (last - first))
        return min(1.0, max(target, self.schedule(progress)))

    def _keep(self, scores, density, alive):
        """Returns masks of the largest scores among those alive."""
        target = 1.0 - self.target_sparsity
        paths = [weight.path for weight in self._weights]
        counts = self.allocation([s.shape for s in scores], target, paths)
        if counts is None:
            return self.allocation.keep(
                scores, density, paths, self.shape, alive
            )
        counts = allocations.within(
            [np.count_nonzero(here) for here in alive], counts
        )
        # An allocation at each density would not do: as the density falls,
        # one of them may ask for more of a weight than are left.
        share = (1.0 - density) / (1.0 - target)
        masks = []
        for score, count, here in zip(scores, counts, alive, strict=True):
            count = round(score.size - share * (score.size - count))
            count = min(count, np.count_nonzero(here))
            masks += self.shape.keep_largest([score], count, [here])
        return masks

    def on_epoch_end(self, epoch, logs=None):
        trained_weights.log_sparsity(self._weights, logs)

    def get_config(self):
        return {
            "target_sparsity": self.target_sparsity,
            "begin": self.begin,
            "end": self.end,
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "epochs": self.epochs,
            "allocation": keras.saving.serialize_keras_object(self.allocation),
            "shape": keras.saving.serialize_keras_object(self.shape),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)
