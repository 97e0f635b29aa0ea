"""Checks that state the rule, the value received, and the remedy."""

import difflib
import math
import numbers


def is_number(value):
    """Whether `value` is a finite real number, and no bool."""
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def check_sparsity(value, name="target_sparsity"):
    """Returns `value` if it is a fraction of zeros in [0, 1).

    Args:
        value: Number to check.
        name: Name of the argument, for the message.

    Raises:
        ValueError: If it is not; the message guesses what was meant.
    """
    rule = f"`{name}` is the fraction of zeros in [0, 1). "
    received = f"Received: {name}={value!r}. "
    if not is_number(value):
        raise ValueError(rule + received + "Give a number such as 0.98.")
    if 0 <= value < 1:
        return float(value)
    if 1 < value < 100:
        remedy = f"Did you mean {value / 100:g}?"
    elif -1 < value < 0:
        remedy = f"Did you mean {-value:g}, or {1 + value:g}?"
    elif value == 1:
        remedy = "A network without weights computes nothing; 0.99 keeps 1 %."
    else:
        remedy = "Give a number such as 0.98."
    raise ValueError(rule + received + remedy)


def check_choice(value, name, choices):
    """Returns `value` if it is one of `choices`.

    Args:
        value: Value to check.
        name: Name of the argument, for the message.
        choices: Iterable of strings.

    Raises:
        ValueError: If it is not; the message names the nearest choices.
    """
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value), choices, n=3)
    remedy = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(
        f"Unknown `{name}`. Received: {name}={value!r}. {remedy}"
        f"Known: {', '.join(map(repr, sorted(choices)))}."
    )


def check_positive_integer(value, name):
    """Returns `value` if it is an integer of at least one.

    Args:
        value: Number to check.
        name: Name of the argument, for the message.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(value, numbers.Integral) and value >= 1:
        if not isinstance(value, bool):
            return int(value)
    raise ValueError(
        f"`{name}` must be a positive integer. Received: {name}={value!r}."
    )
