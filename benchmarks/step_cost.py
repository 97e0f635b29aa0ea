"""Measures the cost of a mining or fine-tuning step, relative to dense.

    python benchmarks/step_cost.py --output=step_cost.json

Dense training, mining and fine-tuning of the same ResNet-20 alternate in one
process, a few steps at a time, so that other load on the machine affects all of
them equally. The table shows medians over the rounds of the ratio to the dense
steps of the same round, in wall time and in CPU time (all threads). With
`--jit_compile`, XLA compiles the steps. On JAX (KERAS_BACKEND=jax), it always
does.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app
from absl import flags
from results_file import write_results

import tf_gems as gems
from tf_gems import zoo

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 12, "Timed rounds, after one warm-up round.")
flags.DEFINE_integer("steps", 3, "Number of steps of each kind per round.")
flags.DEFINE_integer("batch_size", 128, "Batch size.")
flags.DEFINE_float(
    "sparsity", 0.9856, "Sparsity of the fine-tuned ticket, in [0, 1)."
)
flags.DEFINE_bool(
    "jit_compile", False, "Whether to compile with XLA on TensorFlow."
)
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def make_models():
    """Returns three compiled models of the same network."""
    mining = gems.SparseModel(zoo.resnet20(), seed=0)
    mining.gem.penalty.weight.assign(1e-4)
    finetuning = gems.SparseModel(zoo.resnet20(), seed=0)
    finetuning.start_finetuning(
        gems.methods.RandomPruning(FLAGS.sparsity).find(finetuning)
    )
    models = {
        "dense": zoo.resnet20(),
        "mining": mining,
        "finetuning": finetuning,
    }
    for model in models.values():
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=FLAGS.jit_compile or keras.backend.backend() == "jax",
        )
    return models


def measure(models, x, y):
    """Returns the seconds per step, `{kind: {clock: [...]}}`, by round."""
    kinds = list(models)
    seconds = {kind: {clock: [] for clock in CLOCKS} for kind in kinds}
    for number in range(-1, FLAGS.rounds):
        # Each kind comes first, second and third equally often.
        first = number % len(kinds)
        for kind in kinds[first:] + kinds[:first]:
            begin = {clock: now() for clock, now in CLOCKS.items()}
            for _ in range(FLAGS.steps):
                models[kind].train_on_batch(x, y)
            for clock, now in CLOCKS.items():
                if number >= 0:  # The warm-up round traces the steps.
                    spent = now() - begin[clock]
                    seconds[kind][clock].append(spent / FLAGS.steps)
    return seconds


def summarize(seconds):
    """Returns medians of the seconds and of the ratios, with quartiles."""
    rows = []
    for kind, clocks in seconds.items():
        row = {"step": kind}
        for clock, values in clocks.items():
            ratios = [
                value / dense
                for value, dense in zip(
                    values, seconds["dense"][clock], strict=True
                )
            ]
            row[f"{clock}_seconds"] = statistics.median(values)
            row[f"{clock}_ratio"] = statistics.median(ratios)
            row[f"{clock}_ratio_quartiles"] = [
                float(q) for q in np.percentile(ratios, [25, 75])
            ]
        rows.append(row)
    return rows


def main(_):
    """Runs the benchmark, prints a table and writes JSON."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    shape = (FLAGS.batch_size, 32, 32, 3)
    x = keras.ops.convert_to_tensor(random.normal(size=shape), "float32")
    y = keras.ops.convert_to_tensor(random.integers(0, 10, FLAGS.batch_size))
    rows = summarize(measure(make_models(), x, y))
    print(f"{'step':<12}{'wall ms':>9}{'ratio':>8}{'cpu ms':>10}{'ratio':>8}")
    for row in rows:
        print(
            f"{row['step']:<12}{1e3 * row['wall_seconds']:>9.1f}"
            f"{row['wall_ratio']:>8.3f}{1e3 * row['cpu_seconds']:>10.1f}"
            f"{row['cpu_ratio']:>8.3f}"
        )
    write_results(
        FLAGS.output,
        "step_cost",
        rows,
        network="resnet20",
        settings={
            name: FLAGS[name].value
            for name in (
                *("rounds", "steps", "batch_size", "sparsity"),
                "jit_compile",
            )
        },
    )


if __name__ == "__main__":
    app.run(main)
