"""The program of `test_many_devices.py`: `KIND PATH`.

Mines and fine-tunes on one or several devices, compares the variables of all
devices at the end of every epoch, and writes the results.
"""

import contextlib
import os
import pickle
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import tf_gems as gems
from tf_gems import datasets


def copies_of(variable):
    """Returns the copies of a variable on the devices of this process."""
    value = variable.value
    if keras.backend.backend() == "jax":
        return [np.asarray(shard.data) for shard in value.addressable_shards]
    values = getattr(value, "values", [value])
    return [np.asarray(copy) for copy in values]


class DevicesAgree(keras.callbacks.Callback):
    """Compares all copies, and records the values of every epoch."""

    def __init__(self):
        super().__init__()
        self.devices, self.epochs = 0, []

    def on_epoch_end(self, epoch, logs=None):
        kept = []
        for variable in self.model.gem.own_variables():
            first, *others = copies = copies_of(variable)
            for other in others:
                np.testing.assert_array_equal(first, other)
            self.devices = len(copies)
            kept.append(first.copy())
        self.epochs.append(kept)


def data():
    random = np.random.default_rng(3)
    images = random.integers(256, size=(128, 8, 8, 1), dtype="uint8")
    labels = (images.mean((1, 2, 3)) > 127).astype("int64")
    train = images, labels
    return datasets.ImageData.normalized("digits", train, train, 2)


def run(scope=contextlib.nullcontext, epochs=6):
    """Mines and fine-tunes. Returns all values to compare."""
    batches = data().batches(32, seed=0)
    found, watch = {}, DevicesAgree()
    with scope():
        keras.utils.set_random_seed(5)
        network = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(2, kernel_regularizer="l2"),
            ],
            name="network",
        )
        model = gems.SparseModel(network, seed=5)
    for phase in ("mining", "finetuning"):
        callbacks = [gems.callbacks.SetEpoch(batches), watch]
        if phase == "mining":
            callbacks.append(gems.GemMinerCallback(0.8, 1))
        else:
            model.start_finetuning()
        with scope():
            model.compile(
                keras.optimizers.SGD(0.05, momentum=0.9),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            )
        found[phase] = model.fit(
            batches, epochs=epochs, verbose=0, callbacks=callbacks
        ).history
    ticket = model.ticket()
    found.update(
        devices=watch.devices,
        epochs=watch.epochs,
        masks=list(ticket.masks.values()),
        weights=list(ticket.weights.values()),
        kept=ticket.kept,
        size=ticket.size,
    )
    return found


def main(kind, path):
    """Runs on the devices of a kind."""
    if kind == "multiworker":
        import tensorflow as tf

        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        found = [run(strategy.scope)]
    elif kind == "mirrored":
        import tensorflow as tf

        [processor, *_] = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            processor, [tf.config.LogicalDeviceConfiguration()] * 4
        )
        strategy = tf.distribute.MirroredStrategy(
            [f"CPU:{i}" for i in range(4)]
        )
        second = tf.distribute.MirroredStrategy(
            ["CPU:0", "CPU:1"],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
        found = [run(), run(strategy.scope), run(second.scope)]
    else:
        found = [run()]
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )
        found.append(run())
    with open(path, "wb") as file:
        pickle.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
