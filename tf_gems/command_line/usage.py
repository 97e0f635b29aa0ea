"""Errors in how a command is called, and what commands share."""

import os

from absl import flags


class UsageError(Exception):
    """The arguments of a command are not those that it takes."""


def only(arguments, name):
    """Returns the one argument of a command.

    Args:
        arguments: List of strings.
        name: String, what the argument is.

    Raises:
        UsageError: If there are fewer or more.
    """
    if len(arguments) != 1:
        raise UsageError(f"It takes one {name}. Received: {arguments}.")
    return arguments[0]


def define_max_bytes(values, default=1 << 31):
    """Defines the flag that bounds the memory of reading a file."""
    flags.DEFINE_integer(
        "max_bytes",
        default,
        "The most memory in bytes that the command may take for the file.",
        lower_bound=1,
        flag_values=values,
    )


def load_model(path):
    """Returns the Keras model of a file.

    Args:
        path: String.

    Raises:
        OSError: If there is no such file.
        ValueError: If Keras cannot read it.
    """
    import keras

    with open(path, "rb"):  # Keras calls all that fails a ValueError
        pass
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        raise ValueError(
            "A model is a file that `model.save` of Keras 3 has written, of "
            "layers that Keras and tf_gems have, without code of its own. "
            f"Received: {path!r}, which Keras cannot read: "
            f"{type(error).__name__}: {str(error):.500}"
        ) from error


def file_size(path):
    """Returns the length of a file, for people."""
    return f"{os.path.getsize(path):,} bytes"
