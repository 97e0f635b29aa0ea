"""Measures the accuracy and the speed of compacted trained networks.

    python benchmarks/mined_compact.py --dataset=cifar10 --fraction=0.2 \\
        --epochs=20 --data_dir=$TFDS_DATA_DIR --directory=/tmp/compact \\
        --cells=resnet20:1:gem_miner:0.9941: \\
        --output=benchmarks/results/compact_cifar10.json

A cell is `NETWORK:WIDTH:METHOD:SPARSITY:PATTERN`. The benchmark answers two
questions:

* What does compaction remove from a mined ticket (`gem_miner`, individual
weights)?
* Is a network with pruned channels (`magnitude`, `channel`) more accurate than
  a
uniformly narrower network (`dense`, with a smaller width) with the same number
of multiply-adds and epochs? Only kernels whose channels compaction can remove
are pruned.

Each network is trained as described in `mining.py`, and compacted by
`tf_gems.compact`. The original and the compact network are then timed
alternately with one thread and one example: in LiteRT, in a `tf.function` of
TensorFlow (both in CPU time) and, with `--browser`, in headless Chromium with
LiteRT.js.
"""

import functools
import tempfile
import time
from pathlib import Path

import mining  # must be the first import: silences TensorFlow

# isort: split
import browser
import compaction
import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from results_file import write_results
from trained_networks import residual

import tf_gems
from tf_gems.planning.channels import removable_kernels

FLAGS = flags.FLAGS


def network(name, width, shape, classes):
    """Returns a Keras model.

    Args:
        name: String. `"resnet20"` and `"vgg16"` are the networks of the paper,
            `"residual"` is a ResNet-20 whose normalization has scale and
            offset, and `"mobilenet"` is `keras.applications.MobileNet`.
        width: Float, width multiplier of `"residual"` and `"mobilenet"`.
        shape: Tuple of integers, height, width and channels of the images.
        classes: Integer, number of logits.
    """
    if name == "mobilenet":
        return keras.applications.MobileNet(
            shape,
            alpha=width,
            weights=None,
            classes=classes,
            classifier_activation=None,
        )
    if name == "residual":
        return residual(shape[0], 3, name, width)
    return getattr(tf_gems.zoo, name)(shape, classes)


def cell(text, data):
    """Returns the cell of a string `NETWORK:WIDTH:METHOD:SPARSITY:PATTERN`."""
    name, width, method, sparsity, pattern = text.split(":")
    width, sparsity = float(width), float(sparsity)
    kernels = set()

    def build():
        model = network(name, width, data.image_shape, data.classes)
        kernels.update(id(kernel) for kernel in removable_kernels(model))
        return model

    channels = pattern == "channel"
    return mining.Cell(
        text.replace(":", "-").rstrip("-"),
        build,
        method,
        sparsity,
        FLAGS.seed,
        (lambda variable: id(variable) in kernels) if channels else None,
        {"pattern": pattern, "distribution": FLAGS.distribution}
        if channels
        else {},
        {"network": name, "width": width, "pattern": pattern},
    )


def tensorflow_ms(model, inputs, rounds):
    """Returns the median times of a model and of its compact model, in ms."""

    def runner(model):
        traced = tf.function(functools.partial(model, training=False))
        example = tf.constant(inputs[:1])

        def run():
            begin = time.process_time()
            traced(example)
            return time.process_time() - begin

        return run

    models = model, tf_gems.compact(model)[0]
    times = compaction.in_turns([runner(model) for model in models], rounds)
    return [1e3 * float(np.median(found)) for found in times]


def measure(file, inputs, chromium):
    """Returns a dict of the savings from compacting a trained network."""
    model = keras.models.load_model(file, compile=False)
    with tempfile.TemporaryDirectory() as folder:
        found = compaction.measure(model, inputs, folder, FLAGS.pairs)
        found["tensorflow_ms"] = tensorflow_ms(model, inputs, FLAGS.pairs)
        if chromium:
            pair = {
                "inputs": inputs,
                "outputs": np.asarray(model(inputs, training=False)),
                "dense": Path(folder, "dense.tflite"),
                "sparse": Path(folder, "compact.tflite"),
            }
            times = browser.measure(chromium, pair, folder)
            found["browser_ms"] = [times["dense_ms"], times["sparse_ms"]]
    return found


def main(_):
    """Trains the missing networks, measures, and prints one row per cell."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    data = tf_gems.datasets.load(FLAGS.dataset, FLAGS.data_dir, FLAGS.fraction)
    cells = [cell(text, data) for text in FLAGS.cells]
    mining.run(cells, data)
    if not FLAGS.output:
        return
    inputs, _ = next(data.test_batches(4).as_numpy_iterator())
    with browser.chromium() as chromium:
        rows = [
            one.row(data)
            | measure(one.path(".keras"), inputs, FLAGS.browser and chromium)
            for one in cells
        ]
        write_results(
            FLAGS.output,
            "mined_compact",
            rows,
            chromium=chromium.version if FLAGS.browser else None,
        )
    for row in rows:
        print(line(row))


def line(row):
    """Returns a row of a Markdown table."""
    gone = [
        1 - after / before
        for before, after in (row["parameters"], row["multiply_adds"])
    ]
    times = [
        f"{dense:.3f} / {compact:.3f}"
        for dense, compact in (
            (row["dense_ms"], row["compact_ms"]),
            row["tensorflow_ms"],
            *([row["browser_ms"]] if "browser_ms" in row else ()),
        )
    ]
    zeros = row["pattern"] or "single weights"
    cells = [
        f"{row['network']} x{row['width']:g}",
        f"{row['sparsity']:.2%} {row['method']}, {zeros}"
        if row["sparsity"]
        else "dense",
        f"{row['accuracy']:.1%}",
        *(f"{share:.1%}" for share in gone),
        f"{row['multiply_adds'][1] / 1e6:.2f}",
        *times,
        f"{row['speedup']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    mining.define_flags([], 20, 128, 0.1, 1.0)
    flags.DEFINE_string(
        "dataset",
        "cifar10",
        "Name of the dataset. See `tf_gems.datasets.load`.",
    )
    flags.DEFINE_integer("seed", 0, "Random seed.")
    flags.DEFINE_string(
        "distribution",
        "uniform",
        "Distribution of the pruned channels over the layers.",
    )
    flags.DEFINE_bool("browser", True, "Whether to also measure in Chromium.")
    app.run(main)
