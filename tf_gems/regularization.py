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
# The bound falls within this part of training; in short training within as
# many steps, which the task needs to say what it holds, but at most that part.
_DESCENT, _DESCENT_STEPS, _LONGEST_DESCENT = 0.15, 500, 0.4


@keras.saving.register_keras_serializable(package="tf_gems")
class Adaptive:
    """Adapts the penalty so that the rounded density falls to its target.

    Mining minimises the loss under the constraint that no more weights round
    to one than a bound allows. The bound falls to the target within the first
    `descent` of training, along the curve that uniform scores follow if all of
    them shrink at one rate: the part that rounds to zero grows in equal ratios.
    Then it stays: what remains of training is the network's own to adapt in.
    The weight of the penalty is the multiplier of this constraint, and ascends
    with every step, see `tf_gems.layers.score_penalty`. So no weight needs to
    be chosen, whatever the optimizer, learning rate, batch size, number of
    epochs and network.

    It begins where SGD of momentum `m` and learning rate `r` would round all
    scores to zero within the descent of `n` steps, if the task held up none:
    `ln(2) * (1 - m) / (2 * r * n)`. And while scores would halve at that
    weight, it changes fourfold at most, by `2 * ln(2) / n` in logarithms a
    step: a multiplier that outruns the scores goes far beyond what the
    constraint needs before they have answered, and takes with it what the task
    does hold up; one that is slower than that leaves the work to freezing.

    Args:
        descent: Float in (0, 1], part of training in which the bound falls.
            Defaults to `None`: 0.15, in training of fewer than 3,333 steps as
            much as 500 steps are, and 0.4 at most.

    Raises:
        ValueError: If `descent` is out of range.

    Example:

    ```python
    tf_gems.GemMinerCallback(0.9856, regularization="auto")
    ```
    """

    def __init__(self, descent=None):
        if descent is not None and not 0 < descent <= 1:
            raise ValueError(
                "`descent` is a part of training, in (0, 1]. "
                f"Received: descent={descent!r}. Leave it out, or give 0.15."
            )
        self.descent = descent if descent is None else float(descent)

    def begin_epoch(self, gem, goal, steps, optimizer):
        """Tells a layer what to adapt to.

        All else is in the layer's variables: an interrupted run goes on as it
        was.

        Args:
            gem: `GemLayer`.
            goal: Integer, how many of its weights shall round to one.
            steps: Integer, of training; `None` if that is not known yet, and
                then the bound waits.
            optimizer: Keras optimizer of the scores.
        """
        penalty = gem.penalty
        if not _read(penalty.gain):
            kept = sum(int(ops.count_nonzero(mask)) for mask in gem.masks())
            penalty.bound.assign(max(goal, kept))
            penalty.growth.assign(1.0)
            weight, gain = self._first_weight(optimizer, steps)
            penalty.weight.assign(weight)
            penalty.gain.assign(gain)
        if steps and _read(penalty.growth) == 1.0:
            pruned = max(1.0, gem.size - _read(penalty.bound))
            growth = math.log(max(1.0, (gem.size - goal) / pruned))
            penalty.growth.assign(math.exp(growth / self._count_steps(steps)))
        penalty.goal.assign(goal)

    def _first_weight(self, optimizer, steps):
        """Returns the weight to begin with, and its gain."""
        momentum = getattr(optimizer, "momentum", None)
        rate = _read(optimizer.learning_rate)
        if momentum is None or not steps or not rate > 0:
            return _GUESS, 1 / max(_MEMORY, _RESPONSE * (steps or 0))
        shrinking = math.log(2) / self._count_steps(steps)
        return shrinking * (1 - momentum) / (2 * rate), 2 * shrinking

    def _count_steps(self, steps):
        """Returns in how many of these steps the bound falls."""
        descent = self.descent
        if descent is None:
            shortest = min(_LONGEST_DESCENT, _DESCENT_STEPS / steps)
            descent = max(_DESCENT, shortest)
        return max(_MEMORY, descent * steps)

    def get_config(self):
        return {"descent": self.descent}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


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
    if min(schedule(0.0), schedule(1.0)) < 0:
        raise ValueError(
            "`regularization` must not be negative, or it would drive all "
            f"scores to 1. Received: regularization={identifier!r}."
        )
    return schedule


def _read(variable):
    # `float` alone fails on variables of `tf.distribute`.
    return float(ops.convert_to_numpy(variable))
