"""The base class of methods that train the network to find a ticket."""

import contextlib
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import ops

from tf_gems import registry
from tf_gems.callbacks.backup import is_chief
from tf_gems.files import lock
from tf_gems.filter_policies import refuse_too_few_zeros
from tf_gems.layers.gem_layer import built_gem_layers
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.layers.prunable_weight import density_of
from tf_gems.layers.training_guard import forget_compilation
from tf_gems.layers.zeros import is_untouched
from tf_gems.methods.method import Method
from tf_gems.methods.method import warn_at_minimum
from tf_gems.network import gems_of
from tf_gems.network import prunable_weights
from tf_gems.selection import distributions
from tf_gems.selection import patterns
from tf_gems.targets import check_directory
from tf_gems.training import train
from tf_gems.validation import check_count_or_none
from tf_gems.validation import check_learning_rate
from tf_gems.validation import check_positive_integer
from tf_gems.validation import check_sparsity


class Trained(Method):
    """Base class of methods that train scores or weights while they prune.

    `find` trains the model in place, from its current weights, with its loss
    and a new copy of its optimizer. A subclass defines what trains (`phase`),
    the callback that prunes (`callback`), and how masks are read. The callback
    can also be passed to `fit` directly.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer, the number of epochs of one training.
        learning_rate: Float, the initial value of a cosine decay to zero over
            one training; or a
            `keras.optimizers.schedules.LearningRateSchedule`. Defaults to
            `None`: that of the compiled optimizer.
        **kwargs: `distribution` and `pattern`, see `tf_gems.methods.Method`.
    """

    phase = "mining"  # in which scores train; "finetuning": weights
    warns_at_minimum = True  # unless the callback does

    def __init__(self, target_sparsity, epochs, learning_rate=None, **kwargs):
        super().__init__(target_sparsity, **kwargs)
        self.epochs = check_positive_integer(epochs, "epochs")
        if isinstance(learning_rate, dict):
            learning_rate = registry.deserialize(learning_rate, "learning_rate")
        self.learning_rate = check_learning_rate(learning_rate)
        _refuse_no_config(learning_rate)

    @property
    def epochs_of_search(self):
        return self.epochs

    def callback(self):
        """Returns a new callback that prunes during `fit`."""
        raise NotImplementedError(
            f"{type(self).__name__} prunes between trainings, not within one, "
            "so it has no callback. Call `find`."
        )

    def callbacks_for(self, data):
        """Returns the callbacks of `find`, which trains on `data`."""
        return [self.callback()]

    def prepare(self, model):
        """Sets the masks and the phase of this method, with all weights alive.

        Weights that are already zero are not alive, see
        `tf_gems.layers.zeros.nonzero`.
        """
        refuse_too_few_zeros(gems_of(model), self.target_sparsity)
        self._nonzero(model)
        for gem in gems_of(model):
            gem.reset_mining()
            gem.set_phase(self.phase)
        forget_compilation(model)

    def find_ticket(self, model, data, directory, verbose, callbacks):
        self.prepare(model)
        with locked(directory, model):
            train(
                model,
                data,
                self.epochs,
                self.learning_rate,
                [*self.callbacks_for(data), *(callbacks or ())],
                None if directory is None else Path(directory, "training"),
                verbose,
            )
        masks = self.masks(model)
        self.refuse_unfinished(model, masks)
        if self.warns_at_minimum:
            warn_at_minimum(self.distribution, model, masks)
        return self.ticket(model, masks)

    def refuse_unfinished(self, model, masks):
        """Raises an error if training ended before the target was reached."""
        kept = sum(int(np.count_nonzero(mask)) for mask in masks)
        size = sum(mask.size for mask in masks)
        target = round((1.0 - self.target_sparsity) * size)
        if kept > target:
            raise RuntimeError(
                "The search ended before its target was reached. Received: "
                f"'{model.name}', in which {kept:,} of {size:,} weights are "
                f"alive, for a target of {target:,}. A callback such as "
                "`EarlyStopping` stopped the training, or the data ended "
                "before the last epoch. Leave the callback out, or pass data "
                "for all epochs."
            )

    def masks(self, model):
        """Returns the masks of a model that has been trained."""
        return alive_masks(model)


