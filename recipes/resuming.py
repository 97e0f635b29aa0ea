"""What a recipe says when it is interrupted: that it goes on, and how."""

import contextlib
import os
import shlex
import sys


@contextlib.contextmanager
def resumable():
    """Ends the process with code 130 after Ctrl-C, with the way to go on."""
    try:
        yield
    except KeyboardInterrupt:
        command = shlex.join(["python", *sys.argv])
        backend = os.environ.get("KERAS_BACKEND")
        if backend:
            command = f"KERAS_BACKEND={shlex.quote(backend)} {command}"
        print(
            "\nInterrupted. What is finished is kept, and every epoch of "
            f"training is backed up. The same command resumes:\n\n  {command}",
            file=sys.stderr,
        )
        sys.exit(130)
