"""Compares the time of an epoch of dense training, mining and fine-tuning.

    python benchmarks/epoch_cost.py --output=epoch_cost.json
    python benchmarks/epoch_cost.py --backend=jax --images=50000

Trains ResNet-20 on images of the size of CIFAR-10, randomly cropped and
flipped. The kinds of training alternate in one process. Each turn trains a few
epochs, and the first epoch is not counted because it compiles. PyTorch, if it
is installed, trains the same network, with the images and the augmentation on
its device. The table shows medians, and their ratios to dense training and to
PyTorch.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "--backend=jax" in sys.argv:  # before Keras is imported
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import keras
import numpy as np
import torch_resnet
from absl import app
from absl import flags
from results_file import write_results

import tf_gems as gems
from tf_gems import datasets
from tf_gems import zoo
from tf_gems.device_data import DeviceData
from tf_gems.training import train

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "backend", "tensorflow", ["tensorflow", "jax"], "Keras backend."
)
flags.DEFINE_integer("images", 2560, "Number of images per epoch.")
flags.DEFINE_integer("batch_size", 128, "Batch size.")
flags.DEFINE_integer("turns", 2, "Number of turns of each kind.")
flags.DEFINE_integer("epochs", 3, "Counted epochs per turn.")
flags.DEFINE_string("output", None, "Path of the JSON file to write.")


class Times(keras.callbacks.Callback):
    """Records the seconds of every epoch except the first, which compiles."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if epoch:
            self.seconds.append(time.perf_counter() - self._begin)


def make_model(kind):
    """Returns a compiled model of the given kind."""
    model, network = None, zoo.resnet20()
    if kind != "dense":
        model = gems.SparseModel(network, seed=0)
    if kind == "finetuning":
        random = gems.methods.RandomPruning(0.9856)
        model.start_finetuning(random.find(model))
    model = model or network
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train_keras(kind, data):
    """Returns seconds per epoch of dense training, mining or fine-tuning."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    times = Times()
    callbacks = [times]
    if kind == "mining":
        callbacks.insert(0, gems.GemMinerCallback(0.9856, freeze_period=1))
    train(make_model(kind), data, 1 + FLAGS.epochs, callbacks=callbacks)
    return times.seconds


def make_batches(images, labels):
    """Returns the training batches, from the pipeline or on the device."""
    if FLAGS.backend == "jax":
        return DeviceData(images, labels, FLAGS.batch_size, 0, 4, flip=True)
    test = images[:1], labels[:1]
    data = datasets.ImageData("cifar10", (images, labels), test, 10)
    return data.batches(FLAGS.batch_size, 0)


def measure(images, labels):
    """Returns the seconds of every counted epoch, by kind."""
    data = make_batches(images, labels)
    kinds = {
        kind: lambda kind=kind: train_keras(kind, data)
        for kind in ("dense", "mining", "finetuning")
    }
    if torch_resnet.installed():
        kinds["pytorch, dense"] = lambda: torch_resnet.train(
            images, labels, FLAGS.batch_size, FLAGS.epochs
        )
    seconds = {kind: [] for kind in kinds}
    for turn in range(FLAGS.turns):
        for kind in list(kinds)[:: -1 if turn % 2 else 1]:
            seconds[kind] += kinds[kind]()
    return seconds


def main(_):
    """Runs the benchmark, prints a table and writes JSON."""
    random = np.random.default_rng(0)
    images = random.normal(size=(FLAGS.images, 32, 32, 3)).astype("float32")
    labels = random.integers(0, 10, FLAGS.images)
    rows = []
    medians = {
        kind: statistics.median(values)
        for kind, values in measure(images, labels).items()
    }
    print(f"{'epoch':<16}{'seconds':>9}{'to dense':>10}{'to PyTorch':>12}")
    for kind, seconds in medians.items():
        ratios = {
            name: seconds / medians[base] if base in medians else None
            for name, base in (
                ("to_dense", "dense"),
                ("to_pytorch", "pytorch, dense"),
            )
        }
        rows.append({"epoch": kind, "seconds": seconds, **ratios})
        texts = [
            "" if ratio is None else f"{ratio:.3f}" for ratio in ratios.values()
        ]
        print(f"{kind:<16}{seconds:>9.3f}{texts[0]:>10}{texts[1]:>12}")
    write_results(
        FLAGS.output,
        "epoch_cost",
        rows,
        network="resnet20",
        pytorch=torch_resnet.version(),
        settings={
            name: FLAGS[name].value
            for name in ("images", "batch_size", "turns", "epochs")
        },
    )


if __name__ == "__main__":
    app.run(main)
