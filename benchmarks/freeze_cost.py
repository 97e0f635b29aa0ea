"""What a freeze costs: to mark the largest tenth of a network's scores.

    python benchmarks/freeze_cost.py --output=freeze_cost.json

`keep_largest` against ways to find a threshold, for scores that all differ
and for scores of which half sit at 0 or 1. A threshold alone is less than a
mask: with ties it keeps more or fewer than were asked for. The whole freeze is
that of a network that is mined: scores and flags come from the variables, and
the flags go back to them.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags

import tf_gems as gems
from tf_gems.masks import keep_largest
from tf_gems.provenance import provenance

FLAGS = flags.FLAGS
flags.DEFINE_bool("huge", True, "Also 100 million scores (3 GB of memory).")
flags.DEFINE_integer("repeats", 3, "Runs of each; the fastest counts.")
flags.DEFINE_string("output", None, "JSON file; the plot has its name.")

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 25_000_000)
HUGE = 100_000_000
LARGEST_SORT = 25_000_000
LARGEST_TOP_K = 1_000_000
LAYERS = 5
WHOLE = "whole freeze"


def uniform(random, size):
    """Scores that (nearly) all differ."""
    return random.random(size, dtype="float32")


def tied(random, size):
    """Scores projected to [0, 1], half of which sit at an end."""
    scores = random.normal(0.5, 0.74, size).astype("float32")
    return np.clip(scores, 0, 1, out=scores)


def methods(size):
    """Returns the functions of scores and a count that are worth a run."""
    found = {
        "keep_largest": lambda s, k: keep_largest([s], k)[0].sum(),
        "np.partition": lambda s, k: np.partition(s, s.size - k)[s.size - k],
    }
    if size <= LARGEST_SORT:
        found["np.sort"] = lambda s, k: np.sort(s)[s.size - k]
    if size <= LARGEST_TOP_K:
        found["tf.math.top_k"] = lambda s, k: tf.math.top_k(s, k)[0][-1].numpy()
    return found


def time_of(function):
    """Returns the least wall and CPU seconds of some runs."""
    wall, cpu = [], []
    for _ in range(FLAGS.repeats):
        begin = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - begin[0])
        cpu.append(time.process_time() - begin[1])
    return min(wall), min(cpu)


def whole_freezes(size):
    """Returns a function that does all that a freeze of mining takes.

    Each call begins the next epoch, which freezes: scores and flags are read,
    checked and ranked, counted, and the flags written back.
    """
    width = math.isqrt(size // LAYERS)
    network = keras.Sequential([keras.Input((width,))])
    for _ in range(LAYERS):
        layer = keras.layers.Dense(
            width, use_bias=False, kernel_initializer="zeros"
        )
        network.add(layer)
    model = gems.SparseModel(network, seed=0)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    callback = gems.GemMinerCallback(0.9, 1)
    callback.set_model(model)
    callback.set_params({"epochs": 3 + FLAGS.repeats, "steps": 100})
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    epochs = iter(range(1, 3 + FLAGS.repeats))

    def freeze():
        before = model.gem.count_alive()
        callback.on_epoch_begin(next(epochs))
        if model.gem.count_alive() >= before:
            raise RuntimeError("Nothing was frozen.")

    return freeze


def measure():
    """Returns a row for each size, draw of values and method."""
    random = np.random.default_rng(0)
    rows = []
    for size in (*SIZES, HUGE) if FLAGS.huge else SIZES:
        for draw in (uniform, tied):
            scores = draw(random, size)
            found = methods(size)
            timed = {
                name: lambda m=method, s=scores: m(s, s.size // 10)
                for name, method in found.items()
            }
            if draw is uniform:  # as scores of a layer are at first
                timed[WHOLE] = whole_freezes(size)
            for name, function in timed.items():
                wall, cpu = time_of(function)
                rows.append(
                    {
                        "scores": size,
                        "values": draw.__name__,
                        "method": name,
                        "wall_seconds": wall,
                        "cpu_seconds": cpu,
                    }
                )
                print(
                    f"{size:>12,}  {draw.__name__:<8}{name:<14}"
                    f"{wall:>9.4f}{cpu:>9.4f}{1e9 * cpu / size:>10.1f}",
                    flush=True,
                )
            del scores, timed
    return rows


def draw_plot(rows, path):
    """Draws the seconds over the number of scores."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4))
    for name in (WHOLE, "keep_largest", "np.sort", "tf.math.top_k"):
        found = [
            (row["scores"], row["wall_seconds"])
            for row in rows
            if (row["method"], row["values"]) == (name, "uniform")
        ]
        axis.loglog(*zip(*found, strict=True), "o-", ms=3, label=name)
    sizes = np.array([SIZES[0], HUGE])
    axis.loglog(sizes, 1e-8 * sizes, "k:", lw=1, label="10 ns a score")
    axis.plot([25e6, 100e6], [0.25, 1.0], "rx", label="allowed")
    axis.set(xlabel="scores", ylabel="seconds", title="To freeze all but 10 %")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(_):
    """Measures, prints a table, writes JSON, draws."""
    print(
        f"{'scores':>12}  {'values':<8}{'method':<14}"
        f"{'wall s':>9}{'cpu s':>9}{'ns/score':>10}"
    )
    rows = measure()
    if FLAGS.output:
        report = {
            "benchmark": "freeze_cost",
            "numpy": np.__version__,
            "command": " ".join(["python", *sys.argv]),
            "provenance": provenance(),
            "results": rows,
        }
        Path(FLAGS.output).write_text(json.dumps(report, indent=2) + "\n")
        draw_plot(rows, Path(FLAGS.output).with_suffix(".png"))


if __name__ == "__main__":
    app.run(main)
