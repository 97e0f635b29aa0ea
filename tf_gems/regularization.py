"""The weight of the score penalty: on a schedule, or adapted to a target."""

import math

import keras
from keras import ops

from tf_gems import registry
from tf_gems import schedules
from tf_gems.validation import is_number

# Fewest steps in which the limit falls, where there are as many.
_FEWEST = 100
# By how many powers of e the rate may change while the limit falls.
_RANGE = 10.0


@keras.saving.register_keras_serializable(package="tf_gems")
class Adaptive:
    """Adapts the penalty so that the rounded density falls to its target.

    Mining minimizes the loss under the constraint that no more weights round
    to one than a limit allows. The limit falls to the target in equal ratios,
    as what freezes leave alive does, and below that. It begins at the number
    of weights that round to one, half of them if scores are uniform. It is at
    the target before the last freeze, within a part `descent` of the steps up
    to it, and the network adapts in the steps that remain.

    The penalty measures how many weights round to one in every step, and
    acts on the scores after the optimizer's step, see
    `tf_gems.layers.score_penalty`. It reads neither the learning rate nor the
    optimizer. So it works under any schedule, callback and optimizer, and any
    batch size, number of epochs and network.

    With `s`, the rate at which the limit falls in logarithms a step,

        s = log(limit / final_limit) / steps_of_descent,

    each step begins by taking the part `s` of the scores, which keeps to the
    limit if the task holds up none. This rate may change by a factor of
    `exp(10)` within the descent.

    Args:
        descent: Float in (0, 1], part of the steps up to the last freeze in
            which the limit falls. Where that is less than 100 steps, it takes
            100, or all there are. Defaults to `0.7`.

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

    def begin_epoch(self, gem, final_limit, steps):
        """Tells a layer what to adapt to.

        All else is in the layer's variables: an interrupted run goes on as it
        was.

        Args:
            gem: `GemLayer`.
            final_limit: Integer, how many of its weights shall round to one.
            steps: Number of steps up to the last freeze; `None` if that is not
                known yet, and then the penalty waits.
        """
        penalty = gem.penalty
        final_limit = max(1, final_limit)  # the floor of a tensor
        if steps and not _read(penalty.gain):
            kept = sum(int(ops.count_nonzero(mask)) for mask in gem.masks())
            limit = max(final_limit, kept)
            descent = min(max(_FEWEST, self.descent * steps), max(1.0, steps))
            # From where scores begin at the target, they halve at least.
            rate = math.log(max(2.0, limit / final_limit)) / descent
            decay = (final_limit / limit) ** (1 / descent)
            penalty.adapt(rate, _RANGE / descent, limit, decay)
        penalty.final_limit.assign(final_limit)

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
    if not all(schedule(progress) >= 0 for progress in (0.0, 1.0)):
        raise ValueError(
            "`regularization` must not be negative, or it would drive all "
            f"scores to 1. Received: regularization={identifier!r}."
        )
    return schedule


def _read(variable):
    # `float` alone fails on variables of `tf.distribute`.
    return float(ops.convert_to_numpy(variable))
