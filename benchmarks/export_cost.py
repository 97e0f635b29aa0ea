r"""Compares the cost of an export with Keras' own export of the same network.

Both exports alternate in one process. The measured time is the CPU time of the
process and its children, so that other load on the machine has little effect.
Memory is the peak resident memory above the initial value, as a multiple of the
size of the weights, as Linux reports it. It does not include the converter,
which is a separate process.

    python benchmarks/export_cost.py --network=vgg16 --sparsity=0.95
"""

import os
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from absl import app
from absl import flags
from results_file import write_results

import tf_gems

flags.DEFINE_string(
    "network",
    "vgg16",
    "Name of the network: vgg16, convnext_base, dense or mobilenet_v2.",
)
flags.DEFINE_float("sparsity", 0.95, "Fraction of zeros, in [0, 1).")
flags.DEFINE_integer("runs", 3, "Number of exports of each kind.")
flags.DEFINE_string("output", None, "Path of the JSON file to write.")
FLAGS = flags.FLAGS


def network(name):
    """Returns an untrained network."""
    if name == "vgg16":
        return keras.applications.VGG16(
            weights=None, input_shape=(64, 64, 3), classes=1000
        )
    if name == "convnext_base":
        return keras.applications.ConvNeXtBase(
            weights=None, input_shape=(32, 32, 3), classes=5
        )
    if name == "mobilenet_v2":
        return keras.applications.MobileNetV2(
            weights=None, input_shape=(64, 64, 3), classes=1000
        )
    return keras.Sequential([keras.Input((4096,)), keras.layers.Dense(4096)])


def pruned(model, sparsity):
    """Sets a fraction of each kernel to zero."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) > 1:
            value = weight.numpy()
            value[random.random(value.shape) < sparsity] = 0.0
            weight.assign(value)
    return model


def seconds():
    """Returns the CPU time of this process and its children."""
    found = os.times().user + os.times().system
    for line in _children():
        found += line
    return found


def _children():
    """Yields the CPU time of each running child, such as the converter."""
    tick = os.sysconf("SC_CLK_TCK")
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            for child in file.read().split():
                with open(f"/proc/{child}/stat") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
                yield (int(fields[11]) + int(fields[12])) / tick


def resident(name="VmRSS"):
    """Returns the current or the peak resident memory, in bytes."""
    status = Path("/proc/self/status").read_text("utf-8")
    [line] = [x for x in status.splitlines() if x.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])


def peak(run):
    """Runs a function. Returns its CPU time and its peak memory."""
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # Resets the peak.
    before, begin = resident(), seconds()
    run()
    return seconds() - begin, max(0, resident("VmHWM") - before)


def main(_):
    """Runs the benchmark, prints a table and writes JSON."""
    model = pruned(network(FLAGS.network), FLAGS.sparsity)
    weights = 4 * model.count_params()
    shape = (2, *model.input_shape[1:])
    inputs = np.random.default_rng(0).normal(size=shape).astype("float32")
    rows = {}
    begin = time.perf_counter()
    for _ in range(FLAGS.runs):
        with tempfile.TemporaryDirectory() as folder:
            tflite = os.path.join(folder, "model.tflite")
            saved = os.path.join(folder, "saved")
            for name, run in {
                "litert, Keras": lambda path=tflite: model.export(
                    f"{path}.tflite", format="litert", verbose=False
                ),
                "litert, ours": lambda path=tflite: tf_gems.export_litert(
                    model, path, inputs=inputs
                ),
                "saved_model, Keras": lambda path=saved: model.export(
                    f"{path}_keras", format="tf_saved_model", verbose=False
                ),
                "saved_model, ours": lambda path=saved: (
                    tf_gems.export_saved_model(model, path, inputs=inputs)
                ),
            }.items():
                rows.setdefault(name, []).append(peak(run))
                took, memory = rows[name][-1]
                print(
                    f"{name:<20}{took:>8.1f} s{memory / weights:>8.2f} x "
                    "weights",
                    flush=True,
                )
    # The first export of each kind also starts a process or loads code.
    found = {
        name: {
            "first_seconds": runs[0][0],
            "seconds": float(np.median([took for took, _ in runs[1:] or runs])),
            "memory": max(memory for _, memory in runs) / weights,
        }
        for name, runs in rows.items()
    }
    for kind in ("litert", "saved_model"):
        ours, theirs = found[f"{kind}, ours"], found[f"{kind}, Keras"]
        found[f"{kind}, ratio"] = ours["seconds"] / theirs["seconds"]
        print(f"{kind}: {found[f'{kind}, ratio']:.2f} times Keras' time")
    write_results(
        FLAGS.output,
        "export_cost",
        found,
        network=FLAGS.network,
        sparsity=FLAGS.sparsity,
        weight_bytes=weights,
        wall_seconds=time.perf_counter() - begin,
    )


if __name__ == "__main__":
    app.run(main)
