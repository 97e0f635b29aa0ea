"""Checks of arguments.

Each check takes a value and the name of its argument, and returns the value, or
raises a `ValueError` that states the rule, the value and the remedy.
"""

import difflib
import importlib.metadata
import importlib.util
import math
import numbers
import re


def is_number(value):
    """Whether `value` is a finite real number, and no bool."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def is_integer(value, least=0):
    """Whether `value` is an integer from `least` up to 64 bits, and no bool."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and least <= value < 2**63


def _short(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


def check_sparsity(value, name="target_sparsity"):
    """Returns `value` if it is a fraction of zeros in [0, 1)."""
    rule = f"`{name}` must be the fraction of zeros, in [0, 1). "
    received = f"Received: {name}={_short(value)}. "
    if not is_number(value):
        raise ValueError(rule + received + "Pass a number such as 0.98.")
    if 0 <= value < 1:
        return float(value)
    if 1 < value < 100:
        remedy = f"Did you mean {value / 100:g}?"
    elif -1 < value < 0:
        remedy = f"Did you mean {-value:g}, or {1 + value:g}?"
    elif value == 1:
        remedy = "A network without weights computes nothing; 0.99 keeps 1 %."
    else:
        remedy = "Pass a number such as 0.98."
    raise ValueError(rule + received + remedy)


def check_choice(value, name, choices):
    """Returns `value` if it is one of `choices`, an iterable of strings."""
    if isinstance(value, str) and value in choices:
        return value
    near = difflib.get_close_matches(f"{value!s:.100}", choices, n=3)
    remedy = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(
        f"Unknown `{name}`. Received: {name}={_short(value)}. {remedy}"
        f"Known: {', '.join(map(repr, sorted(choices)))}."
    )


def check_positive_integer(value, name):
    """Returns `value` if it is an integer of at least one."""
    if is_integer(value, 1):
        return int(value)
    raise ValueError(
        f"`{name}` must be a positive integer. Received: "
        f"{name}={_short(value)}."
    )


def check_integer(value, name, least=0, most=None):
    """Returns `value` if it is an integer within bounds.

    Args:
        least: Integer. Defaults to `0`; `None` for any.
        most: Integer. Defaults to `None`: any.
    """
    lowest = -(2**63) if least is None else least
    if is_integer(value, lowest) and (most is None or value <= most):
        return int(value)
    rule = f"`{name}` must be an integer"
    if least is not None:
        rule += f" of at least {least}"
    if most is not None:
        rule += f" and at most {most:,}"
    raise ValueError(f"{rule}. Received: {name}={_short(value)}.")


def check_seed(value):
    """Returns `value` if it is a seed: an integer from 0, or `None`."""
    if value is None:
        return None
    return check_integer(value, "seed", 0, 2**32 - 1)


def check_number(value, name, least=None, most=None, above=None):
    """Returns `value` as a float if it is finite and within bounds.

    Args:
        least: Float, the smallest allowed. Defaults to `None`: any.
        most: Float, the largest allowed. Defaults to `None`: any.
        above: Float that it must exceed. Defaults to `None`: any.
    """
    if (
        is_number(value)
        and (least is None or value >= least)
        and (most is None or value <= most)
        and (above is None or value > above)
    ):
        return float(value)
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (
            ("at least", least),
            ("at most", most),
            ("above", above),
        )
        if bound is not None
    ]
    rule = " ".join([f"`{name}` must be a finite number", *bounds[:1]])
    rule = " and ".join([rule, *bounds[1:]])
    raise ValueError(f"{rule}. Received: {name}={_short(value)}.")


def check_learning_rate(value):
    """Returns `value` if it is positive, a schedule of Keras, or `None`."""
    import keras

    schedule = keras.optimizers.schedules.LearningRateSchedule
    if value is None or isinstance(value, schedule):
        return value
    if is_number(value) and value > 0:
        return value
    raise ValueError(
        "`learning_rate` must be positive, or a Keras schedule. Received: "
        f"learning_rate={_short(value)}. Leave it out to use the learning "
        "rate of the model's optimizer."
    )


def check_count_or_none(value, name):
    """Returns `value` if it is a positive integer, or `None`."""
    return value if value is None else check_positive_integer(value, name)


def check_bool(value, name):
    """Returns `value` if it is `True` or `False`."""
    if isinstance(value, bool):
        return value
    raise ValueError(
        f"`{name}` must be True or False. Received: {name}={_short(value)}."
    )


def check_regex(value, name):
    """Returns `value` if it is a regular expression."""
    reason = "it is not a string"
    if isinstance(value, str):
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError) as error:
            reason = str(error)
        else:
            return value
    raise ValueError(
        f"`{name}` must contain regular expressions. Received: "
        f"{name}={_short(value)} ({reason}). Pass a part of a weight's path, "
        "such as 'dense'."
    )


def check_model(value, name="model"):
    """Returns `value` if it is a layer or model of Keras 3."""
    import keras

    if isinstance(value, keras.layers.Layer):
        return value
    raise ValueError(
        f"`{name}` must be a Keras 3 model. Received: {name}={_short(value)} "
        f"of type {type(value).__name__}. Build it with `import keras`, or "
        "load it with `keras.models.load_model`."
    )


def check_eager():
    """Raises an error within a graph of TensorFlow: no weight has a value."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if not tf.executing_eagerly():
        raise RuntimeError(
            "Weights must be read and written in eager execution of "
            "TensorFlow. Received: a call within `tf.Graph().as_default()` "
            "or a `tf.function`. Call it outside of them."
        )


def check_package(module, package, extra, rule):
    """Returns the version of a package, or raises an error without it."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise RuntimeError(
            f"{rule} Received: a Python environment without the module "
            f"`{module}`. Install it with `pip install tf_gems[{extra}]`."
        )
    return importlib.metadata.version(package)


def is_function(value):
    """Whether `value` can be called and is no layer, which takes tensors."""
    return callable(value) and not hasattr(value, "add_weight")


def check_function(value, name):
    """Returns `value` if it `is_function`."""
    if is_function(value):
        return value
    raise ValueError(
        f"`{name}` must be a function. Received: {name}={_short(value)}."
    )


def check_list(value, name, of="values"):
    """Returns `value` as a list, if it is a list, tuple or array of some."""
    listed = isinstance(value, list | tuple | range)
    if (listed or getattr(value, "ndim", None) == 1) and len(value):
        return list(value)
    raise ValueError(
        f"`{name}` must be a non-empty list of {of}. Received: "
        f"{name}={_short(value)}."
    )


def check_verbose(value):
    """Returns `value` if it is a `verbose` of `fit`: 0, 1, 2 or `"auto"`."""
    if isinstance(value, int | str) and value in (0, 1, 2, "auto"):
        return value
    raise ValueError(
        "`verbose` must be 0, 1, 2 or 'auto', as for `fit`. Received: "
        f"verbose={_short(value)}."
    )
