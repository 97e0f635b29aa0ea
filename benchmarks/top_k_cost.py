"""Compares the top-k mask of edge-popup with `tf.math.top_k`.

    python benchmarks/top_k_cost.py --output=top_k_cost.json

All masks run compiled, as in a training step: `largest_in_graph`, which finds
the threshold bit by bit and breaks ties by position; the mask from the indices
of `top_k`; and the mask from a full sort, as in the edge-popup authors' code.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from in_turns import compare
from in_turns import in_turns
from in_turns import render
from results_file import write_results

from tf_gems.layers.top_k_mask import largest_in_graph

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "sizes", ["100000", "1000000", "3000000"], "Numbers of scores."
)
flags.DEFINE_integer("rounds", 8, "Timed rounds, after two warm-up rounds.")
flags.DEFINE_string("output", None, "Path of the JSON file to write.")


def masks(scores, count):
    """Returns compiled functions that mark the `count` largest scores."""
    alive = tf.ones_like(scores, "bool")
    every = tf.Variable(scores)

    def marked(places):
        ones = tf.ones_like(places, "float32")
        return tf.scatter_nd(places[:, None], ones, scores.shape)

    found = {
        "tf.math.top_k": lambda: marked(tf.math.top_k(every, count)[1]),
        "tf.argsort": lambda: marked(tf.argsort(every)[-count:]),
    }
    for jit in (False, True):
        name = f"largest_in_graph{', jit' if jit else ''}"
        found[name] = tf.function(
            lambda: tf.cast(largest_in_graph(every + 0, count, alive), "float"),
            jit_compile=jit,
        )
    expected = np.zeros(scores.shape, "float32")
    expected[np.argsort(-scores.numpy(), kind="stable")[:count]] = 1
    compiled = {}
    for name, function in found.items():
        compiled[name] = tf.function(function)
        np.testing.assert_array_equal(compiled[name](), expected, name)
    return {
        name: lambda f=function: f().numpy()[0]
        for name, function in compiled.items()
    }


def main(_):
    """Runs the benchmark, prints a table and writes JSON."""
    random, results = np.random.default_rng(0), []
    for size in map(int, FLAGS.sizes):
        scores = tf.constant(random.permutation(size) / size, "float32")
        seconds = in_turns(masks(scores, size // 10), FLAGS.rounds)
        rows = compare(seconds, "tf.math.top_k")
        print(render(rows, f"the largest tenth of {size:,} scores"))
        results += [{"scores": size, **row} for row in rows]
    write_results(
        FLAGS.output,
        "top_k_cost",
        results,
    )


if __name__ == "__main__":
    app.run(main)
