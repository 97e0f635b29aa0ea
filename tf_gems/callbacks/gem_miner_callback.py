"""Gem-Miner as a callback for `fit`."""

import warnings

import keras
import numpy as np
from keras import ops

from tf_gems import regularization as regularizations
from tf_gems import schedules
from tf_gems.freezing import freeze
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.layers.zeros import refuse_frozen_beyond
from tf_gems.pointwise import refuse_too_few_zeros
from tf_gems.presets import get_preset
from tf_gems.regularization import Adaptive
from tf_gems.selection import distributions
from tf_gems.selection import patterns
from tf_gems.validation import check_bool
from tf_gems.validation import check_choice
from tf_gems.validation import check_positive_integer
from tf_gems.validation import check_sparsity
from tf_gems.validation import check_verbose


@keras.saving.register_keras_serializable(package="tf_gems")
class GemMinerCallback(keras.callbacks.Callback):
    """Freezes weights toward a target sparsity while `fit` trains scores.

    With `n` prunable weights, target density `d` and `N` freezes, the `i`-th
    freeze leaves the `round(n * d ** (i / N))` weights of the largest scores
    alive, over all layers together. The others are pruned for good. It takes
    place when epoch `i * freeze_period` begins; the last one leaves at least
    `freeze_period` epochs of training: `N = epochs // freeze_period - 1`.

    Between freezes the penalty `regularization * sum(p ** 2)` pulls scores to
    zero, so that those which the task does not hold up round to zero well
    before they are frozen. By default it adapts itself, under any optimizer
    and learning rate, also one that changes, see
    `tf_gems.regularization.Adaptive`. A given weight shrinks scores under SGD
    with momentum by
    `exp(-2 * regularization * sum(learning rates) / (1 - momentum))`: rescale
    it when that sum changes.

    What a freeze does depends on the epoch and on the model's variables
    alone. So a run that is interrupted and resumed gives the same ticket,
    wherever this callback stands in the list. It works on a `SparseModel` or
    any model that holds `GemLayer`s, under `tf.distribute` as well.

    Epoch logs: `sparsity` and `density` of the masks that the network
    computes with, `alive_density` of what is not frozen, `score_penalty` (the
    weighted sum, a part of the loss; zero when adaptive) and `regularization`
    (its weight; when adaptive, the part of a score that a step takes away).

    Freezes go by the number of the epoch. Mining in several calls of `fit`
    needs `epochs` here and `initial_epoch` there; a `fit` that begins again at
    the first epoch is refused. After mining has reached its target, another
    `fit` with a larger `target_sparsity` goes on from there.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros in the end.
        freeze_period: Integer, epochs between freezes. Defaults to `5`.
        regularization: The weight of the penalty: `"auto"` or
            `tf_gems.regularization.Adaptive`, a float, or a
            `tf_gems.schedules.Schedule` over the progress of training.
            Defaults to `"auto"`.
        stop_at_target: Whether the penalty is off in every step in which no
            more weights round to one than the ticket will keep. An adaptive
            penalty always is. Defaults to `True`; the paper has `False`.
        saturate_scores: Whether the last freeze sets the scores that it
            leaves alive to 1, so that the epochs after it train exactly the
            network of the ticket (a learning rate that is still large can
            drive scores down again). Defaults to `True`; the paper has
            `False`.
        rounding: `"exact"`: `round((1 - target_sparsity) * n)` weights are
            kept. `"reference"`: the counts of the authors' code, which end a
            few lower, see `tf_gems.schedules.geometric_counts`. Defaults to
            `"exact"`.
        epochs: Integer, the length of mining. Defaults to `None`: the epochs
            of `fit`.
        distribution: How the weights that are kept are distributed over the
            layers, see `tf_gems.distributions.get`. Defaults to `"global"`,
            the paper's, with at least one kept in each; a warning names the
            weights at that minimum.
        pattern: What freezes together, see `tf_gems.patterns.get`. Defaults to
            `"unstructured"`.
        inverted: Whether to freeze the *largest* scores instead, a check of
            whether scores mean anything. Defaults to `False`.
        verbose: `1` prints a line for each freeze. Defaults to `0`.

    Raises:
        ValueError: If an argument is out of range, or `freeze_period` leaves
            no freeze within training, or the model prunes nothing, or mining
            is resumed with another target or begins again where it has begun,
            or the optimizer cannot train scores (`Ftrl`,
            `ScheduleFreeAdamW`).
        RuntimeError: If the network died, a loss or score is not finite, or
            an epoch had no data. An epoch with fewer batches than others is
            as good: freezes go by epochs.

    Example:

    ```python
    callback = tf_gems.GemMinerCallback(target_sparsity=0.9856)
    sparse.fit(data, epochs=150, callbacks=[callback])
    ```

    Reference: Sreenivasan et al., 2022, "Rare Gems: Finding Lottery Tickets
    at Initialization", Algorithm 1.
    """

    def __init__(
        self,
        target_sparsity,
        freeze_period=5,
        regularization="auto",
        stop_at_target=True,
        saturate_scores=True,
        rounding="exact",
        epochs=None,
        distribution="global",
        pattern="unstructured",
        inverted=False,
        verbose=0,
    ):
        super().__init__()
        self.target_sparsity = check_sparsity(target_sparsity)
        self.freeze_period = check_positive_integer(
            freeze_period, "freeze_period"
        )
        self.regularization = regularizations.get(regularization)
        self.stop_at_target = check_bool(stop_at_target, "stop_at_target")
        self.saturate_scores = check_bool(saturate_scores, "saturate_scores")
        if not stop_at_target and isinstance(self.regularization, Adaptive):
            raise ValueError(
                "The adaptive penalty is always off once the target is met. "
                f"Received: stop_at_target={stop_at_target}, "
                f"regularization={regularization!r}. Leave `stop_at_target` "
                "out, or pass a number or a schedule as `regularization`."
            )
        self.rounding = check_choice(
            rounding, "rounding", ("exact", "reference")
        )
        self.epochs = epochs
        if epochs is not None:
            self.epochs = check_positive_integer(epochs, "epochs")
        self.distribution = distributions.get(distribution)
        self.pattern = patterns.get(pattern)
        patterns.refuse_too_dense(self.pattern, self.target_sparsity)
        self.inverted = check_bool(inverted, "inverted")
        self.verbose = check_verbose(verbose)
        self._gems = []
        self._counts = []
        self._at_floor = set()
        self._steps_before = None

    @classmethod
    def from_preset(cls, preset, target_sparsity, **kwargs):
        """Makes a callback with the settings of a preset.

        Args:
            preset: Name of a preset, such as `"paper"`; see
                `tf_gems.presets`.
            target_sparsity: Float in [0, 1), the fraction of zeros.
            **kwargs: Arguments that replace those of the preset.
        """
        settings = {**get_preset(preset)["callback"], **kwargs}
        return cls(target_sparsity, **settings)

    def on_train_begin(self, logs=None):
        self._gems = find_gem_layers(self.model)
        if not self._gems:
            raise ValueError(
                "`GemMinerCallback` needs scores to train. Received: model "
                f"'{self.model.name}' of type {type(self.model).__name__}, "
                "which holds no `GemLayer`. Wrap it: "
                "`tf_gems.SparseModel(model)`."
            )
        if not all(gem.built for gem in self._gems):
            raise ValueError(
                "A model must be built before it is mined. Received: model "
                f"'{self.model.name}', whose weights are made by its first "
                "call. Call it once on data before `fit`."
            )
        if any(gem.phase != "mining" for gem in self._gems):
            raise ValueError(
                "`GemMinerCallback` belongs to the mining phase. Received: "
                f"model '{self.model.name}', which is fine-tuning with fixed "
                "masks. Leave the callback out of this `fit`."
            )
        refuse_too_few_zeros(self._gems, self.target_sparsity)
        _refuse_forgetful(self.model.optimizer)
        epochs = self.epochs or self.params["epochs"]
        freezes = epochs // self.freeze_period - 1
        if freezes < 1:
            raise ValueError(
                "`freeze_period` must leave time to freeze and to go on "
                "training: at least two periods in all. Received: "
                f"freeze_period={self.freeze_period}, epochs={epochs}. Use "
                f"freeze_period={max(1, epochs // 4)} or more epochs."
            )
        self._epochs = epochs
        size = sum(gem.size for gem in self._gems)
        self._counts = schedules.geometric_counts(
            size, 1.0 - self.target_sparsity, freezes, self.rounding
        )
        tensors = sum(len(gem.prunable) for gem in self._gems)
        least = max(1, tensors * getattr(self.distribution, "minimum", 0))
        if self._counts[-1] < least:
            raise ValueError(
                f"`target_sparsity` must leave {least} of {size:,} weights. "
                f"Received: target_sparsity={self.target_sparsity:g}. Use "
                f"{1 - least / size:g} or less."
            )
        refuse_frozen_beyond(self._gems, self.target_sparsity, self._counts[-1])

    def on_epoch_begin(self, epoch, logs=None):
        # Here, not when training begins: a backup is restored after that.
        self._refuse_another_start(epoch)
        self._warn_of_no_freeze(epoch)
        self._set_target(epoch)
        self._refuse_lost_scores(epoch, "was resumed before")
        self._steps_before = self._count_steps_done()
        last = len(self._counts) - 1
        freeze = min(epoch // self.freeze_period, last)
        self._freeze(self._counts[freeze])
        alive = [gem.count_alive() for gem in self._gems]
        for gem, count in zip(self._gems, alive, strict=True):
            limit = self._counts[-1] * count // sum(alive)
            self._regularize(gem, limit, epoch)

    def _regularize(self, gem, limit, epoch):
        if isinstance(self.regularization, Adaptive):
            steps = self._count_steps(epoch)
            self.regularization.begin_epoch(gem, limit, steps)
        else:
            weight = self.regularization(min(1.0, epoch / self._epochs))
            gem.penalty.set_constant(
                weight, limit if self.stop_at_target else 0
            )

    def _refuse_another_start(self, epoch):
        """Lets an epoch begin that has been mined only to go further."""
        done = max(_to_int(gem.penalty.epochs) for gem in self._gems)
        if done <= epoch:
            return
        alive = sum(gem.count_alive() for gem in self._gems)
        before = _to_int(self._gems[0].target)
        size = sum(gem.size for gem in self._gems)
        if alive > before:
            raise ValueError(
                "Freezes go by the number of the epoch, so that mining goes "
                "on where it stopped: a `fit(epochs=1)` in a loop would never "
                f"freeze. Received: epoch {epoch + 1} of a model that was "
                f"mined for {done} epochs, with {alive:,} of {size:,} weights "
                f"alive. Pass `fit(initial_epoch={done}, ...)`, with the same "
                "`epochs` for this callback, or begin anew: call "
                f"`reset_mining()` of its `GemLayer` '{self._gems[0].name}'."
            )
        if self._counts[-1] >= alive:
            raise ValueError(
                "Weights that are frozen never come back, so that mining goes "
                "on to a larger sparsity only. Received: "
                f"target_sparsity={self.target_sparsity:g}, for a model of "
                f"which mining has left {alive:,} of {size:,} weights, a "
                f"sparsity of {1 - alive / size:g}. Use a larger one, or "
                "train the ticket (`start_finetuning()`), or begin anew: call "
                f"`reset_mining()` of its `GemLayer` '{self._gems[0].name}'."
            )
        for gem in self._gems:
            gem.penalty.reset()

    def _warn_of_no_freeze(self, epoch):
        """Warns of a first `fit` that ends before anything freezes."""
        epochs = self.params["epochs"]
        if (
            epoch == 0
            and epochs <= self.freeze_period
            and epochs < self._epochs
        ):
            warnings.warn(
                f"This `fit` ends before the first freeze: mining is "
                f"{self._epochs} epochs long, and weights freeze when epoch "
                f"{self.freeze_period + 1} begins. Received: epochs={epochs}. "
                "Go on with "
                f"`fit(initial_epoch={epochs}, epochs={self._epochs}, ...)`; "
                "a `fit(epochs=1)` in a loop would never freeze.",
                stacklevel=2,
            )

    def _set_target(self, epoch):
        """Sets the target of all layers, which mining keeps until its end."""
        target = self._counts[-1]
        for gem in self._gems:
            begun = int(_to_float(gem.target))
            if epoch and begun not in (0, target):
                size = sum(gem.size for gem in self._gems)
                raise ValueError(
                    "Mining is resumed with the target that it began with. "
                    f"Received: target_sparsity={self.target_sparsity:g}, "
                    f"which leaves {target:,} of {size:,} weights, in epoch "
                    f"{epoch + 1}; it began with a target of {begun:,}. Use "
                    f"target_sparsity={1 - begun / size:g}, or begin anew, "
                    "without the backup."
                )
            gem.target.assign(target)

    def _refuse_lost_scores(self, epoch, when, loss=0.0):
        """Stops training of which nothing but NaN can come."""
        lost = [
            weight.path
            for gem in self._gems
            for weight in gem.prunable
            if not weight.has_finite_score()
        ]
        if np.isfinite(loss) and not lost:
            return
        self.model.stop_training = True
        rate = _to_float(self.model.optimizer.learning_rate)
        raise RuntimeError(
            f"Mining {when} epoch {epoch + 1}: a loss or a score is not a "
            "finite number, and such scores have no order to freeze by. "
            f"Received: loss={loss:g}, learning_rate={rate:g}, scores lost "
            f"in: {', '.join(lost) or 'none'}. The masks are as they were. "
            "Lower the learning rate, or look for such numbers in the data."
        )

    def _refuse_no_data(self, epoch, loss):
        """Stops training that would freeze on without having trained."""
        # On TensorFlow a reading beyond the end of the data counts as a step.
        if loss or self._count_steps_done() > self._steps_before + 1:
            return
        # A batch of which all sample weights are zero is counted there.
        metrics = [v for m in self.model.metrics for v in m.variables]
        if any(ops.convert_to_numpy(v).any() for v in metrics):
            return
        self.model.stop_training = True
        raise RuntimeError(
            f"Mining stopped in epoch {epoch + 1}: the data ended before its "
            "first batch, so that no score was trained. Received: steps="
            f"{self.params['steps']}. Pass data that can be read in every "
            "epoch, such as a `tf.data.Dataset` or a `keras.utils.PyDataset`, "
            "or `.repeat()` it."
        )

    def _count_steps_done(self):
        # Not those of the optimizer: a user's own step may have several.
        return max(_to_int(gem.penalty.steps) for gem in self._gems)

    def _count_steps(self, epoch):
        """Returns the steps up to the last freeze, `None` while unknown."""
        steps = self.params["steps"]
        if steps is None and epoch:  # a data set that does not tell its length
            steps = _to_float(self._gems[0].penalty.steps) / epoch
        return steps and steps * self.freeze_period * (len(self._counts) - 1)

    def _freeze(self, count):
        """Leaves the `count` alive weights of the largest scores alive."""
        weights = [w for gem in self._gems for w in gem.prunable]
        if sum(gem.count_alive() for gem in self._gems) <= count:
            return
        freeze(weights, count, self.distribution, self.pattern, self.inverted)
        self._report_floor(weights)
        if self.saturate_scores and count == self._counts[-1]:
            for gem in self._gems:
                gem.saturate_scores()
        if self.verbose:
            size = sum(gem.size for gem in self._gems)
            print(f"\nFroze all but {count:,} of {size:,} weights.")

    def _report_floor(self, weights):
        """Warns, once for each, of weights that only the floor keeps alive."""
        least = getattr(self.distribution, "minimum", 0)
        for weight in weights:
            path, size = weight.path, weight.alive.size
            at_floor = size > least == weight.alive.count()
            if at_floor and path not in self._at_floor:
                self._at_floor.add(path)
                warnings.warn(
                    f"'{path}' is down to {least} of {size:,} weights, "
                    "which the distribution keeps alive. Lower "
                    "`target_sparsity`, or give the layer its share by "
                    "`distribution`.",
                    stacklevel=2,
                )

    def on_epoch_end(self, epoch, logs=None):
        loss = float((logs or {}).get("loss", 0.0))
        self._refuse_no_data(epoch, loss)
        self._refuse_lost_scores(epoch, "stopped in", loss)
        kept = {
            w.path: int(ops.count_nonzero(mask))
            for gem in self._gems
            for w, mask in zip(gem.prunable, gem.masks(), strict=True)
        }
        for gem in self._gems:
            gem.penalty.epochs.assign(epoch + 1)
        alive = sum(gem.count_alive() for gem in self._gems)
        size = sum(gem.size for gem in self._gems)
        density = sum(kept.values()) / size
        if logs is not None:
            logs["sparsity"] = 1.0 - density
            logs["density"] = density
            logs["alive_density"] = alive / size
            logs["score_penalty"] = sum(
                _to_float(gem.penalty.weight) * _to_float(gem.score_penalty())
                for gem in self._gems
                if not _to_float(gem.penalty.gain)
            )
            logs["regularization"] = _to_float(self._gems[0].penalty.weight)
        self._stop_if_dead(epoch, kept)

    def _stop_if_dead(self, epoch, kept):
        """Stops training that has nothing left to train."""
        dead = [path for path, count in kept.items() if count == 0]
        if not dead or (any(kept.values()) and self._answers()):
            return
        self.model.stop_training = True
        raise RuntimeError(
            f"Mining stopped in epoch {epoch + 1}: the network is dead, its "
            "output no longer depends on its input. No score exceeds the "
            f"threshold in: {', '.join(dead)}. Received: "
            f"regularization={_to_float(self._gems[0].penalty.weight):g}, "
            f"target_sparsity={self.target_sparsity:g}. Lower the "
            "regularization or the learning rate."
        )

    def _answers(self):
        """Whether two unlike examples get unlike outputs."""
        network = getattr(self.model, "model", self.model)
        symbols = getattr(network, "input", None)
        if symbols is None:  # a subclassed model does not tell its inputs
            return True
        random = np.random.default_rng(0)

        def two_examples(symbol):
            shape = tuple(size or 8 for size in symbol.shape[1:])
            if "float" in symbol.dtype:
                return random.normal(size=(2, *shape)).astype(symbol.dtype)
            return np.stack([np.zeros(shape), np.ones(shape)]).astype(
                symbol.dtype
            )

        batch = keras.tree.map_structure(two_examples, symbols)
        outputs = keras.tree.flatten(self.model(batch, training=False))
        return any(bool(ops.any(y[0] != y[1])) for y in outputs)

    def get_config(self):
        return {
            "target_sparsity": self.target_sparsity,
            "freeze_period": self.freeze_period,
            "regularization": keras.saving.serialize_keras_object(
                self.regularization
            ),
            "stop_at_target": self.stop_at_target,
            "saturate_scores": self.saturate_scores,
            "rounding": self.rounding,
            "epochs": self.epochs,
            "distribution": keras.saving.serialize_keras_object(
                self.distribution
            ),
            "pattern": keras.saving.serialize_keras_object(self.pattern),
            "inverted": self.inverted,
            "verbose": self.verbose,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _to_float(value):
    # `float` alone fails on variables of `tf.distribute`.
    return float(ops.convert_to_numpy(value))


def _to_int(variable):
    return int(ops.convert_to_numpy(variable))


def _refuse_forgetful(optimizer):
    """Refuses optimizers that forget the scores that they are given."""
    # A scaled loss has one optimizer within, a `MultiOptimizer` several.
    inner = getattr(optimizer, "inner_optimizer", None)
    parts = [inner] if inner else getattr(optimizer, "optimizers", [optimizer])
    for part in parts:
        if type(part).__name__ in ("Ftrl", "ScheduleFreeAdamW"):
            raise ValueError(
                "Scores train from the values that they are drawn with. "
                f"Received: optimizer={type(part).__name__}, which computes "
                "them from variables of its own and forgets those values, so "
                "that scores round to zero. Use `SGD` with momentum or `Adam` "
                "to mine."
            )
