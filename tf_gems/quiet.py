"""Silence for native code that writes to the terminal."""

import contextlib
import os
import sys
import tempfile


@contextlib.contextmanager
def quiet():
    """Sends what the process writes to stdout and stderr to a file.

    TensorFlow and its converter do not use `sys.stderr`, so the file
    descriptors are redirected. An error that is raised meanwhile gets the end
    of the log as a note.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:
        try:
            for descriptor in (1, 2):
                saved = os.dup(descriptor)
                stack.callback(_restore, saved, descriptor)
                os.dup2(log.fileno(), descriptor)
            yield
        except Exception as error:
            log.seek(0)
            tail = log.read()[-2000:].decode("utf-8", "replace").strip()
            if tail:
                error.add_note(f"The log ends with:\n{tail}")
            raise


def _restore(saved, descriptor):
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(saved, descriptor)
    os.close(saved)
