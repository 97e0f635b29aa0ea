"""Measures the cost of a freeze, which selects a network's largest scores.

    python benchmarks/freeze_cost.py --output=freeze_cost.json
    python benchmarks/freeze_cost.py --step --output=freeze_step.json

Compares `keep_largest`, which marks the largest tenth, with other ways to find
a threshold. The scores are all different, or half of them are at 0 or 1, or
nine tenths are 0, in which case a partition is many times slower. A threshold
alone is weaker than a mask: with ties it keeps more or fewer scores than
requested. The row of a whole freeze mines a network. It reads the scores and
flags from the variables and writes the flags back. The slowest freeze of a
schedule to 98.56 % sparsity is reported. With `--step`, a freeze is compared
with a training step of ResNet-50 on the available device.
"""

import math
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app
from absl import flags
from keras import ops
from results_file import write_results

import tf_gems as gems
from tf_gems.selection.masks import keep_largest

FLAGS = flags.FLAGS
flags.DEFINE_bool(
    "huge",
    True,
    "Whether to include 100 million scores, which take 3 GB of memory.",
)
flags.DEFINE_integer("repeats", 3, "Number of runs. The fastest is reported.")
flags.DEFINE_bool(
    "step", False, "Whether to only compare a freeze with a training step."
)
flags.DEFINE_integer(
    "batch_size", 32, "Batch size of the step, in images of 224x224 pixels."
)
flags.DEFINE_string(
    "output",
    None,
    "Path of the JSON file to write. The plot has the same name.",
)

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 25_000_000)
HUGE = 100_000_000
LARGEST_SORT = 25_000_000
LARGEST_TOP_K = 1_000_000
LAYERS = 5
FREEZES = 6
WHOLE = "whole freeze"
TOP_K = {
    "tensorflow": "tf.math.top_k",
    "jax": "jax.lax.top_k",
    "torch": "torch.topk",
}[keras.backend.backend()]


def uniform(random, size):
    """Returns scores that are (nearly) all different."""
    return random.random(size, dtype="float32")


def tied(random, size):
    """Returns scores clipped to [0, 1], half of which are 0 or 1."""
    scores = random.normal(0.5, 0.74, size).astype("float32")
    return np.clip(scores, 0, 1, out=scores)


def nearly_zero(random, size):
    """Returns scores of which nine tenths are 0."""
    scores = uniform(random, size)
    scores[random.random(size) < 0.9] = 0
    return scores


def methods(size):
    """Returns the methods to compare, functions of scores and a count."""
    found = {
        "keep_largest": lambda s, k: keep_largest([s], k)[0].sum(),
        "np.partition": lambda s, k: np.partition(s, s.size - k)[s.size - k],
    }
    if size <= LARGEST_SORT:
        found["np.sort"] = lambda s, k: np.sort(s)[s.size - k]
    if size <= LARGEST_TOP_K:
        found[TOP_K] = lambda s, k: float(ops.top_k(s, k)[0][-1])
    return found


def time_of(function):
    """Returns the least wall and CPU seconds of several runs."""
    wall, cpu = [], []
    for _ in range(FLAGS.repeats):
        begin = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - begin[0])
        cpu.append(time.process_time() - begin[1])
    return min(wall), min(cpu)


