"""Objects with a config, and how they are found by name, config or instance."""

import inspect

import keras

from tf_gems.validation import check_choice

_DATA = (bool, int, float, str, list, tuple, dict, type(None))
_MISSING = object()


class Configurable:
    """A mixin for objects whose config is the arguments of the constructor.

    A constructor keeps its arguments as attributes of the same names, and
    passes `**kwargs` on to that of its base class. A subclass overrides
    `get_config` if an argument is neither plain data nor an object that has a
    config, or is kept under another name.
    """

    def get_config(self):
        """Returns a dict from the names of the arguments to their values."""
        config = {}
        for name in _arguments(type(self)):
            value = getattr(self, name, _MISSING)
            if hasattr(value, "get_config"):
                config[name] = keras.saving.serialize_keras_object(value)
            elif isinstance(value, _DATA):
                config[name] = value
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _arguments(kind):
    """Returns the arguments of a class's constructors, base classes first."""
    parameters = [
        parameter
        for base in reversed(kind.__mro__)
        if "__init__" in vars(base)
        for parameter in inspect.signature(base.__init__).parameters.values()
        if parameter.kind
        not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    names = dict.fromkeys(parameter.name for parameter in parameters)
    return [name for name in names if name != "self"]


def get(identifier, classes, argument, kind=None):
    """Returns an object for an identifier, as `keras.losses.get` does.

    Args:
        identifier: A name among `classes` (built with its defaults), a config
            made by `keras.saving.serialize_keras_object`, or an instance.
        classes: Dict from names to classes.
        argument: Name of the user's argument, for messages.
        kind: Class or tuple of classes that an instance must be of. Defaults
            to `None`: one of `classes`.

    Raises:
        ValueError: If the identifier is none of these.

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
                f"`{argument}` can be a name if all else has a default. "
                f"Received: {argument}={identifier!r} ({error}). Pass an "
                f"instance of `{found.__name__}`."
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
    """Returns the object of a config.

    Args:
        config: Dict made by `keras.saving.serialize_keras_object`.
        argument: Name of the user's argument, for messages.

    Raises:
        ValueError: If Keras cannot build it.
    """
    try:
        return keras.saving.deserialize_keras_object(config)
    except Exception as error:  # whatever Keras makes of something else
        raise ValueError(
            f"`{argument}` can be a config that "
            "`keras.saving.serialize_keras_object` made. Received: "
            f"{argument}={config!r:.300}, which is not ({error!s:.300}). Pass "
            "an instance."
        ) from error
