"""The jobs that `crash.py` kills.

The jobs cover all the ways in which the library writes files. Each stage is a
function that takes a directory and does the work that is still missing there.
Importing this module runs no TensorFlow operation, so that the process can be
forked.
"""

import dataclasses
import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))

os.environ["TF_CONFIG"] = ""  # no first operation
import quiet_tensorflow  # noqa: F401 - must precede imports of TensorFlow

del os.environ["TF_CONFIG"]

# isort: split
import digits
import experiment
import keras
import keras_tuner
import numpy as np
import sklearn.datasets

import tf_gems
from tf_gems import methods
from tf_gems import tuning
from tf_gems.export.gem import export_gem

# Files and fields that differ between two undisturbed runs.
_RANDOM = ("fingerprint.pb", "results.csv", "oracle.json", "tuner0.json")
_VARYING = ("seconds", "provenance", "interrupted", "shared_object_id")


def network(seed=0):
    """Returns a compiled network that depends only on the seed."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9), loss(), metrics=["accuracy"]
    )
    return model


def loss():
    """Returns the loss of these networks."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def data():
    """Returns training batches and a test set."""
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    train = [(x[i : i + 128], y[i : i + 128]) for i in range(0, 1280, 128)]
    return train, (x[1280:], y[1280:])


def recipe(directory):
    """Mines and fine-tunes a network like the digits recipe."""
    settings = dataclasses.replace(
        digits.PRESETS["smoke"], mining_epochs=4, finetuning_epochs=2
    )
    experiment.Run(settings, directory).run_stages("mine", "finetune")


def export(directory):
    """Exports a network in every format."""
    model = network()
    for variable in model.trainable_variables:
        value = variable.numpy()
        value[np.random.default_rng(0).random(value.shape) < 0.9] = 0.0
        variable.assign(value)
    inputs = data()[1][0][:4]
    export_gem(model, directory / "network.gem", inputs=inputs)
    tf_gems.export_saved_model(
        model, directory / "saved", inputs=inputs, overwrite=True
    )
    tf_gems.export_litert(model, directory / "network.tflite", inputs=inputs)


def compare(directory):
    """Compares a ticket with a shuffled ticket."""
    train, test = data()
    tf_gems.compare(
        network,
        train,
        test,
        {"gem_miner": methods.GemMiner(0.8, epochs=2, freeze_period=1)},
        [0.8],
        epochs=3,
        directory=directory / "comparison",
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        loss=loss(),
        seeds=(0,),
        checks=("shuffled",),
        dense=False,
        verbose=0,
    )


def search(directory):
    """Tunes hyperparameters with KerasTuner."""
    train, test = data()
    tuner = keras_tuner.RandomSearch(
        tuning.GemMinerHyperModel(
            lambda: network(), 0.8, epochs=2, finetuning_epochs=1
        ),
        objective="val_accuracy",
        max_trials=2,
        directory=directory,
        project_name="search",
        seed=1,
    )
    tuner.search(train, validation_data=test, verbose=0)
    tuning.best_ticket(tuner).save(directory / "best.gem")


STAGES = {f.__name__: f for f in (recipe, export, compare, search)}


def files(directory):
    """Returns digests of all files, without the content that varies."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(
            _content(path)
        ).hexdigest()[:16]
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _content(path):
    """Returns the content of a file that is equal in every run."""
    if path.name in _RANDOM:
        return b""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            weights = archive.read("model.weights.h5")
        return json.dumps(_steady(config)).encode() + weights
    if path.suffix in (".json", ".search"):
        found = json.loads(path.read_text("utf-8"))
        return json.dumps(_steady(found), sort_keys=True).encode()
    return path.read_bytes()


def _steady(value):
    if isinstance(value, dict):
        return {
            key: _steady(item)
            for key, item in value.items()
            if not any(word in key for word in _VARYING)
        }
    return [_steady(x) for x in value] if isinstance(value, list) else value
