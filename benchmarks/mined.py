"""Trains the networks whose zeros `mined_speed.py` times: real gems.

    python benchmarks/mined.py --data_dir=../shared/data/tiny_imagenet_20 \\
        --directory=/tmp/mined

Networks that keep XNNPACK's rules, on images of 64x64 pixels, with the same
number of epochs each: dense; Gem-Miner, half of the epochs mining and half
fine-tuning; magnitude, pruned gradually during one training as TensorFlow
Model Optimization does it. Both prune the 1x1 convolutions only
(`filters="xnnpack"`), each of them to the same sparsity, which is also
TensorFlow Model Optimization's way. `stock` is `keras.applications.MobileNet`,
rewritten by `tf_gems.export.make_sparse_ready` before it is mined.

A cell that is killed goes on after its last epoch when the command is run
again; one that is finished is not run again. Each leaves a Keras model without
anything of `tf_gems` and a row of JSON.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from absl import app
from absl import flags

import tf_gems
from tf_gems.provenance import provenance
from tf_gems.training import train

FLAGS = flags.FLAGS
CELLS = (
    "v1:dense:0",
    "v1:gem_miner:0.9",
    "v1:magnitude:0.9",
    "stock:gem_miner:0.9",
    "v1:gem_miner:0.95",
    "v1:magnitude:0.95",
    "v2:gem_miner:0.9",
    "v2:magnitude:0.9",
    "v2:dense:0",
    "stock:dense:0",
)
SIZE = 64


def define_flags():
    """Defines the flags of the command, which are those of a cell."""
    flags.DEFINE_list("cells", list(CELLS), "NETWORK:METHOD:SPARSITY, in order.")
    flags.DEFINE_string("data_dir", None, "Of Tiny ImageNet.", required=True)
    flags.DEFINE_string("directory", None, "Of the models.", required=True)
    flags.DEFINE_float("fraction", 1.0, "Of the training images to use.")
    flags.DEFINE_float("alpha", 0.75, "That multiplies the filters of v1.")
    flags.DEFINE_float("v2_alpha", 1.0, "The same of v2.")
    flags.DEFINE_float("stock_alpha", 0.5, "The same of the stock network.")
    flags.DEFINE_integer("epochs", 12, "Of training, search included.")
    flags.DEFINE_integer("batch_size", 32, "Of images.")
    flags.DEFINE_float("learning_rate", 0.05, "Of weights, at its peak.")
    flags.DEFINE_float("score_rate", 1.0, "Of scores, at its peak.")
    flags.DEFINE_integer("seed", 0, "Of everything.")


def network(name, size, classes, alpha):
    """Returns a Keras model that keeps XNNPACK's rules.

    Args:
        name: `"v1"`, `"v2"` or `"stock"`.
        size: Integer, height and width of the images.
        classes: Integer, number of logits.
        alpha: Float that multiplies the filters.
    """
    shape = (size, size, 3)
    if name == "stock":
        model = keras.applications.MobileNet(
            shape,
            alpha,
            weights=None,
            classes=classes,
            classifier_activation=None,
        )
        return tf_gems.export.make_sparse_ready(model)[0]
    builders = {
        "v1": tf_gems.zoo.mobilenet_v1,
        "v2": tf_gems.zoo.mobilenet_v2_sparse_ready,
    }
    return builders[name](shape, classes, alpha=alpha, affine=True)


@dataclasses.dataclass(frozen=True)
class Cell:
    """A network trained dense, or pruned by a method.

    Args:
        network: String, see `network`.
        method: `"dense"`, `"gem_miner"` or `"magnitude"`.
        sparsity: Float in [0, 1).
    """

    network: str
    method: str
    sparsity: float

    @classmethod
    def read(cls, text):
        """Reads `NETWORK:METHOD:SPARSITY`."""
        name, method, sparsity = text.split(":")
        return cls(name, method, float(sparsity))

    @property
    def name(self):
        return f"{self.network}-{self.method}-{self.sparsity:g}"

    @property
    def alpha(self):
        flag = {"v1": "alpha"}.get(self.network, f"{self.network}_alpha")
        return FLAGS[flag].value

    def path(self, ending):
        return Path(FLAGS.directory, self.name + ending)

    def row(self, data):
        """Returns what is recorded of a cell, training it if need be."""
        if self.path(".json").exists():
            return json.loads(self.path(".json").read_text("utf-8"))
        resumed = self.path("-backup").exists()
        begin = time.perf_counter()
        found = self._train(data)
        row = {
            **dataclasses.asdict(self),
            **found,
            "alpha": self.alpha,
            "seconds": round(time.perf_counter() - begin, 1),
            "was_interrupted": resumed,
            "settings": {
                name: FLAGS[name].value
                for name in (
                    "fraction epochs batch_size learning_rate score_rate seed"
                ).split()
            },
            "data": "Tiny ImageNet, 20 classes, "
            f"{len(data.train[1]):,} images of {SIZE}x{SIZE} to train on, "
            f"{len(data.test[1]):,} to test on",
            "provenance": provenance(),
            "command": " ".join(["python", *sys.argv]),
        }
        self.path(".json").write_text(json.dumps(row, indent=1) + "\n")
        return row

    def _train(self, data):
        keras.utils.clear_session()
        keras.utils.set_random_seed(FLAGS.seed)
        model = network(self.network, SIZE, data.classes, self.alpha)
        backup = self.path("-backup")
        epochs, found = FLAGS.epochs, {}
        if self.method != "dense":
            method = self._method()
            model = tf_gems.SparseModel(
                model,
                "xnnpack",
                kernel_initializer=method.kernel_initializer,
                seed=FLAGS.seed,
            )
        model.compile(
            keras.optimizers.SGD(FLAGS.learning_rate, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        batches = data.batches(FLAGS.batch_size, FLAGS.seed)
        if self.method != "dense":
            ticket = self._ticket(method, model, batches)
            ticket.apply(model)
            model.compiled = True  # a switch of phase changes no metric
            found["accuracy_before"] = accuracy(model, data)
            found["layers"] = {
                layer["path"]: round(layer["density"], 5)
                for layer in ticket.layers()
            }
            epochs -= method.epochs_of_search
        if epochs:
            train(
                model,
                batches,
                epochs,
                FLAGS.learning_rate,
                [keras.callbacks.CSVLogger(self.path(".csv"), append=True)],
                directory=backup,
            )
        found["accuracy"] = accuracy(model, data)
        plain = model if self.method == "dense" else tf_gems.strip(model)
        plain.save(self.path(".keras"))
        return found

    def _method(self):
        if self.method == "magnitude":
            return tf_gems.methods.GradualMagnitude(
                self.sparsity,
                FLAGS.epochs,
                FLAGS.learning_rate,
                allocation="uniform",
            )
        return tf_gems.methods.GemMiner(
            self.sparsity,
            FLAGS.epochs // 2,
            FLAGS.score_rate,
            freeze_period=1,
            allocation="uniform",
        )

    def _ticket(self, method, model, batches):
        """The ticket of a method; searched for once."""
        file = self.path(".gem")
        if not file.exists():
            directory = self.path("-search")
            method.find(model, batches, directory=directory).save(file)
        return tf_gems.Ticket.load(file)


def accuracy(model, data):
    """Returns the part of the test set that a model classifies rightly."""
    found = model.evaluate(
        data.test_batches(250), verbose=0, return_dict=True
    )
    return round(float(found["accuracy"]), 4)


def main(_):
    """Trains what is missing, prints a row a cell."""
    Path(FLAGS.directory).mkdir(parents=True, exist_ok=True)
    data = tf_gems.datasets.load(
        "tiny_imagenet", FLAGS.data_dir, FLAGS.fraction
    )
    for text in FLAGS.cells:
        cell = Cell.read(text)
        row = cell.row(data)
        before = row.get("accuracy_before")
        print(
            f"{cell.name:<24} before fine-tuning "
            f"{'-' if before is None else format(before, '.1%'):>6}, after "
            f"{row['accuracy']:.1%}  ({row['seconds']:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    define_flags()
    app.run(main)