class WeightPruner(registry.Configurable, keras.callbacks.Callback):
    """Base class of callbacks that prune weights while `fit` trains them.

    A subclass sets the masks at the beginning of an epoch, and implements
    `last_pruning`, the epoch from which they have the target sparsity. It calls
    `forget_best` when an epoch begins.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros in the end.
        epochs: Integer, the length of training. Defaults to `None`: the
            epochs of `fit`.
        distribution: See `tf_gems.distributions.get`.
        pattern: See `tf_gems.patterns.get`.
    """

    def __init__(self, target_sparsity, epochs, distribution, pattern):
        super().__init__()
        self.target_sparsity = check_sparsity(target_sparsity)
        self.epochs = check_count_or_none(epochs, "epochs")
        self.distribution = distributions.get(distribution)
        self.pattern = patterns.get(pattern)
        patterns.refuse_too_dense(self.pattern, self.target_sparsity)
        self._weights = []
        self._last, self._checkpoints = None, []

    def last_pruning(self, epochs):
        """Returns the epoch from which the target sparsity is reached."""
        raise NotImplementedError

    def before_fit(self, model, arguments):
        """Called by `SparseModel.fit`, before anything is traced."""
        last = self.last_pruning(self.epochs or arguments["epochs"])
        callbacks = arguments["callbacks"]
        refuse_restoring(callbacks, last, type(self).__name__)
        self._last = last
        self._checkpoints = [
            (callback, callback.best)
            for callback in callbacks
            if isinstance(callback, keras.callbacks.ModelCheckpoint)
            and callback.save_best_only
        ]
        train_weights(model)

    def on_train_begin(self, logs=None):
        self._weights = weights_in_training(self.model, type(self).__name__)
        refuse_too_few_zeros(find_gem_layers(self.model), self.target_sparsity)

    def forget_best(self, epoch):
        """Lets a `ModelCheckpoint` keep the best epoch after the last pruning.

        The network is more accurate while it has fewer zeros. So the best of
        all epochs would be one with too few.
        """
        if epoch == self._last:
            for callback, best in self._checkpoints:
                callback.best = best

    def set_target(self):
        """Records the target; `ticket` raises an error while more is alive."""
        size = sum(weight.alive.size for weight in self._weights)
        for gem in find_gem_layers(self.model):
            gem.target.assign(round((1.0 - self.target_sparsity) * size))

    @property
    def _epochs(self):
        return self.epochs or self.params["epochs"]

    def on_epoch_end(self, epoch, logs=None):
        log_sparsity(self._weights, logs)

    def on_train_end(self, logs=None):
        for gem in find_gem_layers(self.model):
            gem.zero_pruned()
        if self._epochs <= self.params["epochs"]:  # else another `fit` follows
            warn_unfinished(self._weights, self.target_sparsity)


def locked(directory, model):
    """Returns a context in which one search locks its directory.

    With several workers, the chief locks it.
    """
    if directory is None:
        return contextlib.nullcontext()
    check_directory(directory)
    return lock(directory) if is_chief(model) else contextlib.nullcontext()


def _refuse_no_config(learning_rate):
    """Refuses a schedule without config before training, not after it."""
    schedule = keras.optimizers.schedules.LearningRateSchedule
    if isinstance(learning_rate, schedule):
        try:
            keras.optimizers.schedules.serialize(learning_rate)
        except NotImplementedError as error:
            raise ValueError(
                "A ticket records the method that found it, with its "
                "learning rate. Received: learning_rate of type "
                f"{type(learning_rate).__name__}, which has no `get_config`. "
                "Implement it, or compile with this schedule and leave "
                "`learning_rate` out."
            ) from error


def alive_masks(model):
    """Returns which weights are alive, a bool array for each."""
    return [np.asarray(w.alive) for w in prunable_weights(model)]


def weights_in_training(model, name):
    """Returns every `PrunableWeight` of a model whose weights train."""
    gems = built_gem_layers(model, name)
    if any(gem.phase != "finetuning" for gem in gems):
        raise ValueError(
            f"`{name}` prunes weights while they train. Received: model "
            f"'{model.name}', which is in the mining phase, in which only "
            "scores train. Call `prepare(model)` of the method, and "
            "`compile`, before `fit`."
        )
    return [weight for gem in gems for weight in gem.prunable]


def log_sparsity(weights, logs):
    """Adds `sparsity` and `density` to the logs of an epoch."""
    if logs is not None:
        density = density_of(weights)
        logs["sparsity"], logs["density"] = 1.0 - density, density


def train_weights(model):
    """Lets the weights of a model that was just wrapped train.

    A model that was mined, or trained, since it was wrapped stays as it is.
    """
    gems = find_gem_layers(model)
    untouched = all(
        gem.built
        and gem.phase == "mining"
        and not int(ops.convert_to_numpy(gem.target))
        and all(is_untouched(w, np.asarray(w.alive)) for w in gem.prunable)
        for gem in gems
    )
    if not untouched or getattr(model.optimizer, "built", True):
        return
    for gem in gems:
        gem.set_phase("finetuning")
    # Its optimizer has no variables yet, so `compile` is not needed again.
    model.compiled = True


def refuse_restoring(callbacks, epoch, name):
    """Raises an error for callbacks that would bring pruned weights back."""
    for callback in callbacks:
        if (
            isinstance(callback, keras.callbacks.EarlyStopping)
            and callback.restore_best_weights
            and callback.start_from_epoch < epoch
        ):
            raise ValueError(
                "The best weights must be those of an epoch after the last "
                "pruning step, because earlier ones would restore pruned "
                "weights. Received: EarlyStopping(restore_best_weights=True, "
                f"start_from_epoch={callback.start_from_epoch}) with "
                f"`{name}`, which prunes until epoch {epoch}. Use "
                f"start_from_epoch={epoch}."
            )


def warn_unfinished(weights, target_sparsity):
    """Warns if training ended with fewer zeros than were asked for."""
    size = sum(w.alive.size for w in weights)
    kept = sum(w.alive.count() for w in weights)
    if kept > round((1 - target_sparsity) * size):
        warnings.warn(
            "Training ended before pruning did. Received: "
            f"target_sparsity={target_sparsity:g}, of which "
            f"{1 - kept / size:.4f} was reached. Let `fit` run to its last "
            "epoch: `EarlyStopping` needs a `start_from_epoch` after the "
            "last pruning step.",
            stacklevel=2,
        )
