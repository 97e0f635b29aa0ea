"""Runs programs in forks of a process that has imported TensorFlow.

A program that refuses its flags spends most of its time importing TensorFlow.
Here one process imports it, and every program runs in a fork of this process,
with separate flags, output and exit code.
"""

import functools
import json
import os
import runpy
import subprocess
import sys
import traceback


@functools.cache
def _server():
    return subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def run(path, *flags):
    """Runs a Python file. Returns its exit code and its output."""
    server = _server()
    print(json.dumps([str(path), *flags]), file=server.stdin, flush=True)
    return json.loads(server.stdout.readline())


def _serve():
    # Removes the directory of this file, which programs must not see.
    sys.path.pop(0)
    import keras  # noqa: F401

    import tf_gems

    tf_gems.SparseModel  # noqa: B018 - imports the package
    for line in sys.stdin:
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            os._exit(_program(json.loads(line), writer))
        os.close(writer)
        with os.fdopen(reader, errors="replace") as file:
            output = file.read()
        _, status = os.waitpid(pid, 0)
        answer = [os.waitstatus_to_exitcode(status), output]
        print(json.dumps(answer), flush=True)


def _program(arguments, output):
    """Runs a program in this process. Returns its exit code."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    sys.argv = arguments
    sys.path.insert(0, os.path.dirname(arguments[0]))
    code = 0
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as error:
        code = error.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _serve()
