"""The weight of the score penalty: on a schedule, or adapted to a target."""

import math

import keras
from keras import ops

from tf_gems import registry
from tf_gems import schedules
from tf_gems.validation import is_number

# Fewest steps in which the bound falls to its target, or a guess changes
# e-fold: ten times the memory of momentum 0.9, which would overshoot.
_MEMORY = 100
# Where to begin under optimizers whose step does not scale with the gradient,
# and in which part of training such a guess may change e-fold.
_GUESS, _RESPONSE = 1e-4, 0.005


@keras.saving.register_keras_serializable(package="tf_gems")
class Adaptive:
    """Adapts the penalty so that the rounded density falls to its target.

    Mining minimises the loss under the constraint that no more weights round
    to one than a bound allows. The bound falls to the target in equal ratios,
    as what freezes leave alive does, and just below that: it begins at the
    half of all weights to which uniform scores round, and is at the target
    before the last freeze, within a part `descent` of the steps up to it. What
    remains is the network's own to adapt in. The weight of the penalty is the
    multiplier of this constraint, and ascends with every step, see
    `tf_gems.layers.score_penalty`. So no weight needs to be chosen, whatever
    the optimizer, learning rate, batch size, number of epochs and network.

    It begins where SGD of momentum `m` and learning rate `r` would shrink
    scores at the rate `s` at which the bound falls, if the task held up none:
    `s * (1 - m) / (2 * r)`. And while scores would halve at that weight, it
    changes twofold at most, by `s` in logarithms a step: a multiplier that
    outruns the scores goes far beyond what the constraint needs before they
    have answered, and takes with it what the task does hold up.

    Args:
        descent: Float in (0, 1], part of the steps up to the last freeze in
            which the bound falls. Defaults to `0.7`.

    Raises:
        ValueError: If `descent` is out of range.

    Example:

    ```python
    tf_gems.GemMinerCallback(0.9856, regularization="auto")
    ```
    """

    def __init__(self, descent=0.7):
        if not is_number(descent) or not 0 < descent <= 1:
            raise ValueError(
                "`descent` is a part of the steps up to the last freeze, in "
                f"(0, 1]. Received: descent={descent!r}. Leave it out, or "
                "give 0.7."
            )
        self.descent = float(descent)

    def begin_epoch(self, gem, goal, steps, optimizer):
        """Tells a layer what to adapt to.

        All else is in the layer's variables: an interrupted run goes on as it
        was.

        Args:
            gem: `GemLayer`.
            goal: Integer, how many of its weights shall round to one.
            steps: Number of steps up to the last freeze; `None` if that is not
                known yet, and then the penalty waits.
            optimizer: Keras optimizer of the scores.
        """
        penalty, goal = gem.penalty, max(1, goal)  # the floor of a tensor
        if steps and not _read(penalty.gain):
            kept = sum(int(ops.count_nonzero(mask)) for mask in gem.masks())
            bound = max(goal, kept)
            descent = max(_MEMORY, self.descent * steps)
            penalty.bound.assign(bound)
            penalty.decay.assign((goal / bound) ** (1 / descent))
            # From where scores begin at the target, they halve at least.
            shrinking = math.log(max(2.0, bound / goal)) / descent
            weight, gain = _first_weight(optimizer, shrinking, steps)
            penalty.weight.assign(weight)
            penalty.gain.assign(gain)
        penalty.goal.assign(goal)

    def get_config(self):
        return {"descent": self.descent}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _first_weight(optimizer, shrinking, steps):
    """Returns the weight to begin with, and its gain."""
    momentum = getattr(optimizer, "momentum", None)
    rate = _read(optimizer.learning_rate)
    if momentum is None or not rate > 0:
        return _GUESS, 1 / max(_MEMORY, _RESPONSE * steps)
    return shrinking * (1 - momentum) / (2 * rate), shrinking


def get(identifier):
    """Returns what weighs a score penalty.

    Args:
        identifier: `"auto"`, an `Adaptive`, or a schedule, see
            `tf_gems.schedules.get`: a number, say.

    Raises:
        ValueError: If it is none of these, or a schedule becomes negative.
    """
    if is_number(identifier) or isinstance(identifier, schedules.Schedule):
        schedule = schedules.get(identifier)
    else:
        known = {"auto": Adaptive, **schedules.SCHEDULES}
        schedule = registry.get(identifier, known, "regularization")
    if isinstance(schedule, Adaptive):
        return schedule
    if not all(schedule(progress) >= 0 for progress in (0.0, 1.0)):
        raise ValueError(
            "`regularization` must not be negative, or it would drive all "
            f"scores to 1. Received: regularization={identifier!r}."
        )
    return schedule


def _read(variable):
    # `float` alone fails on variables of `tf.distribute`.
    return float(ops.convert_to_numpy(variable))
