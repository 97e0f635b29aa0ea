"""A process of its own for native code that may crash or hang.

TensorFlow's converter ends its process for some networks (8-bit integers of
`LSTM` and `GRU`, for example), and a user's trained model would be lost with
it. So files are converted and first run in a child process. It starts with the
first export, serves all later ones, and ends with this process. It imports
neither the user's main module nor the user's classes: it reads SavedModels,
TFLite files and arrays.
"""

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading

import numpy as np

# Processor time for small networks; what is larger gets more.
SECONDS = 60.0
_SECONDS_PER_MEGABYTE = 1.0
# A machine may be busy with something else: the clock may run this much
# longer than the processor.
_PATIENCE = 10.0
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from tf_gems.export.worker import serve; serve()"
)


class WorkerError(RuntimeError):
    """What went wrong: how the process ended, if it did, and what it wrote."""

    def __init__(self, message, crashed=None, log=""):
        super().__init__(message)
        self.crashed = crashed
        self.log = log


def seconds_for(size, steps=0):
    """Returns the processor time for so many bytes of weights and examples."""
    return SECONDS + _SECONDS_PER_MEGABYTE * size / 1e6 + steps


def convert(directory, target, form, examples, io, seconds):
    """Converts the SavedModel in a directory, see `conversion.convert`.

    Raises:
        WorkerError: If it fails, crashes, or takes more than that many seconds
            of processor time. `run` and `run_micro` raise it, too.
    """
    arguments = {"directory": directory, "target": target, "form": form}
    _ask("convert", seconds, examples, **arguments, io=io)


def run(path, feeds, seconds):
    """Runs a TFLite file, in the process, see `run_litert.run_litert`."""
    flat, ran = _ask("run", seconds, feeds, path=path)
    count = len(feeds)
    return [flat[i : i + count] for i in range(0, len(flat), count)], ran


def run_micro(path, feeds, seconds):
    """Runs a TFLite file, in the process, see `micro.run_micro`."""
    return _ask("run_micro", seconds, feeds, path=path)[0]


def _write_arrays(path, dicts):
    """Writes a list of dicts of arrays, without pickle."""
    arrays = {}
    for number, values in enumerate(dicts):
        for name, value in values.items():
            value = np.asarray(value)
            if value.dtype == object:
                text = [
                    x.encode() if isinstance(x, str) else x for x in value.flat
                ]
                value = np.array(text, "S").reshape(value.shape)
            arrays[f"{number}/{name}"] = value
    np.savez(path, **arrays)


def _read_arrays(path):
    found = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            number, name = key.split("/", 1)
            value = arrays[key]
            if value.dtype.kind in "SU":
                value = value.astype(object)
            found.setdefault(int(number), {})[name] = value
    return [found[number] for number in sorted(found)]


_lock = threading.Lock()
_running = None


def _ask(task, seconds, feeds, **arguments):
    """Sends a task to the process; returns arrays and text that it replies."""
    global _running
    with tempfile.TemporaryDirectory() as folder, _lock:
        inputs = os.path.join(folder, "inputs.npz")
        outputs = os.path.join(folder, "outputs.npz")
        _write_arrays(inputs, feeds)
        if _running is None or not _running.alive():
            _running = _Process()
        request = {"task": task, "seconds": seconds, "arguments": arguments}
        reply = _running.ask({**request, "inputs": inputs, "outputs": outputs})
        return _read_arrays(outputs), reply["text"]


class _Process:
    """The child process, as its parent sees it."""

    def __init__(self):
        self.owner = os.getpid()
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps([*map(str, sys.path)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={
                **os.environ,
                "CUDA_VISIBLE_DEVICES": "-1",
                "KERAS_BACKEND": "tensorflow",
                "TF_USE_LEGACY_KERAS": "0",
                "TF_CPP_MIN_LOG_LEVEL": "2",
            },
        )
        self.replies = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self.end)

    def _listen(self):
        for line in self.process.stdout:
            self.replies.put(line)
        self.replies.put(b"")

    def alive(self):
        return os.getpid() == self.owner and self.process.poll() is None

    def end(self):
        if os.getpid() == self.owner:
            self.process.kill()
            self.process.wait()

    def ask(self, request):
        """Sends a dict to the process, and returns the dict it replies."""
        self.log.seek(0)
        self.log.truncate()
        seconds, line = request["seconds"], b""
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            wait = _PATIENCE * (max(0.0, seconds) + SECONDS)
            line = self.replies.get(timeout=wait)
        except OSError:
            pass  # it has ended
        except queue.Empty:
            self.end()
            raise WorkerError(
                "it was stopped", f"took more than {wait:.0f} seconds"
            ) from None
        except BaseException:
            self.end()  # interrupted: what it still does is of no use
            raise
        if not line:
            code = self.process.wait()
            how = f"ended with code {code}"
            if code == -getattr(signal, "SIGXCPU", 0):
                how = f"took more than {seconds:.0f} seconds of processor time"
            elif code < 0:
                how = f"ended by {signal.Signals(-code).name}"
            raise WorkerError("the process ended", how, self._tail())
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"], None, self._tail())
        return reply

    def _tail(self):
        self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, self.log.tell() - 100_000))
        return self.log.read().decode("utf-8", "replace")


def serve():
    """Does what is asked for on stdin, a line of JSON for each task."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what others print goes to the log
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected
    tasks = {"convert": _convert, "run": _run, "run_micro": _run_micro}
    for line in sys.stdin:
        request = json.loads(line)
        _limit(request["seconds"])
        try:
            task, feeds = (
                tasks[request["task"]],
                _read_arrays(request["inputs"]),
            )
            found, text = task(feeds, **request["arguments"])
            _write_arrays(request["outputs"], found)
            reply = {"text": text}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


def _limit(seconds):
    """Limits the processor time of a task; the system ends what exceeds it."""
    try:
        import resource
    except ImportError:  # not on this system: the clock has to do
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = max(1, int(usage.ru_utime + usage.ru_stime + seconds) + 1)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def _convert(feeds, directory, target, form, io):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(directory)
    if form != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if form == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if form == "int8" and feeds:  # without, the graph itself holds the ranges
        converter.representative_dataset = lambda: iter(feeds)
    if io == "int8":
        if feeds:
            converter.target_spec.supported_ops = [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8
            ]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    data = converter.convert()
    with open(target, "wb") as file:
        file.write(data)
    return [], None


def _run(feeds, path):
    from tf_gems.export.run_litert import run_litert

    ways, ran = run_litert(path, feeds)
    return [feed for way in ways for feed in way], ran


def _run_micro(feeds, path):
    from tf_gems.export.micro import run_micro

    return run_micro(path, feeds), None
