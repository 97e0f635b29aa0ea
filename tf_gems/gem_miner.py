"""Gem-Miner trains which weights to keep, while the weights stay fixed.

Algorithm 1 of "Rare Gems", for weights `w` that stay at their initial values,
scores `p` in [0, 1], flags `q` (1: alive), a learning rate `lr`, a target
density `d` and `N` freezes:

    p ~ U(0, 1);  q = 1;  n = number of prunable weights
    for epoch in 0, 1, ..., epochs - 1:
        if epoch is i * freeze_period, for i in 1, ..., N:           # freeze
            q <- 1 for the round(n * d ** (i / N)) largest p with q = 1
        for each batch x, y:
            m = round(p)                                             # mask
            loss = L(f(w * m * q; x), y) + weight * sum(p ** 2)      # penalty
            p <- clip(p - lr * d loss / d m, 0, 1)     # straight-through
    the ticket: the weights with q = 1, which are exactly round(n * d)

The mask and its gradient are those of `tf_gems.layers.RoundMask`; the forward
pass and the projection of the scores are those of `tf_gems.layers.GemLayer`.
This module contains the callback that runs the algorithm in `fit`, the freeze,
the penalty, and the adaptation of its weight.

Reference: Sreenivasan et al., 2022, "Rare Gems: Finding Lottery Tickets at
Initialization", Algorithm 1.
"""

import math

import keras
import numpy as np
from keras import ops

from tf_gems import registry
from tf_gems import schedules
from tf_gems.filter_policies import refuse_too_few_zeros
from tf_gems.layers.calling import add_state
from tf_gems.layers.freeze_in_place import freeze_in_place
from tf_gems.layers.gem_layer import built_gem_layers
from tf_gems.layers.prunable_weight import set_alive
from tf_gems.layers.zeros import freeze_zeros_above
from tf_gems.layers.zeros import refuse_frozen_beyond
from tf_gems.mining_guards import GuardedMining
from tf_gems.mining_guards import check_training
from tf_gems.mining_guards import read_number
from tf_gems.selection import distributions
from tf_gems.selection import patterns
from tf_gems.validation import check_bool
from tf_gems.validation import check_choice
from tf_gems.validation import check_count_or_none
from tf_gems.validation import check_positive_integer
from tf_gems.validation import check_sparsity
from tf_gems.validation import check_verbose
from tf_gems.validation import is_number

# Arguments of `SparseModel` and `GemMinerCallback`. "paper": the authors'.
PRESETS = {
    "paper": {
        "model": {"mask": "round", "kernel_initializer": "signed_constant"},
        "callback": {
            "regularization": 1e-4,
            "stop_at_target": False,
            "saturate_scores": False,
            "freeze_period": 5,
        },
    },
}


def get_preset(name):
    """Returns `{"model": ..., "callback": ...}`, the settings of a preset."""
    return PRESETS[check_choice(name, "preset", PRESETS)]


