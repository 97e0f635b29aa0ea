"""Trains cells of the deployment table. See `benchmarks/deployment.py`.

    python benchmarks/deployment_train.py --network=resnet20 \\
        --route=gem_miner --models=DIRECTORY [--sparsity=0.9,0.95]

There are two routes to a sparse network. Both use the same data, batches,
epochs, weight decay and set of pruned weights:

* `gem_miner`: mines a ticket for half of the epochs, and fine-tunes it for the
other half.
* `tfmot`: prunes by magnitude with TF Model Optimization, as its guide shows.
`prune_low_magnitude` wraps each layer of the equivalent `tf_keras` model, with
a `PolynomialDecay` schedule over half of the epochs. Then `strip_pruning`
removes the wrappers.

The directory of a cell holds the trained model (`model.keras` or `model.h5`),
`ticket.gem` and, once everything is written, `train.json`. Finished cells are
not trained again.
"""

import dataclasses
import functools
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "--route=tfmot" in sys.argv:  # must precede imports of TensorFlow
    os.environ["TF_USE_LEGACY_KERAS"] = "1"

import keras
import numpy as np
from absl import app
from absl import flags

import tf_gems as gems
from tf_gems import datasets
from tf_gems import zoo
from tf_gems.comparison.experiment import finetune
from tf_gems.comparison.experiment import recorded
from tf_gems.comparison.experiment import searched
from tf_gems.provenance import provenance

FLAGS = flags.FLAGS
SPARSITIES = (0.9, 0.95, 0.98, 0.9856)
ROUTES = ("gem_miner", "tfmot")
BATCH_SIZE = 32
SEED = 0
LEARNING_RATE = 0.1
SCORE_LEARNING_RATE = 1.5
WEIGHT_DECAY = 1e-4


@dataclasses.dataclass(frozen=True)
class Task:
    """A network, its dataset and its training length.

    Args:
        build: Function that takes the image shape and the number of classes,
            and returns the network.
        dataset: String, name for `tf_gems.datasets.load`.
        folder: String, subdirectory of `--data_dir` that holds the dataset.
        fraction: Float, fraction of the training set to use.
        epochs: Integer, total number of epochs.
        filters: Selects the weights to prune. See `tf_gems.SparseModel`.
        tested: Integer `n`. Every `n`-th image of the test set is used.
    """

    build: object
    dataset: str
    folder: str
    fraction: float
    epochs: int
    filters: str | None
    tested: int

    def load(self, data_dir):
        """Returns `tf_gems.datasets.ImageData` with part of the test set."""
        data = datasets.load(
            self.dataset, os.path.join(data_dir, self.folder), self.fraction
        )
        images, labels = (array[:: self.tested] for array in data.test)
        test = normalized(data, images), labels
        return dataclasses.replace(data, test=test)

    def network(self, data):
        """Returns the untrained Keras model."""
        return self.build(
            data.image_shape,
            data.classes,
            kernel_regularizer=keras.regularizers.L2(WEIGHT_DECAY / 2),
        )


def normalized(data, images):
    """Returns images scaled for the network. Some datasets hold bytes."""
    if data.mean is None:
        return images
    return ((images - data.mean) / data.deviation).astype("float32")


TASKS = {
    "resnet20": Task(zoo.resnet20, "cifar10", "tfds", 0.1, 6, None, 5),
    "mobilenet_v1": Task(
        functools.partial(zoo.mobilenet_v1, alpha=0.5, stem="imagenet"),
        "tiny_imagenet",
        "tiny_imagenet_20",
        1.0,
        6,
        "pointwise",
        1,
    ),
}


def define_flags():
    """Defines the flags that both programs share."""
    flags.DEFINE_string("models", None, "Directory of the trained cells.")
    flags.DEFINE_string(
        "data_dir",
        "../shared/data",
        "Directory that holds `tfds` and `tiny_imagenet_20`.",
    )


def directory_of(models, network, sparsity, route):
    """Returns the directory of a cell."""
    return Path(models, f"{network}-{sparsity:g}-{route}")


