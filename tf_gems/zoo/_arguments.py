"""Checks of the arguments that all networks take."""

import functools
import inspect

import keras

from tf_gems import initializers
from tf_gems.validation import check_bool
from tf_gems.validation import check_integer
from tf_gems.validation import check_number
from tf_gems.validation import is_function

_LARGEST_EDGE = 1 << 14
_MOST_CLASSES = 1 << 20


def checked(network):
    """Decorates the function of a network: bad arguments are refused."""
    signature = inspect.signature(network)

    @functools.wraps(network)
    def build(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        for name, value in given.items():
            if name in _CHECKS:
                _CHECKS[name](value)
        return network(*args, **kwargs)

    return build


def _shape(value):
    whole = isinstance(value, tuple | list) and len(value) == 3
    if not whole or not all(
        isinstance(n, int) and 0 < n <= _LARGEST_EDGE for n in value
    ):
        raise ValueError(
            "`input_shape` must be the height, width and channels of an "
            f"image. Received: input_shape={value!r:.300}. Pass a shape such "
            "as (32, 32, 3)."
        )


def _initializer(value):
    found = initializers.get(value, "kernel_initializer")
    _refuse(found, keras.initializers.Initializer, "kernel_initializer", value)


def _regularizer(value):
    try:
        found = keras.regularizers.get(value)
    except (TypeError, ValueError):
        found = value
    if value is not None and not is_function(found):
        _refuse(found, (), "kernel_regularizer", value)


def _refuse(found, kinds, name, value):
    if not isinstance(found, kinds):
        raise ValueError(
            f"`{name}` must be accepted by Keras. Received: "
            f"{name}={value!r:.300}. Pass a name or an instance."
        )


_CHECKS = {
    "input_shape": _shape,
    "classes": lambda value: check_integer(value, "classes", 1, _MOST_CLASSES),
    "width": lambda value: check_integer(value, "width", 1, 1024),
    "alpha": lambda value: check_number(value, "alpha", most=16, above=0),
    "affine": lambda value: check_bool(value, "affine"),
    "kernel_initializer": _initializer,
    "kernel_regularizer": _regularizer,
}
