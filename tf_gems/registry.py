"""Looks up serializable objects by name, config or instance."""

import keras

from tf_gems.validation import check_choice


def get(identifier, classes, argument):
    """Returns an object for an identifier, as `keras.losses.get` does.

    Args:
        identifier: A name among `classes` (built with its defaults), a config
            made by `keras.saving.serialize_keras_object`, or an instance.
        classes: Dict from names to classes.
        argument: Name of the user's argument, for messages.

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
    if isinstance(identifier, tuple(classes.values())):
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
