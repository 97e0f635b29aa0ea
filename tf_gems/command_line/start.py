"""What must happen before Keras is imported, for `python -m tf_gems` only.

Python imports a package before it runs its `__main__`. By then TensorFlow has
written its start to the terminal, and commands that need no TensorFlow have
waited for it. `inspect` reads files of strangers, and ends before anything
else is imported: it takes neither the time nor the memory of Keras.
"""

import os
import sys
import warnings

_LIGHT = ("compare",)
_ALONE = ("inspect",)


def is_command(argv, original):
    """Returns whether Python is about to run `-m tf_gems`.

    Args:
        argv: `sys.argv`, which starts with `"-m"` until the module is found.
        original: `sys.orig_argv`, which ends with the module and its
            arguments.

    Example:

    >>> is_command(["-m", "inspect"], ["python", "-m", "tf_gems", "inspect"])
    True
    >>> is_command(["-m"], ["python", "-m", "pytest"])
    False
    """
    return argv[:1] == ["-m"] and original[-len(argv)] in (
        "tf_gems",
        "-mtf_gems",
    )


def prepare(arguments):
    """Imports Keras quietly, on NumPy for commands that run no network.

    Args:
        arguments: List of strings, what follows `python -m tf_gems`.
    """
    if arguments[:1] and arguments[0] in _LIGHT:
        os.environ["KERAS_BACKEND"] = "numpy"
        # It has no gradients, which are not needed here either.
        warnings.filterwarnings("ignore", "`custom_gradient` for the numpy")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Native code writes past `sys.stderr`, before any setting is read.
    terminal = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import keras  # noqa: F401
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def _open_closed_descriptors():
    """Else the next file that is opened would take the place of a terminal."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free


if is_command(sys.argv, sys.orig_argv):
    _open_closed_descriptors()
    if sys.argv[1:2] and sys.argv[1] in _ALONE:
        from tf_gems.command_line.main import main

        sys.exit(main(sys.argv[1:]))
    prepare(sys.argv[1:])
