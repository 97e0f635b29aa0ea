"""Values as functions of training progress: densities, penalty weights.

A schedule is called with the progress of training, a float in [0, 1], and
returns a float. `get` accepts a number, a name, a config or an instance; also
a sparsity schedule of TF Model Optimization.
"""

import math

import keras

from tf_gems import registry
from tf_gems.validation import check_choice
from tf_gems.validation import check_integer
from tf_gems.validation import check_number
from tf_gems.validation import check_positive_integer
from tf_gems.validation import is_number

_TFMOT = "tensorflow_model_optimization."
_MOST_FREEZES = 1_000_000


class Schedule(registry.Configurable):
    """Base class: a pure function of progress, with a config."""

    def __call__(self, progress):
        """Returns the value at `progress`, a float in [0, 1]."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="tf_gems")
class Constant(Schedule):
    """A constant value.

    Args:
        value: Float. Defaults to `0.0`.

    Example:

    >>> Constant(1e-4)(0.5)
    0.0001
    """

    def __init__(self, value=0.0):
        self.value = check_number(value, "value")

    def __call__(self, progress):
        return self.value


@keras.saving.register_keras_serializable(package="tf_gems")
class Geometric(Schedule):
    """`initial * (final / initial) ** progress`.

    The schedule of densities in "Rare Gems", Algorithm 1.

    Args:
        initial: Positive float. Defaults to `1.0`.
        final: Positive float. Defaults to `0.01`.

    Example:

    >>> round(Geometric(final=0.01)(0.5), 6)
    0.1
    """

    def __init__(self, initial=1.0, final=0.01):
        if not all(is_number(x) and x > 0 for x in (initial, final)):
            raise ValueError(
                "The ends of a geometric schedule must be positive. "
                f"Received: initial={initial!r}, final={final!r}. Use "
                "`Polynomial` to reach zero."
            )
        self.initial = float(initial)
        self.final = float(final)

    def __call__(self, progress):
        return self.initial * (self.final / self.initial) ** progress


@keras.saving.register_keras_serializable(package="tf_gems")
class Polynomial(Schedule):
    """`final + (initial - final) * (1 - progress) ** power`.

    With `power=3` the cubic schedule of Zhu & Gupta, 2017, "To prune, or not
    to prune", equation 1.

    Args:
        initial: Float. Defaults to `0.0`.
        final: Float. Defaults to `1.0`.
        power: Positive float. Defaults to `3.0`.

    Example:

    >>> Polynomial(initial=0.0, final=0.8, power=1.0)(0.5)
    0.4
    """

    def __init__(self, initial=0.0, final=1.0, power=3.0):
        self.initial = check_number(initial, "initial")
        self.final = check_number(final, "final")
        self.power = check_number(power, "power", above=0)

    def __call__(self, progress):
        remaining = (1.0 - progress) ** self.power
        return self.final + (self.initial - self.final) * remaining


@keras.saving.register_keras_serializable(package="tf_gems")
class Cosine(Schedule):
    """`final + (initial - final) * (1 + cos(pi * progress)) / 2`.

    The fraction that is replaced in Evci et al., 2020, "Rigging the Lottery".

    Args:
        initial: Float. Defaults to `1.0`.
        final: Float. Defaults to `0.0`.

    Example:

    >>> Cosine(0.3)(0.5)
    0.15
    """

    def __init__(self, initial=1.0, final=0.0):
        self.initial = check_number(initial, "initial")
        self.final = check_number(final, "final")

    def __call__(self, progress):
        remaining = (1.0 + math.cos(math.pi * progress)) / 2
        return self.final + (self.initial - self.final) * remaining


SCHEDULES = {
    "constant": Constant,
    "cosine": Cosine,
    "geometric": Geometric,
    "polynomial": Polynomial,
}


def get(identifier, argument="schedule"):
    """Returns a schedule for a number, a name, a config or an instance.

    A sparsity schedule of TF Model Optimization (`PolynomialDecay` or
    `ConstantSparsity`) is converted to a schedule of the density, one minus
    the sparsity. Its steps from `begin_step` to `end_step` are mapped to the
    progress from 0 to 1. The callback or method that uses the schedule defines
    when pruning begins and ends.

    Args:
        identifier: See above.
        argument: Name of the user's argument, for messages.

    Raises:
        ValueError: If it is none of these.
    """
    if is_number(identifier):
        return Constant(identifier)
    if type(identifier).__module__.startswith(_TFMOT):
        return _of_tfmot(identifier, argument)
    return registry.get(identifier, SCHEDULES, argument, Schedule)


def _of_tfmot(schedule, argument):
    """Returns the densities of a sparsity schedule of tfmot."""
    kind = type(schedule).__name__
    config = schedule.get_config()["config"]
    if kind == "ConstantSparsity":
        return Constant(1.0 - config["target_sparsity"])
    if kind == "PolynomialDecay":
        initial, final = config["initial_sparsity"], config["final_sparsity"]
        return Polynomial(1.0 - initial, 1.0 - final, config["power"])
    raise ValueError(
        "The supported schedules of TF Model Optimization are "
        "`PolynomialDecay` and `ConstantSparsity`. Received: "
        f"{argument}={kind}. Subclass `tf_gems.schedules.Schedule` instead."
    )


def count_freezes(freeze_period, epochs):
    """Returns the number of freezes, `epochs // freeze_period - 1`.

    Args:
        freeze_period: Positive integer, epochs between freezes.
        epochs: Positive integer.

    Raises:
        ValueError: If no freeze fits into the epochs.
    """
    freezes = epochs // freeze_period - 1
    if freezes < 1:
        raise ValueError(
            "`freeze_period` must be at most half of the epochs, to leave "
            "time for training after a freeze. Received: "
            f"freeze_period={freeze_period}, epochs={epochs}. Use "
            f"freeze_period={max(1, epochs // 4)} or more epochs."
        )
    return freezes


def geometric_counts(size, density, freezes, rounding="exact"):
    """Counts of alive weights after 0, 1, ..., `freezes` freezes.

    `exact`: `round(size * density ** (i / freezes))`, so exactly `round(size *
    density)` weights are alive at the end. `reference`: the counts of the
    authors' code. Each freeze removes `ceil(r * alive)` weights, with `r = 1 -
    density ** (1 / freezes)`. A few weights fewer are alive at the end
    (ResNet-20 at 1.44 %: 3,861 instead of 3,864).

    Args:
        size: Integer, number of prunable weights.
        density: Float in (0, 1], the final one.
        freezes: Positive integer.
        rounding: `"exact"` or `"reference"`. Defaults to `"exact"`.

    Returns:
        List of `freezes + 1` integers.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> geometric_counts(1000, 0.01, 2)
    [1000, 100, 10]
    """
    size = check_positive_integer(size, "size")
    freezes = check_integer(freezes, "freezes", 1, _MOST_FREEZES)
    if not is_number(density) or not 0 < density <= 1:
        raise ValueError(
            "`density` must be the fraction of kept weights, in (0, 1]. "
            f"Received: density={density!r}. Pass a number such as 0.02."
        )
    check_choice(rounding, "rounding", ("exact", "reference"))
    if rounding == "exact":
        bound = Geometric(1.0, density)
        return [round(size * bound(i / freezes)) for i in range(freezes + 1)]
    rate = 1 - density ** (1 / freezes)
    counts = [size]
    for _ in range(freezes):
        # Not floor(alive * (1 - rate)): that rounds otherwise at integers.
        counts.append(counts[-1] - math.ceil(rate * counts[-1]))
    return counts
