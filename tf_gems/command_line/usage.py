"""Errors in how a command is called, and what commands share."""

import argparse
import os
import sys
import warnings


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
        help="largest memory in bytes that the file may take (default: "
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
    # Native code does not use `sys.stderr`.
    terminal = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import keras  # noqa: F401
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def load_model(path):
    """Returns the Keras model of a file, or refuses the file."""
    import keras

    with open(path, "rb"):  # Keras raises a ValueError for all failures
        pass
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        raise ValueError(
            "A model must be a file that `model.save` of Keras 3 wrote, with "
            "layers of Keras and tf_gems only. "
            f"Received: {path!r}, which Keras cannot read: "
            f"{type(error).__name__}: {str(error):.500}"
        ) from error


def file_size(path):
    """Returns the length of a file, for people."""
    return f"{os.path.getsize(path):,} bytes"
