"""Compares the memory of mining and of dense training of a network.

    python benchmarks/memory.py --output=memory.json

There are two measurements. The first one counts the bytes of all arrays with
the size of a parameter: weights, gradients and optimizer state, and for mining
also scores and flags. Only the trained variables have gradients, which are
either the weights or the scores. The second one is the peak memory of a process
during training, including a freeze, above its memory before the network was
created. It includes activations and temporary values. Among these are the
masked weights, which exist from the forward to the backward pass and only in
mining.
"""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app
from absl import flags
from results_file import write_results

import tf_gems as gems

FLAGS = flags.FLAGS
flags.DEFINE_integer("width", 2240, "Width of the five square kernels.")
flags.DEFINE_string(
    "kind", None, "Kind to measure in this process. Set for child processes."
)
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

LAYERS = 5
BOUND = 1.35
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.001),
}
PLACES = {
    "tensorflow graph": ("tensorflow", False),
    "tensorflow jit": ("tensorflow", True),
    "jax": ("jax", True),
}


def make_model(kind, optimizer, jit, width):
    """Returns a compiled network of square kernels, dense or for mining."""
    model = keras.Sequential([keras.Input((width,))])
    for _ in range(LAYERS):
        model.add(keras.layers.Dense(width, "relu", use_bias=False))
    if kind == "mining":
        model = gems.SparseModel(model, seed=0)
    model.compile(OPTIMIZERS[optimizer](), "mse", jit_compile=jit)
    model.optimizer.build(model.trainable_variables)
    return model


def count(model):
    """Returns the bytes of all arrays with the size of a parameter."""

    def size(variables):
        return sum(
            np.prod(v.shape, dtype="int64") * np.dtype(v.dtype).itemsize
            for v in variables
            if v.shape  # Scalars such as counters are not counted.
        )

    gradients = size(model.trainable_variables)
    found = {
        "weights": size(model.variables),
        "gradients": gradients,
        "optimizer": size(model.optimizer.variables),
    }
    if isinstance(model, gems.SparseModel):
        found["scores"] = size(w.score for w in model.gem.prunable)
        found["flags"] = size(w.alive.packed for w in model.gem.prunable)
        found["weights"] -= found["scores"] + found["flags"]
    return {name: int(value) for name, value in found.items()}


def train(kind, jit, width):
    """Trains a few steps of two epochs. Mining freezes between them."""
    model = make_model(kind, "momentum", jit, width)
    x = np.zeros((32, width), "float32")
    callbacks = []
    if kind == "mining":
        callbacks = [gems.GemMinerCallback(0.9, 1)]
    model.fit(x, x, 8, epochs=2, verbose=0, callbacks=callbacks)


def status(name):
    """Returns an entry of `/proc/self/status`, in bytes."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    [line] = [line for line in lines if line.startswith(name)]
    return 1024 * int(line.split()[1])


def peak(kind):
    """Returns the peak memory of training in this process, in bytes."""
    jit = os.environ["TF_GEMS_JIT"] == "1"
    train(kind, jit, 64)  # The first training loads libraries and compiles.
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # Resets the peak.
    train(kind, jit, FLAGS.width)
    return status("VmHWM") - before


def run_child(kind, place):
    """Returns the peak memory of a child process, in bytes."""
    backend, jit = PLACES[place]
    environment = {"KERAS_BACKEND": backend, "TF_GEMS_JIT": str(int(jit))}
    found = subprocess.run(
        [sys.executable, __file__, f"--kind={kind}", f"--width={FLAGS.width}"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(found.stdout.split()[-1])


def main(_):
    """Counts, measures, prints a table and writes JSON."""
    if FLAGS.kind:
        print(peak(FLAGS.kind))
        return
    rows = []
    size = LAYERS * FLAGS.width**2
    print(f"{size:,} weights, bytes per weight\n{'counted':<20}", end="")
    print(f"{'dense':>9}{'mining':>9}{'flags':>9}{'ratio':>9}")
    for optimizer in OPTIMIZERS:
        dense, mining = (
            count(make_model(kind, optimizer, False, FLAGS.width))
            for kind in ("dense", "mining")
        )
        totals = sum(dense.values()), sum(mining.values())
        rows.append(
            {
                "witness": "variables",
                "optimizer": optimizer,
                "dense": dense,
                "mining": mining,
                "flag_bytes_a_weight": mining["flags"] / size,
                "ratio": totals[1] / totals[0],
                "within_bound": totals[1] <= BOUND * totals[0],
            }
        )
        print(
            f"{optimizer:<20}{totals[0] / size:>9.3f}{totals[1] / size:>9.3f}"
            f"{mining['flags'] / size:>9.3f}{rows[-1]['ratio']:>9.3f}"
        )
    print("peak, momentum")
    for place in PLACES:
        dense, mining = (run_child(kind, place) for kind in ("dense", "mining"))
        rows.append(
            {
                "witness": "peak of the process",
                "optimizer": "momentum",
                "place": place,
                "dense": dense,
                "mining": mining,
                "ratio": mining / dense,
            }
        )
        print(
            f"{place:<20}{dense / size:>9.3f}{mining / size:>9.3f}{'':>9}"
            f"{mining / dense:>9.3f}"
        )
    write_results(
        FLAGS.output,
        "memory",
        rows,
        weights=size,
        bound=BOUND,
    )


if __name__ == "__main__":
    app.run(main)
