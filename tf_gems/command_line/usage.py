"""Errors in how a command is called, and what commands share."""

import argparse
import os
import sys
import warnings

from tf_gems.quiet import quiet


class UsageError(Exception):
    """Raised if the arguments of a command are wrong."""


def integer(least, most=None):
    """Returns an `argparse` type for integers within limits."""

    def parse(text):
        value = int(text)
        if value < least or (most is not None and value > most):
            limits = f"from {least}" + (f" to {most:,}" if most else "")
            raise argparse.ArgumentTypeError(
                f"expected an integer {limits}, received {text:.80}"
            )
        return value

    parse.__name__ = "integer"  # which messages of argparse name
    return parse


def words(text):
    """An `argparse` type for a list that is separated by commas."""
    return [word.strip() for word in text.split(",")]


def define_max_bytes(parser, default=1 << 31):
    """Defines the flag that limits the memory for reading a file."""
    parser.add_argument(
        "--max_bytes",
        type=integer(1),
        default=default,
        metavar="N",
        help="limit in bytes for the memory that the file may take (default: "
        f"{default:,})",
    )


def import_keras(backend=None):
    """Imports Keras without the lines that TensorFlow writes when it starts."""
    if "keras" in sys.modules:
        return
    if backend:
        os.environ["KERAS_BACKEND"] = backend
        # NumPy has no gradients, and none are needed here.
        warnings.filterwarnings("ignore", "`custom_gradient` for the numpy")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        import keras  # noqa: F401


def load_model(path):
    """Returns the Keras model of a file, or refuses the file."""
    import keras

    with open(path, "rb"):  # Keras raises a ValueError for all failures
        pass
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        raise ValueError(
            "A model must be a file that Keras 3 saved with `model.save`, "
            f"with layers of Keras and tf_gems only. Received: {path!r}, "
            f"which Keras cannot read: {type(error).__name__}: "
            f"{str(error):.500}"
        ) from error


def file_size(path):
    """Returns the length of a file, for people."""
    return f"{os.path.getsize(path):,} bytes"
