"""Trained networks made smaller by their zeros: accuracy and time.

    python benchmarks/mined_compact.py --dataset=cifar10 --fraction=0.2 \\
        --epochs=20 --data_dir=$TFDS_DATA_DIR --directory=/tmp/compact \\
        --cells=resnet20:1:gem_miner:0.9941: \\
        --output=benchmarks/results/compact_cifar10.json

A cell is `NETWORK:WIDTH:METHOD:SPARSITY:PATTERN`. Two questions are asked:

* What does compaction remove of a ticket that was mined (`gem_miner`, single
  weights)?
* Is a network whose channels were pruned (`magnitude`, `channel`) more accurate
  than a uniformly narrower one with as many multiply-adds (`dense`, with
  another width), trained for as many epochs? Of the kernels, those are pruned
  whose channels compaction can remove.

Each network is trained as `mining.py` says, and made smaller by
`tf_gems.compact`. Then the network as it is and the smaller one are timed in
turns, on one thread and one example: by LiteRT, in processor time; by
TensorFlow, in a `tf.function`, likewise; and in headless Chromium, if
`--browser` asks for it, by LiteRT.js.
"""

import functools
import tempfile
import time
from pathlib import Path

import mining  # first: it quiets TensorFlow

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
        name: `"resnet20"` or `"vgg16"`, those of the paper; `"residual"`, a
            ResNet-20 whose normalization has scale and offset; or
            `"mobilenet"`, `keras.applications.MobileNet`.
        width: Float that multiplies the filters of the last two.
        shape: Tuple of integers, height, width and channels of images.
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
    """Returns the cell that `NETWORK:WIDTH:METHOD:SPARSITY:PATTERN` names."""
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
    """Returns medians of a model's time, and of the compact one's."""

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
    """Returns what a trained network saves by compaction, as a dict."""
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
    """Trains what is missing, measures, and prints a row a cell."""
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
    """Returns the row of a Markdown table."""
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
    flags.DEFINE_string("dataset", "cifar10", "See `tf_gems.datasets.load`.")
    flags.DEFINE_integer("seed", 0, "Of everything.")
    flags.DEFINE_string("distribution", "uniform", "Of channels.")
    flags.DEFINE_bool("browser", True, "Whether to measure in Chromium.")
    app.run(main)
