"""Runs a function in a separate process, with limits.

The process is a fork of this one, so that TensorFlow is imported only once. No
TensorFlow operation may have run in this process before.
"""

import faulthandler
import os
import signal
import sys
import time
import traceback
from pathlib import Path


def fork(function, log):
    """Runs a function in a fork of this process, in a new session.

    Args:
        function: Function without arguments. If it raises, the exit code is 1.
        log: Path of the file for its output.

    Returns:
        Integer, the process ID.
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
        function: Function without arguments.
        seconds: Float, time limit.
        gigabytes: Float, memory limit, including its child processes.
        log: Path of the file for its output.
    """

    def __init__(self, function, seconds, gigabytes, log):
        self.log = Path(log)
        self.end = time.monotonic() + seconds
        self.seconds, self.gigabytes = seconds, gigabytes
        self.problem = None
        self.number = fork(function, self.log)

    def is_done(self):
        """Returns whether the process has ended. Kills it at a limit.

        Then `problem` is `None`, or the reason why the process ended.
        """
        number, status = os.waitpid(self.number, os.WNOHANG)
        if number:
            self._kill()  # Also ends its remaining child processes.
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
    """Returns the resident memory of all processes of a session, in bytes."""
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
    """Runs generators of processes to their end, several in parallel.

    Args:
        tasks: Iterator of generators. Each yields a `Process`, and is resumed
            when the process has ended.
        jobs: Integer, number of generators that run in parallel.
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
