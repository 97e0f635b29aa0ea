"""Trains one network, dense or pruned, on real data.

Shared by `mined.py`, `mined_mlp.py` and `mined_compact.py`. An interrupted cell
resumes after its last epoch when the command is run again. A finished cell is
not run again. Each cell writes a plain Keras model and a row of JSON.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from absl import flags

import tf_gems
from tf_gems.comparison.experiment import finetune
from tf_gems.comparison.experiment import recorded
from tf_gems.comparison.experiment import searched
from tf_gems.provenance import provenance

FLAGS = flags.FLAGS
_RECORDED = "fraction epochs batch_size learning_rate score_rate".split()


def define_flags(cells, epochs, batch_size, learning_rate, score_rate):
    """Defines the flags of a command. The arguments are their defaults."""
    flags.DEFINE_list("cells", list(cells), "Cells to train, in order.")
    flags.DEFINE_string(
        "data_dir", None, "Directory of the images.", required=True
    )
    flags.DEFINE_string(
        "directory", None, "Directory of the trained models.", required=True
    )
    flags.DEFINE_float(
        "fraction", 1.0, "Fraction of the training images to use, in (0, 1]."
    )
    flags.DEFINE_integer(
        "epochs", epochs, "Number of training epochs, including the search."
    )
    flags.DEFINE_integer("batch_size", batch_size, "Batch size.")
    flags.DEFINE_float(
        "learning_rate", learning_rate, "Learning rate of the weights."
    )
    flags.DEFINE_float("score_rate", score_rate, "Learning rate of the scores.")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A network to train, either dense or pruned.

    Args:
        name: String, stem of its file names.
        build: Function that returns the dense Keras model.
        method: String, `"dense"`, `"gem_miner"` or `"magnitude"`.
        sparsity: Float, fraction of zeros, in [0, 1).
        seed: Integer, random seed.
        filters: Selects the weights to prune. See `tf_gems.SparseModel`.
        arguments: Dict, `distribution` and `pattern` of the method.
        about: Dict of JSON values to add to the row.
        steps_per_execution: Integer. See `keras.Model.compile`.
    """

    name: str
    build: callable
    method: str
    sparsity: float
    seed: int = 0
    filters: object = None
    arguments: dict = dataclasses.field(default_factory=dict)
    about: dict = dataclasses.field(default_factory=dict)
    steps_per_execution: int = 1

    def path(self, ending):
        return Path(FLAGS.directory, self.name + ending)

    def row(self, data):
        """Returns the row of a cell, and trains the cell if necessary."""
        return recorded(self.path(".json"), lambda: self._run(data))

    def _run(self, data):
        interrupted = self.path("-search").exists()
        begin = time.perf_counter()
        found = self._train(data)
        return {
            "method": self.method,
            "sparsity": self.sparsity,
            "seed": self.seed,
            **self.about,
            **found,
            "seconds": round(time.perf_counter() - begin, 1),
            "was_interrupted": interrupted,
            "settings": {name: FLAGS[name].value for name in _RECORDED},
            "data": f"{data.name}, {data.classes} classes, "
            f"{len(data.train[1]):,} images to train on, "
            f"{len(data.test[1]):,} to test on",
            "provenance": provenance(),
            "command": " ".join(["python", *sys.argv]),
        }

    def _train(self, data):
        keras.utils.clear_session()
        keras.utils.set_random_seed(self.seed)
        model, epochs, found = self.build(), FLAGS.epochs, {}
        pruned = self.method != "dense"
        if pruned:
            method = self._method()
            model = tf_gems.SparseModel(
                model,
                self.filters,
                kernel_initializer=method.kernel_initializer,
                seed=self.seed,
            )
        model.compile(
            keras.optimizers.SGD(FLAGS.learning_rate, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            steps_per_execution=self.steps_per_execution,
        )
        batches = data.batches(FLAGS.batch_size, self.seed)
        ticket = None
        if pruned:
            file, search = self.path(".gem"), self.path("-search")
            ticket = searched(file, method, model, batches, search, verbose=0)
            found["layers"] = {
                layer["path"]: round(layer["density"], 5)
                for layer in ticket.layers()
            }
            epochs -= method.epochs_of_search
        before, found["accuracy"], _ = finetune(
            model,
            ticket,
            batches,
            epochs,
            FLAGS.learning_rate,
            lambda model: accuracy(model, data),
            self.path("-backup"),
        )
        if pruned:
            found["accuracy_before"] = before
        plain = tf_gems.strip(model) if pruned else model
        plain.save(self.path(".keras"))
        return found

    def _method(self):
        if self.method == "magnitude":
            return tf_gems.methods.GradualMagnitude(
                self.sparsity,
                FLAGS.epochs,
                FLAGS.learning_rate,
                **self.arguments,
            )
        return tf_gems.methods.GemMiner(
            self.sparsity,
            FLAGS.epochs // 2,
            FLAGS.score_rate,
            freeze_period=1,
            **self.arguments,
        )


def accuracy(model, data):
    """Returns the accuracy of a model on the test set."""
    found = model.evaluate(data.test_batches(250), verbose=0, return_dict=True)
    return round(float(found["accuracy"]), 4)


def run(cells, data):
    """Trains the missing cells, and prints one row per cell."""
    for cell in cells:
        row = cell.row(data)
        before = row.get("accuracy_before")
        before = "-" if before is None else f"{before:.1%}"
        print(
            f"{cell.name:<40} before fine-tuning {before:>6}, after "
            f"{row['accuracy']:.2%}  ({row['seconds']:.0f} s)",
            flush=True,
        )


def rows(directory):
    """Yields the row and Keras file of each finished cell of a directory."""
    for file in sorted(Path(directory).glob("*.json")):
        row = json.loads(file.read_text("utf-8"))
        yield row, file.with_suffix(".keras")
