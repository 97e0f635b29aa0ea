"""Checks that stop mining, each with a message that says what to do."""

import warnings

import keras
import numpy as np
from keras import ops

from tf_gems import training_logic
from tf_gems.optimizers import Step
from tf_gems.optimizers import optimizer_parts
from tf_gems.optimizers import score_optimizers


class GuardedMining(keras.callbacks.Callback):
    """The checks of `tf_gems.GemMinerCallback`, which sets the attributes.

    Attributes:
        target_sparsity: Float.
        freeze_period: Integer.
        _gems: List of the `GemLayer`s of the model.
        _counts: List of integers, how many weights are alive after 0, 1, ...
            freezes.
        _epochs: Integer, the length of mining.
        _steps_before: Integer, steps of mining when the epoch began.
    """

    @property
    def _size(self):
        return sum(gem.size for gem in self._gems)

    def _alive(self):
        return sum(gem.count_alive() for gem in self._gems)

    def _steps_done(self):
        # Not those of the optimizer: a user's own step may have several.
        return max(int(read_number(gem.penalty.steps)) for gem in self._gems)

    def _steps_an_epoch(self, epoch):
        """Returns the steps of an epoch, `None` while they are unknown."""
        steps = self.params["steps"]
        if steps is None and epoch:  # data of unknown length
            steps = self._steps_done() / epoch
        return steps

    def _set_learning_rate(self, epoch):
        """Sets that of a `tf_gems.optimizers.ScoreOptimizer`."""
        steps = self._steps_an_epoch(epoch)
        for optimizer in score_optimizers(self.model.optimizer):
            if steps:
                optimizer.begin_epoch(epoch, self._epochs, self._epochs * steps)

    def _refuse_fewer_than(self, least):
        if self._counts[-1] < least:
            raise ValueError(
                f"`target_sparsity` must keep at least {least} of "
                f"{self._size:,} weights. Received: "
                f"target_sparsity={self.target_sparsity:g}. Use "
                f"{1 - least / self._size:g} or less."
            )

    def _set_target(self, epoch):
        """Records the target in all layers, which a resumed run must have."""
        target, size = self._counts[-1], self._size
        for gem in self._gems:
            begun = int(read_number(gem.target))
            if epoch and begun not in (0, target):
                raise ValueError(
                    "Mining must be resumed with its original target. "
                    f"Received: target_sparsity={self.target_sparsity:g}, "
                    f"which keeps {target:,} of {size:,} weights, in epoch "
                    f"{epoch + 1}; mining started with a target of {begun:,}. "
                    f"Use target_sparsity={1 - begun / size:g}, or start "
                    "again without the backup."
                )
            gem.target.assign(target)

    def _refuse_restart(self, epoch):
        """Allows an epoch that was mined before only for a larger sparsity."""
        done = max(int(read_number(gem.penalty.epochs)) for gem in self._gems)
        if done <= epoch:
            return
        alive, size = self._alive(), self._size
        reset = f"`reset_mining()` of its `GemLayer` '{self._gems[0].name}'."
        if alive > int(read_number(self._gems[0].target)):
            raise ValueError(
                "Freezing depends on the epoch number, so mining continues "
                "where it stopped; with `fit(epochs=1)` in a loop, no weight "
                f"would ever be frozen. Received: epoch {epoch + 1} of a "
                f"model that was mined for {done} epochs, with {alive:,} of "
                f"{size:,} weights alive. Pass `fit(initial_epoch={done}, "
                "...)`, with the same `epochs` for this callback, or start "
                f"again: call {reset}"
            )
        if self._counts[-1] >= alive:
            raise ValueError(
                "Frozen weights stay pruned, so mining can only continue to "
                "a larger sparsity. Received: "
                f"target_sparsity={self.target_sparsity:g}, for a model in "
                f"which mining has left {alive:,} of {size:,} weights, a "
                f"sparsity of {1 - alive / size:g}. Use a larger one, or "
                "train the ticket (`start_finetuning()`), or start again: "
                f"call {reset}"
            )
        for gem in self._gems:
            gem.penalty.reset()

    def _warn_of_no_freeze(self, epoch):
        """Warns if the first `fit` ends before anything freezes."""
        epochs = self.params["epochs"]
        if epoch or epochs > self.freeze_period or epochs >= self._epochs:
            return
        warnings.warn(
            "This `fit` ends before the first freeze: mining has "
            f"{self._epochs} epochs, and weights are frozen at the beginning "
            f"of epoch {self.freeze_period + 1}. Received: epochs={epochs}. "
            f"Continue with `fit(initial_epoch={epochs}, "
            f"epochs={self._epochs}, ...)`; with `fit(epochs=1)` in a loop, "
            "no weight would ever be frozen.",
            stacklevel=2,
        )

    def _refuse_non_finite(self, epoch, when, loss=0.0):
        """Stops if a loss or score is not finite: nothing can be ranked."""
        lost = [
            weight.path
            for gem in self._gems
            for weight in gem.prunable
            if not weight.has_finite_score()
        ]
        if np.isfinite(loss) and not lost:
            return
        self.model.stop_training = True
        parts = optimizer_parts(self.model.optimizer)
        rates = [f"{read_number(part.learning_rate):g}" for part in parts]
        raise RuntimeError(
            f"Mining {when} epoch {epoch + 1}: a loss or a score is NaN or "
            "infinite, and such scores cannot be ranked. Received: "
            f"loss={loss:g}, learning_rate={', '.join(rates)}, scores lost "
            f"in: {', '.join(lost) or 'none'}. The masks are unchanged. "
            "Reduce the learning rate, or look for such values in the data."
        )

    def _refuse_no_data(self, epoch, loss):
        """Stops if an epoch has trained nothing."""
        if self._steps_done() > self._steps_before:
            return
        self.model.stop_training = True
        if loss:
            raise RuntimeError(
                "Mining trains the scores of layers that are called with "
                f"`training=True`. Received: epoch {epoch + 1} of "
                f"'{self.model.name}', in which no `GemLayer` was called with "
                "it. Add an argument `training` to `call` of your model and "
                "pass it to the layers, or wrap the whole model in a "
                "`SparseModel`. In a custom `train_step`, pass "
                "`training=True`, and add `sum(self.losses)` to the loss, "
                "which contains the penalty of the scores."
            )
        raise RuntimeError(
            f"Mining stopped in epoch {epoch + 1}: the data ended before its "
            "first batch, so no score was trained. Received: "
            f"steps={self.params['steps']}. Pass data that can be read in "
            "every epoch, such as a `tf.data.Dataset` or a "
            "`keras.utils.PyDataset`, or call `.repeat()`. A custom "
            "`train_step` must pass `training=True`."
        )

    def _refuse_dead(self, epoch, kept):
        """Stops if the outputs no longer depend on the inputs."""
        dead = [path for path, count in kept.items() if count == 0]
        if not dead or (any(kept.values()) and self._reacts_to_inputs()):
            return
        self.model.stop_training = True
        raise RuntimeError(
            f"Mining stopped in epoch {epoch + 1}: the output of the network "
            "no longer depends on its input, because no score exceeds the "
            f"threshold in: {', '.join(dead)}. Received: "
            f"regularization={read_number(self._gems[0].penalty.weight):g}, "
            f"target_sparsity={self.target_sparsity:g}. Reduce the "
            "regularization or the learning rate."
        )

    def _reacts_to_inputs(self):
        """Whether two different examples have different outputs."""
        network = getattr(self.model, "model", self.model)
        symbols = getattr(network, "input", None)
        if symbols is None:  # a subclassed model does not tell its inputs
            return True
        random = np.random.default_rng(0)

        def two_examples(symbol):
            shape = tuple(size or 8 for size in symbol.shape[1:])
            examples = np.stack([np.zeros(shape), np.ones(shape)])
            if "float" in symbol.dtype:
                examples = random.normal(size=(2, *shape))
            return examples.astype(symbol.dtype)

        batch = keras.tree.map_structure(two_examples, symbols)
        outputs = keras.tree.flatten(self.model(batch, training=False))
        return any(bool(ops.any(y[0] != y[1])) for y in outputs)