def mine(task, data, sparsity, directory):
    """Mines and fine-tunes a network. Returns the results."""
    sparse = gems.SparseModel.from_preset(
        "paper", task.network(data), seed=SEED, filters=task.filters
    )
    batches = data.batches(BATCH_SIZE, SEED)
    method = gems.methods.GemMiner(
        sparsity, task.epochs // 2, SCORE_LEARNING_RATE, freeze_period=1
    )
    sparse.compile(
        keras.optimizers.SGD(LEARNING_RATE, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    ticket = searched(
        directory / "ticket.gem",
        method,
        sparse,
        batches,
        directory / "search",
        verbose=2,
    )
    before, _, _ = finetune(
        sparse,
        ticket,
        batches,
        task.epochs - method.epochs_of_search,
        LEARNING_RATE,
        lambda model: accuracy_of(model, data),
        directory / "finetuning",
        verbose=2,
    )
    plain = gems.strip(sparse)
    plain.save(directory / "model.keras")
    return {
        "kept": ticket.kept,
        "size": ticket.size,
        "accuracy_before_finetuning": before,
        "accuracy": accuracy_of(plain, data),
    }


def prune_with_tfmot(task, data, sparsity, directory):
    """Prunes a network by magnitude with TF Model Optimization.

    Returns the results.
    """
    # must be the first import: selects Keras 2
    import tensorflow_model_optimization as tfmot

    # isort: split
    import tf_keras

    from tf_gems.export import tf_keras_twin

    pruning = tfmot.sparsity.keras
    network = task.network(data)
    names = {
        weight.path.split("/")[-2]
        for weight in gems.PruningReport(network, task.filters).prunable
    }
    steps = -(-len(data.train[1]) // BATCH_SIZE)
    every = max(1, steps // 10)
    schedule = pruning.PolynomialDecay(
        0.0, sparsity, 0, 10 * every * (task.epochs // 2), frequency=every
    )

    def wrap(layer):
        if layer.name in names:
            return pruning.prune_low_magnitude(layer, pruning_schedule=schedule)
        return layer

    model = tf_keras.models.clone_model(
        tf_keras_twin.to_tf_keras(network), clone_function=wrap
    )
    rate = tf_keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE, steps * task.epochs
    )
    model.compile(
        tf_keras.optimizers.SGD(rate, 0.9),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    batches = data.batches(BATCH_SIZE, SEED)
    model.fit(
        batches,
        epochs=task.epochs,
        shuffle=False,
        verbose=2,
        callbacks=[
            pruning.UpdatePruningStep(),
            tf_keras.callbacks.LambdaCallback(
                on_epoch_begin=lambda epoch, logs: batches.set_epoch(epoch)
            ),
        ],
    )
    stripped = pruning.strip_pruning(model)
    stripped.save(directory / "model.h5")
    kernels = [
        layer.get_weights()[0]
        for layer in stripped.layers
        if layer.name in names
    ]
    return {
        "kept": int(sum(np.count_nonzero(kernel) for kernel in kernels)),
        "size": int(sum(kernel.size for kernel in kernels)),
        "accuracy_before_finetuning": None,
        "accuracy": accuracy_of(stripped, data),
    }


def accuracy_of(model, data):
    """Returns the test accuracy of a model of either Keras version."""
    images, labels = data.test
    outputs = [
        np.asarray(model(images[i : i + 100], training=False))
        for i in range(0, len(images), 100)
    ]
    return round(
        float(np.mean(np.concatenate(outputs).argmax(-1) == labels)), 4
    )


def main(_):
    """Trains the selected cells that are missing."""
    task = TASKS[FLAGS.network]
    data = task.load(FLAGS.data_dir)
    for sparsity in map(float, FLAGS.sparsity):
        directory = directory_of(
            FLAGS.models, FLAGS.network, sparsity, FLAGS.route
        )
        path = directory / "train.json"
        run = functools.partial(train, task, data, sparsity, directory)
        print(recorded(path, run), flush=True)


def train(task, data, sparsity, directory):
    """Trains a cell. Returns the values to record."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(SEED)
    run = mine if FLAGS.route == "gem_miner" else prune_with_tfmot
    begin = time.perf_counter()
    found = run(task, data, sparsity, directory)
    return found | {
        "network": FLAGS.network,
        "route": FLAGS.route,
        "target_sparsity": sparsity,
        "dataset": task.dataset,
        "train_images": len(data.train[1]),
        "test_images": len(data.test[1]),
        "epochs": task.epochs,
        "batch_size": BATCH_SIZE,
        "seed": SEED,
        "seconds": round(time.perf_counter() - begin, 1),
        "provenance": provenance(),
    }


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_enum(
        "network", "resnet20", list(TASKS), "Name of the network."
    )
    flags.DEFINE_list(
        "sparsity",
        list(map(str, SPARSITIES)),
        "Fractions of zeros, each in [0, 1).",
    )
    flags.DEFINE_enum(
        "route", "gem_miner", ROUTES, "Method that prunes the network."
    )
    app.run(main)
