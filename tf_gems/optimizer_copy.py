"""Copies an optimizer without its state, including custom ones."""

import keras

from tf_gems import _keras

_PLAIN = (bool, int, float, str, type(None))
_NAMED_APART = {"name", "built"}


def copy_optimizer(optimizer, learning_rate=None):
    """Returns an optimizer with the same settings, at its first step.

    Classes and learning-rate schedules need not be registered. A schedule
    needs no `get_config`: the copy shares it.

    Example:

    >>> copy_optimizer(keras.optimizers.SGD(0.1, momentum=0.9)).momentum
    0.9
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return type(optimizer)(
            copy_optimizer(optimizer.inner_optimizer, learning_rate),
            initial_scale=optimizer.initial_scale,
            dynamic_growth_steps=optimizer.dynamic_growth_steps,
            name=optimizer.name,
        )
    config = config_of(optimizer)
    if learning_rate is not None:
        config["learning_rate"] = learning_rate
    try:
        copy = type(optimizer).from_config(config)
    except TypeError as error:
        raise ValueError(_rule(optimizer, str(error))) from error
    for name, value in vars(optimizer).items():
        if name.startswith("_exclude_from_weight_decay"):
            setattr(copy, name, value)
        elif isinstance(value, _PLAIN) and not name.startswith("_"):
            other = getattr(copy, name, None)
            if name not in _NAMED_APART and other != value:
                raise ValueError(_rule(optimizer, f"{name}={value!r}"))
    return copy


def config_of(optimizer):
    """Returns the config of an optimizer, with its learning rate itself."""
    rate = _keras.learning_rate_of(optimizer)
    # A config holds the rate as data, which not every schedule can be.
    config = _keras.config_without_learning_rate(optimizer)
    if isinstance(rate, keras.Variable) or not callable(rate):
        rate = float(keras.ops.convert_to_numpy(rate))
    return {**config, "learning_rate": rate}


def _rule(optimizer, what):
    return (
        "Each training gets a copy of the optimizer, created from its "
        f"config. Received: optimizer of type {type(optimizer).__name__}, "
        f"whose config does not restore all of it: {what}. `get_config` must "
        "return every argument of the constructor."
    )