def read_number(variable):
    """Returns a scalar variable as a float."""
    # `float` alone fails on variables of `tf.distribute`.
    return float(ops.convert_to_numpy(variable))


def check_training(model, gems):
    """Raises an error if anything but the scores would train.

    A model without a loss is refused at its first step.
    """
    training_logic.require_loss(model)
    for gem in gems:
        training = [v.path for v in gem.layer.trainable_variables]
        if training:
            raise ValueError(
                "While a network is mined, only the scores of its weights "
                f"can train. Received: '{gem.layer.name}', to which "
                f"{', '.join(training[:3])} was added after it was wrapped. "
                "Add it before wrapping, or after `start_finetuning()`."
            )
    for part in optimizer_parts(model.optimizer):
        if isinstance(part, Step):
            raise ValueError(
                f"{part.WHAT} is for weights, not for scores. Received: "
                f"optimizer={type(part).__name__} during mining. Mine with "
                "the plain optimizer, and fine-tune with this one."
            )
        if type(part).__name__ in ("Ftrl", "ScheduleFreeAdamW"):
            raise ValueError(
                "Scores must train from their initial values. Received: "
                f"optimizer={type(part).__name__}, which computes them from "
                "its own variables and discards the initial values, so that "
                "scores round to zero. Use `SGD` with momentum or `Adam` for "
                "mining."
            )
