"""Objects with a config, and how they are found by name, config or instance."""

import inspect

import keras
import numpy as np

from tf_gems.validation import check_choice

_DATA = (bool, int, float, str, list, tuple, dict, type(None))
MISSING = object()
# Names by which Keras writes functions and arrays.
_VALUES = ("function", "__numpy__")


class Configurable:
    """A mixin for objects whose config is the arguments of the constructor.

    A constructor keeps its arguments as attributes of the same names, and
    passes `**kwargs` on to that of its base class. A subclass overrides
    `get_config` if an argument is neither plain data nor an array, a function
    with a name or an object that has a config, or is kept under another name.
    """

    def get_config(self):
        """Returns a dict from the names of the arguments to their values."""
        is_own = type(self).get_config is not Configurable.get_config
        config = {}
        for name, value in arguments_of(self).items():
            try:
                config[name] = _as_data(value)
            except ValueError as error:
                if is_own:  # which adds what is missing
                    continue
                raise NotImplementedError(
                    "A config can contain plain data, arrays, named "
                    "functions and objects that have a config, each stored "
                    "in the attribute with the name of its argument. "
                    f"Received: {type(self).__name__} with argument `{name}`, "
                    f"{error}. Override `get_config`."
                ) from None
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**{k: _as_value(v) for k, v in config.items()})


def arguments_of(value):
    """Returns the arguments that an object keeps, by name.

    What is kept under another name is `MISSING`.
    """
    found = {}
    for kind in type(value).__mro__:
        if "__init__" not in vars(kind):
            continue
        rest = False
        parameters = inspect.signature(kind.__init__).parameters
        for name, parameter in list(parameters.items())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = True  # for the constructor of its base class
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                found.setdefault(name, getattr(value, name, MISSING))
        if not rest:
            break
    return found


def _as_data(value):
    if value is MISSING:
        raise ValueError("which is not an attribute")
    if hasattr(value, "get_config"):
        return keras.saving.serialize_keras_object(value)
    if isinstance(value, _DATA):
        return value
    if isinstance(value, np.ndarray) or (
        inspect.isfunction(value) and "<" not in value.__qualname__
    ):
        return keras.saving.serialize_keras_object(value)
    raise ValueError(f"of type {type(value).__name__}")


def _as_value(data):
    """Returns the function or array of a config; other values as they are."""
    if isinstance(data, dict) and data.get("class_name") in _VALUES:
        return deserialize(data, "config")
    return data


def get(identifier, classes, argument, kind=None):
    """Returns an object for an identifier, as `keras.losses.get` does.

    Args:
        identifier: A name among `classes` (built with its defaults), a config
            made by `keras.saving.serialize_keras_object`, or an instance.
        classes: Dict from names to classes.
        argument: Name of the user's argument, for messages.
        kind: Class or tuple of classes that an instance must be of. Defaults
            to `None`: one of `classes`.

    Example:

    >>> get("constant", {"constant": dict}, "schedule")
    {}
    """
    if isinstance(identifier, str):
        found = classes[check_choice(identifier, argument, classes)]
        try:
            return found()
        except TypeError as error:
            raise ValueError(
                f"`{argument}` can be a name only if all other arguments have "
                f"defaults. Received: {argument}={identifier!r} ({error}). "
                f"Pass an instance of `{found.__name__}`."
            ) from error
    if isinstance(identifier, dict):
        identifier = deserialize(identifier, argument)
    if isinstance(identifier, kind or tuple(classes.values())):
        return identifier
    raise ValueError(
        f"`{argument}` must be a name, a config or an instance. "
        f"Received: {argument}={identifier!r:.300}. "
        f"Known: {', '.join(map(repr, sorted(classes)))}."
    )


def deserialize(config, argument):
    """Returns the object of a config."""
    try:
        return keras.saving.deserialize_keras_object(config)
    except Exception as error:  # whatever Keras makes of something else
        raise ValueError(
            f"A config as `{argument}` must be one that "
            "`keras.saving.serialize_keras_object` returned. Received: "
            f"{argument}={config!r:.300}, which is not ({error!s:.300}). Pass "
            "an instance."
        ) from error
