"""Gradual magnitude pruning: while weights train, the smallest are pruned."""

import math

import keras
import numpy as np

from tf_gems import schedules
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.layers.prunable_weight import set_alive
from tf_gems.layers.zeros import refuse_frozen_beyond
from tf_gems.methods.trained import Trained
from tf_gems.methods.trained import WeightPruner
from tf_gems.selection import distributions
from tf_gems.validation import check_count_or_none
from tf_gems.validation import is_number

_END = 0.75  # fraction of training
# Where pruning lasts fewer epochs, it takes place so often in all.
_FEW_EPOCHS, _PRUNINGS = 4, 8


@keras.saving.register_keras_serializable(package="tf_gems")
class GradualMagnitudeCallback(WeightPruner):
    """Prunes the weights with the smallest magnitude, more in every epoch.

    The weights with the largest `|w|` are kept, and the others are permanently
    pruned, `frequency` times in every epoch. The density follows a schedule
    between `begin` and `end`, which are rounded to whole epochs. From `end`
    on, and always in the last epoch, the density is exactly the target, so
    that the network can recover. With a distribution that has a fixed density
    for each layer, all layers approach their densities proportionally. A
    distribution that ranks, such as `"lamp"`, ranks the alive weights.

    In a new `tf_gems.SparseModel`, `fit` trains the weights from the first
    epoch on, for any value of `start`. In other cases, first call
    `prepare(model)` of `tf_gems.methods.GradualMagnitude`, and `compile`.

    Pruning depends only on the epoch, the batch and the model's variables, so
    a resumed run gives the same result.

    Epoch logs: `sparsity` and `density`. A `ModelCheckpoint` with
    `save_best_only=True` beside it in the `fit` of a `SparseModel` keeps the
    best epoch of those at the target.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros in the end.
        begin: Float, the fraction of training before pruning begins. Defaults
            to `0.0`.
        end: Float, the fraction of training at which pruning ends. Defaults to
            `None`: 0.75, and at least two epochs before training ends, or one
            epoch if there are two.
        schedule: `tf_gems.schedules.Schedule` of the density, or a sparsity
            schedule of TF Model Optimization, see `tf_gems.schedules.get`.
            Defaults to `None`: the cubic one of the paper from 1 to the
            target.
        epochs: Integer, the length of training. Defaults to `None`: the
            epochs of `fit`.
        distribution: How the kept weights are distributed over the layers, see
            `tf_gems.distributions.get`. Defaults to `"lamp"`.
        pattern: Which weights are pruned together, see `tf_gems.patterns.get`.
            Defaults to `"unstructured"`.
        frequency: Integer, how many times to prune per epoch. With data of
            unknown length, and with `tf_gems.device_data.DeviceData`, pruning
            happens only at the beginning of an epoch. Defaults to `None`:
            once, or, if pruning lasts less than four epochs, eight times in
            total.

    Raises:
        ValueError: If an argument is out of range, the model prunes nothing or
            is in the mining phase, or more weights are already zero than the
            target allows.

    Example:

    ```python
    sparse = tf_gems.SparseModel(model, start="trained")
    sparse.compile(keras.optimizers.Adam(1e-4), loss, metrics=["accuracy"])
    sparse.fit(data, epochs=12, validation_data=validation, callbacks=[
        tf_gems.GradualMagnitudeCallback(0.9)])
    ```

    Reference: Zhu & Gupta, 2017, "To prune, or not to prune: exploring the
    efficacy of pruning for model compression", equation 1.
    """

    def __init__(
        self,
        target_sparsity,
        begin=0.0,
        end=None,
        schedule=None,
        epochs=None,
        distribution="lamp",
        pattern="unstructured",
        frequency=None,
    ):
        super().__init__(target_sparsity, epochs, distribution, pattern)
        self.frequency = check_count_or_none(frequency, "frequency")
        last = _END if end is None else end
        numbers = is_number(begin) and is_number(last)
        if not (numbers and 0 <= begin < last <= 1):
            raise ValueError(
                "Pruning must begin and end within training, `0 <= begin < "
                f"end <= 1`. Received: begin={begin!r}, end={end!r}."
            )
        self.begin = float(begin)
        self.end = None if end is None else float(end)
        self.schedule = schedules.Polynomial(1.0, 1.0 - self.target_sparsity)
        if schedule is not None:
            self.schedule = schedules.get(schedule)
            ends = self.schedule(0.0), self.schedule(1.0)
            if not all(0 <= end <= 1 for end in ends):
                raise ValueError(
                    "`schedule` must be a schedule of densities, in [0, 1]. "
                    f"Received: schedule={schedule!r:.300}, from {ends[0]:g} "
                    f"to {ends[1]:g}. A density is 1 minus the sparsity."
                )
        self._at_minimum = set()

    def last_pruning(self, epochs):
        return self._times(epochs)[1]

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        gems = find_gem_layers(self.model)
        refuse_frozen_beyond(gems, self.target_sparsity)
        self._at_minimum = set()

    def on_epoch_begin(self, epoch, logs=None):
        self.set_target()
        self.forget_best(epoch)
        self._epoch, self._part = epoch, 0
        self._prune(self.density(epoch, self._epochs))

    def on_train_batch_begin(self, batch, logs=None):
        frequency, steps = self._times_an_epoch(), self.params["steps"]
        part = batch * frequency // steps if steps else 0
        if part > self._part:
            self._part = part
            time = self._epoch + part / frequency
            self._prune(self.density(time, self._epochs))

    def _times_an_epoch(self):
        first, last = self._times(self._epochs)
        few = last - first < _FEW_EPOCHS
        default = math.ceil(_PRUNINGS / max(1, last - first)) if few else 1
        return self.frequency or default

    def _prune(self, density):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # within an epoch
        alive = [np.asarray(w.alive) for w in self._weights]
        size = sum(a.size for a in alive)
        if sum(map(np.count_nonzero, alive)) <= round(density * size):
            return
        magnitudes = [np.abs(w.read_weight()) for w in self._weights]
        set_alive(self._weights, self._keep(magnitudes, density, alive))
        self._at_minimum |= distributions.warn_at_minimum(
            self.distribution,
            {w.path: (w.alive.count(), w.alive.size) for w in self._weights},
            self._at_minimum,
        )

    def density(self, epoch, epochs):
        """Returns the density at a point in time.

        Args:
            epoch: Float, the number of epochs since training began.
            epochs: Integer, the length of training.
        """
        target = 1.0 - self.target_sparsity
        first, last = self._times(epochs)
        if epoch >= last:
            return target
        progress = max(0, epoch - first) / max(1, last - first)
        return min(1.0, max(target, self.schedule(progress)))

    def _times(self, epochs):
        """Returns the epochs with which pruning begins and ends."""
        last = round((_END if self.end is None else self.end) * epochs)
        # The last epoch trains at the target in any case.
        at_target = max(1, min(2, epochs - 1)) if self.end is None else 1
        last = max(0, min(last, epochs - at_target))
        return min(round(self.begin * epochs), last), last

    def _keep(self, scores, density, alive):
        """Returns masks of the largest scores among those alive."""
        target = 1.0 - self.target_sparsity
        paths = [weight.path for weight in self._weights]
        counts = self.distribution([s.shape for s in scores], target, paths)
        if counts is None:
            return self.distribution.keep(
                scores, density, paths, self.pattern, alive
            )
        counts = distributions.within(
            [np.count_nonzero(here) for here in alive], counts
        )
        # A distribution at each density would not do: as the density falls,
        # one of them may ask for more of a weight than are left.
        share = (1.0 - density) / (1.0 - target)
        masks = []
        for score, count, here in zip(scores, counts, alive, strict=True):
            count = round(score.size - share * (score.size - count))
            count = min(count, np.count_nonzero(here))
            masks += self.pattern.keep_largest([score], count, [here])
        return masks


@keras.saving.register_keras_serializable(package="tf_gems")
class GradualMagnitude(Trained):
    """Trains the weights, and prunes the smallest until the target is reached.

    Runs `fit` with `tf_gems.GradualMagnitudeCallback`. The ticket contains the
    trained weights and is accurate without further training. By default,
    magnitudes are ranked relative to their layer, see
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
        frequency: Integer, how many times to prune per epoch. Defaults to
            `None`, see `tf_gems.GradualMagnitudeCallback`.
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
    warns_at_minimum = False  # the callback does

    def __init__(
        self,
        target_sparsity,
        epochs=100,
        learning_rate=None,
        begin=0.0,
        end=None,
        schedule=None,
        distribution="lamp",
        frequency=None,
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
        self.frequency = frequency
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
            frequency=self.frequency,
        )
