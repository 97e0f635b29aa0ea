"""Explains how to resume an interrupted recipe."""

import contextlib
import os
import shlex
import sys


@contextlib.contextmanager
def resumable():
    """Exits with code 130 after Ctrl-C, and explains how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        command = shlex.join(["python", *sys.argv])
        backend = os.environ.get("KERAS_BACKEND")
        if backend:
            command = f"KERAS_BACKEND={shlex.quote(backend)} {command}"
        print(
            "\nInterrupted. Finished stages are kept, and every epoch of "
            f"training is backed up. The same command resumes:\n\n  {command}",
            file=sys.stderr,
        )
        sys.exit(130)
