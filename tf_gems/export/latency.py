"""Latency of TFLite files and SavedModels, measured alternately."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np

from tf_gems.export.run_litert import load_interpreter
from tf_gems.export.run_litert import match
from tf_gems.quiet import quiet

# Run by LiteRT alone on a processor without AVX: TensorFlow needs AVX.
_EMULATED = """
import json, sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter

steps = []
for path in sys.argv[2:]:
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        values = np.ones(detail["shape"], detail["dtype"])
        interpreter.set_tensor(detail["index"], values)
    steps.append(interpreter.invoke)
times = [[] for _ in steps]
for run in range(int(sys.argv[1]) + 2):
    for step, found in zip(steps, times):
        begin = time.perf_counter()
        step()
        found.append(time.perf_counter() - begin)
print(json.dumps([float(np.median(found[2:])) for found in times]))
"""


def in_turns(steps, runs):
    """Returns the median seconds of each function, called alternately.

    Other load of the machine then affects all of them. Every second round
    calls them in reverse order. Each is called a tenth as often to warm up.
    """
    times = [[] for _ in steps]
    for run in range(-max(2, runs // 10), runs):
        order = range(len(steps))
        for which in order if run % 2 else reversed(order):
            begin = time.perf_counter()
            steps[which]()
            if run >= 0:
                times[which].append(time.perf_counter() - begin)
    return [float(np.median(found)) for found in times]


def litert_seconds(paths, feed, runs):
    """Returns the median seconds of TFLite files on one thread."""
    interpreter_class, _, _ = load_interpreter()
    steps = []
    with quiet():
        for path in paths:
            interpreter = interpreter_class(model_path=path, num_threads=1)
            details = interpreter.get_signature_runner().get_input_details()
            names = match(feed, details)
            for name, value in feed.items():
                index = details[names[name]]["index"]
                interpreter.resize_tensor_input(index, value.shape)
            interpreter.allocate_tensors()
            for name, value in feed.items():
                interpreter.set_tensor(details[names[name]]["index"], value)
            steps.append(interpreter.invoke)
    return in_turns(steps, runs)


def emulated_seconds(paths, runs=5):
    """Returns the median seconds on an emulated processor without AVX.

    Emulated times compare amounts of work. They are not times of a device. It
    is `None` without qemu-x86_64 and `ai_edge_litert`.
    """
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        return None
    command = [emulator, "-cpu", "Nehalem", sys.executable, "-c", _EMULATED]
    try:
        done = subprocess.run(
            [*command, str(runs), *paths],
            capture_output=True,
            text=True,
            timeout=300,
            # NumPy's OpenBLAS asks the real processor what it can do.
            env={**os.environ, "OPENBLAS_CORETYPE": "Nehalem"},
        )
        return json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def saved_model_seconds(directories, feed, runs):
    """Returns the median seconds of SavedModels in this process."""
    import tensorflow as tf

    tensors = {name: tf.constant(value) for name, value in feed.items()}
    with quiet():
        loaded = [tf.saved_model.load(directory) for directory in directories]

    def step(model):
        serve = model.signatures["serving_default"]
        return lambda: [value.numpy() for value in serve(**tensors).values()]

    return in_turns([step(model) for model in loaded], runs)
