"""A line on what a long export is doing."""

import contextlib
import os
import threading
import time

_SILENT_SECONDS = 2.0


class Progress:
    """Prints the steps of an export that takes longer than two seconds.

    Lines begin with what is written. They go to the stderr of the terminal,
    even while it is redirected.
    """

    def __init__(self, what):
        self.what = what
        self._step = None
        self._lock = threading.Lock()
        self._begin = time.monotonic()
        self._timer = None
        self._stderr = None

    def __enter__(self):
        with contextlib.suppress(OSError):
            self._stderr = os.dup(2)
        self._timer = threading.Timer(_SILENT_SECONDS, self._print)
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, *error):
        self._timer.cancel()
        with self._lock:
            self._step = None
            if self._stderr is not None:
                os.close(self._stderr)
                self._stderr = None

    def step(self, text):
        """Names the step that begins now."""
        with self._lock:
            self._step = text
        if time.monotonic() - self._begin >= _SILENT_SECONDS:
            self._print()

    def _print(self):
        with self._lock:
            if self._step is None or self._stderr is None:
                return
            seconds = time.monotonic() - self._begin
            line = f"Export of '{self.what}': {self._step} ({seconds:.0f} s)\n"
            with contextlib.suppress(OSError):
                os.write(self._stderr, line.encode())
