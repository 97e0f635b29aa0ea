"""Runs a function in a process of its own, with limits.

The process is a fork of this one, so that TensorFlow is imported once. This one
must therefore have run nothing with TensorFlow before.
"""

import faulthandler
import os
import signal
import sys
import time
import traceback
from pathlib import Path


def fork(function, log):
    """Runs a function in a fork of this process, in a session of its own.

    Args:
        function: Function of nothing. If it raises, the exit code is 1.
        log: Path for what it prints.

    Returns:
        The number of the process.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        os.setsid()
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        faulthandler.enable()
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Process:
    """A fork that runs a function.

    Args:
        function: Function of nothing.
        seconds: Float, the limit of time.
        gigabytes: Float, the limit of memory, of what it starts as well.
        log: Path for what it prints.
    """

    def __init__(self, function, seconds, gigabytes, log):
        self.log = Path(log)
        self.end = time.monotonic() + seconds
        self.seconds, self.gigabytes = seconds, gigabytes
        self.problem = None
        self.number = fork(function, self.log)

    def is_done(self):
        """Whether it has ended; ends it where it is beyond a limit.

        Then `problem` is `None`, or says what ended it.
        """
        number, status = os.waitpid(self.number, os.WNOHANG)
        if number:
            self._kill()  # what it may have left
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                self.problem = f"signal {signal.Signals(-code).name}"
            elif code:
                lines = self.log.read_text("utf-8", "replace").splitlines()
                self.problem = " ".join(lines[-1:])[:300] or f"exit {code}"
            return True
        if time.monotonic() > self.end:
            self.problem = f"took more than {self.seconds:.0f} s"
        elif memory_of(self.number) > self.gigabytes * 2**30:
            self.problem = f"took more than {self.gigabytes:g} GB"
        if self.problem:
            self._kill()
            os.waitpid(self.number, 0)
        return self.problem is not None

    def _kill(self):
        try:
            os.killpg(self.number, signal.SIGKILL)
        except ProcessLookupError:
            pass


def memory_of(session):
    """Returns the bytes in memory of all processes of a session."""
    pages = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            pages += int(fields[21])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run_all(tasks, jobs):
    """Runs generators of processes, some at a time, each to its end.

    Args:
        tasks: Iterator of generators, each of which yields a `Process` and
            goes on when it has ended.
        jobs: Integer, how many run at a time.
    """
    running = []
    tasks = iter(tasks)
    while True:
        while len(running) < jobs:
            task = next(tasks, None)
            if task is None:
                break
            running.append((task, next(task)))
        if not running:
            return
        time.sleep(0.2)
        running = [
            (task, process)
            for task, old in running
            if (process := next(task, None) if old.is_done() else old)
        ]
