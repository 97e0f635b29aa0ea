"""Compares the cost of a training step with other pruning libraries.

    python benchmarks/peers.py --peer=tf_gems --output=peers.json

All of them train the same small convolutional network. The peers are `tf_gems`
on TensorFlow; `tfmot`, TF Model Optimization on `tf_keras`, which needs a
separate process with TF_USE_LEGACY_KERAS=1; and `torch`, `torch.nn.utils.prune`
and edge-popup. Edge-popup is implemented here after the authors' code, with a
full sort of each layer's scores. The ratio of each step to the dense step of
the same framework is the cost of pruning. Absolute times depend on the
framework.
"""

import importlib.metadata
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app
from absl import flags
from in_turns import compare
from in_turns import in_turns
from in_turns import render

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "peer", "tf_gems", ["tf_gems", "tfmot", "torch"], "Library to measure."
)
flags.DEFINE_integer("rounds", 10, "Timed rounds, after two warm-up rounds.")
flags.DEFINE_integer("batch_size", 128, "Batch size.")
flags.DEFINE_float("sparsity", 0.9, "Fraction of zeros of all pruned models.")
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

FILTERS = (32, 32, 64, 64)


def keras_network(keras):
    """Returns the network in Keras 3 or in `tf_keras`."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for index, filters in enumerate(FILTERS):
        model.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        if index % 2:
            model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(256, activation="relu"))
    model.add(layers.Dense(10))
    return model


def steps_of_keras(keras, models, x, y):
    """Returns a function for each model that trains one step."""
    found = {}
    for name, model in models.items():
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        found[name] = lambda m=model: m.train_on_batch(x, y)
    return found


def tf_gems_steps(x, y):
    """Returns the training steps of this library."""
    import keras

    import tf_gems as gems

    def sparse(**arguments):
        return gems.SparseModel(keras_network(keras), seed=0, **arguments)

    finetuned = sparse()
    finetuned.start_finetuning(
        gems.methods.RandomPruning(FLAGS.sparsity).find(finetuned)
    )
    top_k = gems.layers.TopKMask(FLAGS.sparsity, "layerwise", magnitude=True)
    models = {
        "dense": keras_network(keras),
        "mining": sparse(),
        "fine-tuning": finetuned,
        "edge-popup": sparse(mask=top_k),
    }
    return steps_of_keras(keras, models, x, y)


def tfmot_steps(x, y):
    """Returns steps of TF Model Optimization, with and without updates."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    def pruned(frequency):
        schedule = tfmot.sparsity.keras.ConstantSparsity(
            FLAGS.sparsity, 0, frequency=frequency
        )
        model = tfmot.sparsity.keras.prune_low_magnitude(
            keras_network(tf_keras), schedule
        )
        return model

    models = {
        "dense": keras_network(tf_keras),
        "prune_low_magnitude, masks rest": pruned(100_000),
        "prune_low_magnitude, masks of each step": pruned(1),
    }
    steps = steps_of_keras(tf_keras, models, x, y)
    for name, model in models.items():
        if name == "dense":
            continue
        callback = tfmot.sparsity.keras.UpdatePruningStep()
        callback.set_model(model)
        callback.on_train_begin()

        def step(callback=callback, train=steps[name]):
            callback.on_train_batch_begin(0)
            train()

        steps[name] = step
    return steps


def torch_steps(x, y):
    """Returns the steps of PyTorch, with its own masks and with edge-popup."""
    import torch
    from torch import nn
    from torch.nn.utils import prune

    class Subnet(torch.autograd.Function):
        """The authors' straight-through mask of the largest scores."""

        @staticmethod
        def forward(context, scores):
            mask = torch.empty_like(scores).flatten()
            order = scores.flatten().sort()[1]
            zeros = int(FLAGS.sparsity * order.numel())
            mask[order[:zeros]] = 0
            mask[order[zeros:]] = 1
            return mask.view_as(scores)

        @staticmethod
        def backward(context, gradient):
            return gradient

    class Masked(nn.Module):
        """Edge-popup of a weight, as a parametrization."""

        def __init__(self, weight):
            super().__init__()
            self.scores = nn.Parameter(torch.randn_like(weight))

        def forward(self, weight):
            return weight.detach() * Subnet.apply(self.scores.abs())

    def network():
        parts, before = [], 3
        for index, filters in enumerate(FILTERS):
            parts += [nn.Conv2d(before, filters, 3, padding=1), nn.ReLU()]
            parts += [nn.MaxPool2d(2)] if index % 2 else []
            before = filters
        features = FILTERS[-1] * 8 * 8
        parts += [nn.Flatten(), nn.Linear(features, 256), nn.ReLU()]
        return nn.Sequential(*parts, nn.Linear(256, 10))

    models = {name: network() for name in ("dense", "prune", "edge-popup")}
    for kind in ("prune", "edge-popup"):
        for part in models[kind]:
            if not hasattr(part, "weight"):
                continue
            if kind == "prune":
                prune.l1_unstructured(part, "weight", FLAGS.sparsity)
            else:
                nn.utils.parametrize.register_parametrization(
                    part, "weight", Masked(part.weight)
                )
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    labels, loss = torch.from_numpy(y), nn.CrossEntropyLoss()

    def step_of(model):
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

        def step():
            optimizer.zero_grad()
            loss(model(images), labels).backward()
            optimizer.step()

        return step

    found = {name: step_of(model) for name, model in models.items()}
    found["torch.nn.utils.prune"] = found.pop("prune")
    found["edge-popup"] = found.pop("edge-popup")
    return found


PEERS = {"tf_gems": tf_gems_steps, "tfmot": tfmot_steps, "torch": torch_steps}
PACKAGES = {
    "tf_gems": ("tensorflow", "keras"),
    "tfmot": ("tensorflow", "tf_keras", "tensorflow-model-optimization"),
    "torch": ("torch",),
}


def main(_):
    """Runs one library, prints a table and writes JSON."""
    random = np.random.default_rng(0)
    x = random.normal(size=(FLAGS.batch_size, 32, 32, 3)).astype("float32")
    y = random.integers(0, 10, FLAGS.batch_size)
    seconds = in_turns(PEERS[FLAGS.peer](x, y), FLAGS.rounds, steps=2)
    rows = compare(seconds, "dense")
    print(render(rows, FLAGS.peer))
    if FLAGS.output:
        packages = PACKAGES[FLAGS.peer]
        report = {
            "benchmark": f"peers, {FLAGS.peer}",
            "command": " ".join(["python", *sys.argv]),
            "versions": {p: importlib.metadata.version(p) for p in packages},
            "results": rows,
        }
        Path(FLAGS.output).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