def model_of(size):
    """Returns a sparse model with approximately this number of weights."""
    width = math.isqrt(size // LAYERS)
    network = keras.Sequential([keras.Input((width,))])
    for _ in range(LAYERS):
        layer = keras.layers.Dense(
            width, use_bias=False, kernel_initializer="zeros"
        )
        network.add(layer)
    model = gems.SparseModel(network, seed=0)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


def time_of_freezes(model):
    """Returns the wall and CPU seconds of the slowest freeze of a schedule.

    A freeze happens at the start of a mining epoch. It reads, checks and ranks
    the scores, counts the flags, and writes them back. For each freeze, the
    fastest of several schedules counts.
    """
    courses = []
    for _ in range(FLAGS.repeats + 1):  # The first schedule compiles.
        model.gem.reset_mining()
        callback = gems.GemMinerCallback(0.9856, 1)
        callback.set_model(model)
        callback.set_params({"epochs": FREEZES + 1, "steps": 100})
        callback.on_train_begin()
        callback.on_epoch_begin(0)
        course = []
        for epoch in range(1, FREEZES + 1):
            before = model.gem.count_alive()
            begin = time.perf_counter(), time.process_time()
            callback.on_epoch_begin(epoch)
            end = time.perf_counter(), time.process_time()
            course.append([b - a for a, b in zip(begin, end, strict=True)])
            if model.gem.count_alive() >= before:
                raise RuntimeError("No weight was frozen.")
        courses.append(course)
    return np.min(courses[1:], axis=0).max(axis=0).tolist()


def measure_step():
    """Returns the seconds of a freeze and of a mining step of ResNet-50."""
    network = gems.zoo.resnet50((224, 224, 3), 1000)
    model = gems.SparseModel(network, seed=0)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    random = np.random.default_rng(0)
    images = random.random((FLAGS.batch_size, 224, 224, 3), "float32")
    labels = random.integers(1000, size=FLAGS.batch_size)
    model.train_on_batch(images, labels)  # Traces the step.
    step, _ = time_of(lambda: float(model.train_on_batch(images, labels)))
    freeze, _ = time_of_freezes(model)
    row = {
        "network": "resnet50",
        "scores": model.gem.size,
        "batch_size": FLAGS.batch_size,
        "step_wall_seconds": step,
        "freeze_wall_seconds": freeze,
        "freezes_a_step": freeze / step,
    }
    print(row)
    return row


def measure():
    """Returns a row for each size, distribution of scores and method."""
    random = np.random.default_rng(0)
    rows = []
    for size in (*SIZES, HUGE) if FLAGS.huge else SIZES:
        for draw in (uniform, tied, nearly_zero):
            scores = draw(random, size)
            found = {
                name: time_of(lambda m=method, s=scores: m(s, s.size // 10))
                for name, method in methods(size).items()
            }
            # The initial scores of a layer have this distribution.
            if draw is uniform:
                found[WHOLE] = time_of_freezes(model_of(size))
            for name, (wall, cpu) in found.items():
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
                    f"{size:>12,}  {draw.__name__:<13}{name:<14}"
                    f"{wall:>9.4f}{cpu:>9.4f}{1e9 * cpu / size:>10.1f}",
                    flush=True,
                )
            del scores
    return rows


def draw_plot(rows, path):
    """Plots the seconds against the number of scores."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4))
    for name in (WHOLE, "keep_largest", "np.sort", TOP_K):
        found = [
            (row["scores"], row["wall_seconds"])
            for row in rows
            if (row["method"], row["values"]) == (name, "uniform")
        ]
        what = f"{name}, slowest of {FREEZES}" if name == WHOLE else name
        axis.loglog(*zip(*found, strict=True), "o-", ms=3, label=what)
    sizes = np.array([SIZES[0], HUGE])
    axis.loglog(sizes, 1e-8 * sizes, "k:", lw=1, label="10 ns a score")
    axis.plot([25e6, 100e6], [0.25, 1.0], "rx", label="allowed")
    axis.set(
        xlabel="scores", ylabel="seconds", title="Selecting the largest tenth"
    )
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(_):
    """Runs the benchmark, prints a table, and writes JSON and a plot."""
    if FLAGS.step:
        rows = [measure_step()]
    else:
        print(
            f"{'scores':>12}  {'values':<13}{'method':<14}"
            f"{'wall s':>9}{'cpu s':>9}{'ns/score':>10}"
        )
        rows = measure()
    write_results(
        FLAGS.output,
        "freeze_cost",
        rows,
        numpy=np.__version__,
    )
    if FLAGS.output and not FLAGS.step:
        draw_plot(rows, Path(FLAGS.output).with_suffix(".png"))


if __name__ == "__main__":
    app.run(main)
