"""What a freeze costs: to mark the largest tenth of a network's scores.

    python benchmarks/freeze_cost.py --output=freeze_cost.json

`keep_largest` against ways to find a threshold, for scores that all differ
and for scores of which half sit at 0 or 1. A threshold alone is less than a
mask: with ties it keeps more or fewer than were asked for.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags

from tf_gems.masks import keep_largest
from tf_gems.provenance import provenance

FLAGS = flags.FLAGS
flags.DEFINE_bool("huge", False, "Also 100 million scores (6 GB of memory).")
flags.DEFINE_integer("repeats", 3, "Runs of each; the fastest counts.")
flags.DEFINE_string("output", None, "JSON file to write.")

SIZES = (100_000, 1_000_000, 25_000_000)
HUGE = 100_000_000
LARGEST_SORT = 25_000_000
LARGEST_TOP_K = 1_000_000


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


def main(_):
    """Measures, prints a table, writes JSON."""
    random = np.random.default_rng(0)
    rows = []
    print(
        f"{'scores':>12}  {'values':<8}{'method':<14}"
        f"{'wall s':>9}{'cpu s':>9}{'ns/score':>10}"
    )
    for size in (*SIZES, HUGE) if FLAGS.huge else SIZES:
        for draw in (uniform, tied):
            scores = draw(random, size)
            for name, method in methods(size).items():
                wall, cpu = time_of(
                    lambda m=method, s=scores: m(s, s.size // 10)
                )
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
                    f"{wall:>9.4f}{cpu:>9.4f}{1e9 * cpu / size:>10.1f}"
                )
    if FLAGS.output:
        report = {
            "benchmark": "freeze_cost",
            "numpy": np.__version__,
            "command": " ".join(["python", *sys.argv]),
            "provenance": provenance(),
            "results": rows,
        }
        Path(FLAGS.output).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