@keras.saving.register_keras_serializable(package="tf_gems")
class GemMinerCallback(registry.Configurable, GuardedMining):
    """Freezes weights toward a target sparsity while `fit` trains scores.

    Weights are frozen at the beginning of an epoch, every `freeze_period`
    epochs, as in Algorithm 1 with `N = epochs // freeze_period - 1`. At least
    `freeze_period` epochs of training follow the last freeze.

    The number of epochs is the only hyperparameter, if the model is compiled
    with `"auto"`, see `tf_gems.optimizers.ScoreOptimizer`. Any other optimizer
    needs a learning rate for the scores. The penalty adapts itself, see
    `tf_gems.gem_miner.Adaptive`. (A constant `regularization` has to be
    rescaled with the sum of all learning rates.)

    A freeze depends only on the epoch and on the variables of the model, so a
    run that is resumed gives the same ticket. Any model with `GemLayer`s can
    be mined, also with `tf.distribute`.

    Epoch logs: `sparsity` and `density` of the masks, `alive_density`, the
    fraction of weights that are not frozen, `score_penalty` (in the loss; zero
    if adaptive) and `regularization` (the weight of the penalty).

    To mine in several calls of `fit`, pass `epochs` here and `initial_epoch`
    there. Another `fit` with a larger `target_sparsity` continues from the
    first.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros in the end.
        freeze_period: Integer, epochs between freezes. Defaults to `5`.
        regularization: The weight of the penalty: `"auto"` or
            `tf_gems.gem_miner.Adaptive`, a float, or a
            `tf_gems.schedules.Schedule` over the progress of training.
            Defaults to `"auto"`.
        stop_at_target: Whether the penalty is off in every step in which at
            most as many scores round to 1 as the ticket will keep. An adaptive
            penalty is always off in such steps. Defaults to `True`; the paper
            uses `False`.
        saturate_scores: Whether the last freeze sets the scores of alive
            weights to 1, so that the remaining epochs use the network of the
            ticket. Defaults to `True`; the paper uses `False`.
        rounding: `"exact"`: `round((1 - target_sparsity) * n)` weights are
            kept. `"reference"`: the counts of the authors' code, which are
            slightly lower at the end, see
            `tf_gems.schedules.geometric_counts`. Defaults to `"exact"`.
        epochs: Integer, the length of mining. Defaults to `None`: the epochs
            of `fit`.
        distribution: How the kept weights are distributed over the layers, see
            `tf_gems.distributions.get`. Defaults to `"global"`, as in the
            paper, with at least one kept weight in each layer. A warning names
            the layers at this minimum.
        pattern: Which weights are frozen together, see `tf_gems.patterns.get`.
            Defaults to `"unstructured"`.
        inverted: Whether to freeze the weights with the *largest* scores
            instead, as a sanity check. Defaults to `False`.
        verbose: `1` prints a line for each freeze. Defaults to `0`.

    Raises:
        ValueError: If an argument is out of range, no freeze fits into
            training, the model prunes nothing, mining is resumed with another
            target or starts again, or the optimizer cannot train scores.
        RuntimeError: If the output of the network no longer depends on its
            input, a loss or score is not finite, or an epoch has no data.
            Epochs can differ in length, because freezing depends only on the
            epoch number.

    Example:

    ```python
    callback = tf_gems.GemMinerCallback(target_sparsity=0.9856)
    sparse.fit(data, epochs=150, callbacks=[callback])
    ```
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
        self.regularization = get_regularization(regularization)
        self.stop_at_target = check_bool(stop_at_target, "stop_at_target")
        self.saturate_scores = check_bool(saturate_scores, "saturate_scores")
        if not stop_at_target and isinstance(self.regularization, Adaptive):
            raise ValueError(
                "The adaptive penalty is always off when the target is "
                f"reached. Received: stop_at_target={stop_at_target}, "
                f"regularization={regularization!r}. Leave `stop_at_target` "
                "out, or pass a number or a schedule as `regularization`."
            )
        self.rounding = check_choice(
            rounding, "rounding", ("exact", "reference")
        )
        self.epochs = check_count_or_none(epochs, "epochs")
        self.distribution = distributions.get(distribution)
        self.pattern = patterns.get(pattern)
        patterns.refuse_too_dense(self.pattern, self.target_sparsity)
        self.inverted = check_bool(inverted, "inverted")
        self.verbose = check_verbose(verbose)
        self._gems, self._counts = [], []
        self._at_minimum = set()
        self._steps_before = None

    @classmethod
    def from_preset(cls, preset, target_sparsity, **kwargs):
        """Creates a callback with the settings of a preset, such as `"paper"`.

        Args:
            preset: Name of a preset.
            target_sparsity: Float in [0, 1).
            **kwargs: Arguments that replace those of the preset.
        """
        settings = {**get_preset(preset)["callback"], **kwargs}
        return cls(target_sparsity, **settings)

    def on_train_begin(self, logs=None):
        self._gems = built_gem_layers(self.model, "GemMinerCallback")
        if any(gem.phase != "mining" for gem in self._gems):
            raise ValueError(
                "`GemMinerCallback` is for the mining phase. Received: model "
                f"'{self.model.name}', which is in the fine-tuning phase with "
                "fixed masks. Leave the callback out of this `fit`."
            )
        refuse_too_few_zeros(self._gems, self.target_sparsity)
        check_training(self.model, self._gems)
        self._epochs = self.epochs or self.params["epochs"]
        freezes = schedules.count_freezes(self.freeze_period, self._epochs)
        self._counts = schedules.geometric_counts(
            self._size, 1.0 - self.target_sparsity, freezes, self.rounding
        )
        tensors = sum(len(gem.prunable) for gem in self._gems)
        least = max(1, tensors * getattr(self.distribution, "minimum", 0))
        self._refuse_fewer_than(least)
        refuse_frozen_beyond(self._gems, self.target_sparsity, self._counts[-1])

    def on_epoch_begin(self, epoch, logs=None):
        # Here, not when training begins: a backup is restored after that.
        self._refuse_restart(epoch)
        self._warn_of_no_freeze(epoch)
        self._set_target(epoch)
        self._set_learning_rate(epoch)
        self._refuse_non_finite(epoch, "was resumed before")
        self._steps_before = self._steps_done()
        last = len(self._counts) - 1
        self._freeze(self._counts[min(epoch // self.freeze_period, last)])
        alive = [gem.count_alive() for gem in self._gems]
        for gem, count in zip(self._gems, alive, strict=True):
            limit = self._counts[-1] * count // sum(alive)
            if isinstance(self.regularization, Adaptive):
                steps = self._steps_to_last_freeze(epoch)
                self.regularization.begin_epoch(gem, limit, steps)
            else:
                weight = self.regularization(min(1.0, epoch / self._epochs))
                limit = limit if self.stop_at_target else 0
                gem.penalty.set_constant(weight, limit)

    def _freeze(self, count):
        """Keeps the `count` alive weights of the largest scores alive."""
        if self._alive() <= count:
            return
        weights = [w for gem in self._gems for w in gem.prunable]
        freeze(weights, count, self.distribution, self.pattern, self.inverted)
        self._at_minimum |= distributions.warn_at_minimum(
            self.distribution,
            {w.path: (w.alive.count(), w.alive.size) for w in weights},
            self._at_minimum,
        )
        if self.saturate_scores and count == self._counts[-1]:
            for gem in self._gems:
                gem.saturate_scores()
        if self.verbose:
            print(f"\nFroze all but {count:,} of {self._size:,} weights.")

    def on_epoch_end(self, epoch, logs=None):
        loss = float((logs or {}).get("loss", 0.0))
        self._refuse_no_data(epoch, loss)
        self._refuse_non_finite(epoch, "stopped in", loss)
        kept = {
            w.path: count
            for gem in self._gems
            for w, count in zip(gem.prunable, gem.count_kept(), strict=True)
        }
        for gem in self._gems:
            gem.penalty.epochs.assign(epoch + 1)
        if logs is not None:
            density = sum(kept.values()) / self._size
            logs["sparsity"], logs["density"] = 1.0 - density, density
            logs["alive_density"] = self._alive() / self._size
            logs["score_penalty"] = sum(
                read_number(gem.penalty.weight)
                * read_number(gem.score_penalty())
                for gem in self._gems
                if not read_number(gem.penalty.gain)
            )
            logs["regularization"] = read_number(self._gems[0].penalty.weight)
        self._refuse_dead(epoch, kept)

    def _steps_to_last_freeze(self, epoch):
        """Returns the steps up to the last freeze, `None` while unknown."""
        steps = self._steps_an_epoch(epoch)
        return steps and steps * self.freeze_period * (len(self._counts) - 1)


def freeze(weights, count, distribution, pattern, inverted=False):
    """Keeps the `count` alive weights of the largest scores alive.

    Weights that are zero are frozen first, because a ticket keeps only nonzero
    weights. Scores on an accelerator are ranked there if all of them are
    ranked together, otherwise with NumPy. Both give bitwise equal flags.

    Args:
        weights: List of `PrunableWeight`, of the whole network.
        count: Positive integer, less than are alive.
        distribution: `tf_gems.distributions.Distribution`.
        pattern: `tf_gems.patterns.Pattern`.
        inverted: Whether the smallest scores stay alive instead.
    """
    least = max(1, getattr(distribution, "minimum", 1))
    if freeze_zeros_above(weights, count, least) <= count:
        return
    kinds = type(distribution), type(pattern)
    if kinds == (distributions.Global, patterns.Unstructured):
        if weights[0].on_accelerator and freeze_in_place(
            weights, count, distribution.minimum, inverted
        ):
            return
    alive = [np.asarray(w.alive) for w in weights]
    scores = [w.read_score() for w in weights]
    if inverted:
        scores = [-score for score in scores]
    density = count / sum(score.size for score in scores)
    paths = [w.path for w in weights]
    kept = distribution.keep(scores, density, paths, pattern, alive)
    set_alive(weights, kept)


# The largest part of a score that one step may take away.
_LARGEST_RATE = 0.2
# An error in the logarithm of the density that has its full effect.
_BAND = 0.1


class ScorePenalty:
    """Reduces the scores of a layer while too many of them round to 1.

    The penalty is off while `kept <= limit`, where `kept` is the number of
    scores that round to 1. Below the target the network would not be that of
    the ticket. The penalty is also off for a tensor in which at most one score
    rounds to 1.

    **A constant penalty** (`gain = 0`) is a part of the loss, as in the paper:

        loss <- loss + weight * sum(p ** 2)

    **An adaptive penalty** (`gain > 0`) depends neither on the learning rate
    nor on how the optimizer scales a gradient `g`:

        g <- g + 2 * p * mean(abs(g))           before the optimizer's step
        p <- clip(p * (1 - shrinkage), 0, 1)    after it

    The first line determines *which* scores fall, those with relatively small
    gradients. Without it, an optimizer that normalizes gradients would move
    all scores by the same step. The second line determines *how many* scores
    fall. Its rate, `weight`, is the Lagrange multiplier of the constraint
    `kept <= limit`. It is adapted at every step, while the limit falls
    geometrically to the target:

        weight <- weight * exp(gain * clip(log(kept / limit) / 0.1, -1, 1))
        limit  <- max(final_limit, limit * decay)

    Args:
        layer: `GemLayer` that is to own the variables.
        prunable: List of `PrunableWeight`.

    Attributes:
        weight, limit, final_limit, decay, gain: Float32 scalar variables,
            equal on all replicas and in every checkpoint.
        steps, epochs: Integer scalar variables, the length of mining so far.

    Reference: Platt & Barr, 1987, "Constrained differential optimization".
    """

    def __init__(self, layer, prunable):
        self._layer = layer
        self.prunable = prunable
        self.variables = [w.shrinkage for w in prunable]
        floats = ("weight", "limit", "final_limit", "decay", "gain")
        for name in (*floats, "steps", "epochs"):
            dtype = "float32" if name in floats else "int"
            variable = add_state(layer, f"penalty_{name}", dtype)
            setattr(self, name, variable)
            self.variables.append(variable)

    def reset(self):
        """Switches the penalty off."""
        for variable in self.variables:
            variable.assign(0)

    def set_constant(self, weight, limit):
        """Sets a constant weight, and the limit at which it is off."""
        for variable in (self.gain, *(w.shrinkage for w in self.prunable)):
            variable.assign(0.0)
        self.weight.assign(weight)
        self.limit.assign(limit)
        self.final_limit.assign(limit)
        self.decay.assign(1.0)

    def adapt(self, rate, gain, limit, decay):
        """Starts to adapt from `weight = rate`; `final_limit` is set later."""
        self.weight.assign(min(rate, _LARGEST_RATE))
        self.gain.assign(gain)
        self.limit.assign(limit)
        self.decay.assign(decay)

    def pulls(self, masks):
        """Returns 1.0 if an adaptive penalty is on for these masks, else 0."""
        kept = sum(ops.cast(_count(mask), "float32") for mask in masks)
        pulls = ops.logical_and(kept > self.limit, self.gain > 0.0)
        return ops.cast(pulls, "float32")

    def pull(self, masks):
        """Returns the masks, with the pull added to their gradients."""
        pulls = self.pulls(masks)
        scores, alive = _scores_and_flags(self.prunable)

        @ops.custom_gradient
        def identity(*masks):
            def gradient(*args, upstream=None):
                given = args if upstream is None else upstream
                given = keras.tree.flatten(given)
                return tuple(_pulled(given, scores, alive, pulls))

            return tuple(ops.copy(mask) for mask in masks), gradient

        return list(identity(*masks))

    def pull_gradients(self, gradients, pulls):
        """Returns gradients with the pull added, a dict by the places."""
        prunable = [self.prunable[place] for place in gradients]
        given = [ops.convert_to_tensor(g) for g in gradients.values()]
        pulled = _pulled(given, *_scores_and_flags(prunable), pulls)
        return dict(zip(gradients, pulled, strict=True))

    def __call__(self, masks):
        """Returns the loss for these masks, and adapts for the next step."""
        masks = [ops.stop_gradient(mask) for mask in masks]
        counts = [ops.cast(_count(mask), "float32") for mask in masks]
        # Copies, which do not see the assignments below.
        weight, limit = ops.copy(self.weight), ops.copy(self.limit)
        kept, gain = sum(counts), ops.convert_to_tensor(self.gain)
        adapts = gain > 0.0
        # Plus one: with a limit of zero the penalty is never off.
        error = ops.log((kept + 1.0) / (limit + 1.0)) / _BAND
        risen = weight * ops.exp(gain * ops.clip(error, -1.0, 1.0))
        risen = ops.where(adapts, ops.minimum(risen, _LARGEST_RATE), weight)
        self.weight.assign(risen)
        self.limit.assign(ops.maximum(self.final_limit, limit * self.decay))
        self.steps.assign(self.steps + 1)
        weight = ops.where(kept > limit, weight, 0.0)
        rate = ops.where(adapts, weight, 0.0)
        carried = self._shrink(masks, counts, rate, kept - limit)
        squares = [
            ops.cast(count > 1.0, "float32") * ops.sum(ops.square(w.score))
            for count, w in zip(counts, self.prunable, strict=True)
        ]
        return carried + ops.where(adapts, 0.0, weight) * sum(squares)

    def _shrink(self, masks, counts, rate, excess):
        """Sets what the scores shrink by after the optimizer's step.

        `shrinkage = rate * min(1, excess / fallen)`, where `fallen` scores
        would round to zero by the whole rate. So no step takes the density
        below its limit, nor the largest score of a tensor below the threshold.

        Returns a scalar for the loss, see `PrunableWeight.shrink`.
        """
        threshold = getattr(self._layer.mask, "threshold", 0.5)
        rates, fallen = [], 0.0
        for w, mask, count in zip(self.prunable, masks, counts, strict=True):
            kept = ops.stop_gradient(ops.copy(w.score)) * mask
            largest = ops.maximum(ops.max(kept), threshold)
            # A little less, for rounding.
            room = ops.maximum(1.0 - 1.0001 * threshold / largest, 0.0)
            own = ops.where(count > 1.0, ops.minimum(rate, room), 0.0)
            stays = ops.cast(kept * (1.0 - own) > threshold, "float32")
            fallen = fallen + count - ops.cast(_count(stays), "float32")
            rates.append(own)
        share = ops.clip(excess / ops.maximum(fallen, 1.0), 0.0, 1.0)
        return sum(
            w.shrink(own * share)
            for w, own in zip(self.prunable, rates, strict=True)
        )


def _scores_and_flags(prunable):
    scores = [ops.stop_gradient(ops.copy(w.score)) for w in prunable]
    return scores, [ops.cast(w.alive.read(), "float32") for w in prunable]


def _pulled(gradients, scores, alive, pulls):
    """Returns `g + 2 * p * mean(abs(g))`, the mean over what is alive."""
    total = sum(
        ops.sum(ops.abs(g) * q) for g, q in zip(gradients, alive, strict=True)
    )
    unit = 2.0 * pulls * total / sum(map(ops.sum, alive))
    return [g + unit * p for g, p in zip(gradients, scores, strict=True)]


def _count(mask):
    """Returns the sum of a mask, exactly, without a copy in other numbers."""
    # TensorFlow adds up int32 on the host, and JAX has no int64.
    tensorflow = keras.backend.backend() == "tensorflow"
    wide = "int64" if tensorflow else "int32"
    return ops.sum(ops.cast(ops.sum(mask, axis=-1), wide))


@keras.saving.register_keras_serializable(package="tf_gems")
class Adaptive(registry.Configurable):
    """Adapts the penalty so that the density of the masks falls to its target.

    Mining minimizes the loss subject to `kept <= limit`, see `ScorePenalty`.
    The limit falls geometrically, from the number of scores that round to 1 to
    the target, during the fraction `descent` of the steps up to the last
    freeze. During the remaining steps the network adapts at the target
    density. The first step reduces every score by the fraction `log(limit /
    final_limit) / steps_of_descent`. This rate can change by a factor of
    `exp(10)` within the descent.

    Args:
        descent: Float in (0, 1], see above. The descent takes at least 100
            steps, or all steps if there are fewer. Defaults to `0.7`.
    """

    def __init__(self, descent=0.7):
        if not is_number(descent) or not 0 < descent <= 1:
            raise ValueError(
                "`descent` must be a fraction of the steps up to the last "
                f"freeze, in (0, 1]. Received: descent={descent!r}. Leave it "
                "out, or pass 0.7."
            )
        self.descent = float(descent)

    def begin_epoch(self, gem, final_limit, steps):
        """Sets the target of a layer, and starts to adapt in the first epoch.

        Args:
            gem: `GemLayer`.
            final_limit: Integer, how many of its weights shall round to one.
            steps: Number of steps up to the last freeze, `None` if unknown.
        """
        penalty, final_limit = gem.penalty, max(1, final_limit)
        if steps and not read_number(penalty.gain):
            limit = max(final_limit, sum(gem.count_kept()))
            descent = min(max(100, self.descent * steps), max(1.0, steps))
            # Scores that begin at the target halve at least.
            rate = math.log(max(2.0, limit / final_limit)) / descent
            decay = (final_limit / limit) ** (1 / descent)
            penalty.adapt(rate, 10.0 / descent, limit, decay)
        penalty.final_limit.assign(final_limit)


def get_regularization(identifier):
    """Returns the weight of the penalty: an `Adaptive` or a schedule.

    Args:
        identifier: `"auto"`, an `Adaptive`, or what `tf_gems.schedules.get`
            takes, such as a number.
    """
    if is_number(identifier):
        identifier = schedules.Constant(identifier)
    schedule = registry.get(
        identifier,
        {"auto": Adaptive, **schedules.SCHEDULES},
        "regularization",
        (Adaptive, schedules.Schedule),
    )
    if isinstance(schedule, Adaptive):
        return schedule
    least = min(float(schedule(progress)) for progress in (0.0, 1.0))
    if not least >= 0:
        raise ValueError(
            "`regularization` must not be negative, or it would drive all "
            f"scores to 1. Received: regularization={least!r}."
        )
    return schedule
