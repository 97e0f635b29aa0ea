"""Compares distributions of sparsity over a trained network.

Each network of `trained_networks.py` is trained once per seed. Starting from
these weights, every distribution prunes in several ways: in one shot, after
which the statistics of normalization are re-estimated; with SNIP in one shot,
followed by a few epochs of training; and gradually, in a `fit` of the same
number of epochs. Rows that are already in the output file are not run again.

    python benchmarks/trained.py --output=benchmarks/results/trained.json

With `--ways=gradual,tfmot`, TF Model Optimization also prunes an equivalent
`tf_keras` model with the same weights, data, epochs, optimizer and schedule:

    python benchmarks/trained.py --networks=digits,keywords --seeds=0,1,2 \\
        "--distributions=lamp (no_depthwise),tfmot" --ways=gradual,tfmot \\
        --sparsities=0.8,0.9,0.95 --prune_epochs=24 \\
        --output=benchmarks/results/trained_tfmot.json
"""

import json
import math
import os
import statistics
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import trained_networks
from absl import app
from absl import flags

import tf_gems as gems
from tf_gems.provenance import provenance

# Filters and `distribution` by name. The last two are the policy of TF Model
# Optimization, which prunes all layers to the same sparsity and skips depthwise
# kernels, in this library and in TF Model Optimization itself.
DISTRIBUTIONS = {
    "global": (None, "global"),
    "lamp": (None, "lamp"),
    "layer_normalized": (None, "layer_normalized"),
    "erk": (None, "erk"),
    "uniform": (None, "uniform"),
    "global (no_depthwise)": ("no_depthwise", "global"),
    "erk (no_depthwise)": ("no_depthwise", "erk"),
    "lamp (no_depthwise)": ("no_depthwise", "lamp"),
    "uniform (no_depthwise)": ("no_depthwise", "uniform"),
    "tfmot": ("no_depthwise", "uniform"),
}

# All but the first train for the same epochs with the same optimizer.
WAYS = [
    "one shot",
    "gradual",
    "gradual once an epoch",
    "gradual with hyperbolic step",
    "gradual with density scaling",
    "acdc",
    "snip",
    "tfmot",
]
OPTIMIZERS = {
    "gradual with hyperbolic step": gems.optimizers.hyperbolic_step,
    "gradual with density scaling": gems.optimizers.density_scaling,
}

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "networks", list(trained_networks.NETWORKS), "Names of the networks."
)
flags.DEFINE_list(
    "sparsities",
    ["0.8", "0.9", "0.95", "0.98"],
    "Fractions of zeros, each in [0, 1).",
)
flags.DEFINE_list("seeds", ["0"], "Random seeds.")
flags.DEFINE_list(
    "distributions", list(DISTRIBUTIONS), "Names of the distributions."
)
flags.DEFINE_list("ways", WAYS, "Names of the ways to prune.")
flags.DEFINE_integer(
    "prune_epochs",
    None,
    "Number of pruning epochs. Defaults to the network's setting.",
)
flags.DEFINE_string(
    "directory",
    None,
    "Directory of the trained weights. Defaults to not saving them.",
)
flags.DEFINE_string("output", None, "Path of the JSON file to write.")
flags.DEFINE_string(
    "render", None, "Path of a JSON file to print as tables, without training."
)

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def accuracy(model, data):
    """Returns the accuracy of a compiled model."""
    return model.evaluate(*data, batch_size=250, verbose=0)[1]


def hide(sparse, ticket):
    """Applies the masks of a ticket to the trained weights of a model."""
    masks = ticket.masks.values()
    for weight, mask in zip(sparse.gem.prunable, masks, strict=True):
        weight.alive.assign(mask)


class Dense:
    """A trained network that can be pruned repeatedly."""

    def __init__(self, name, seed):
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        found = trained_networks.NETWORKS[name](seed)
        self.model, self.train, self.test, self.settings = found
        self.name, self.seed = name, seed
        if FLAGS.prune_epochs:
            self.settings["prune"] = FLAGS.prune_epochs
        # `None` for a `tf.data.Dataset`, which is already batched.
        self.size = size = self.settings.get("batch_size")
        data = self.train[0]
        self.steps = math.ceil(len(data) / size) if size else len(data)
        epochs = self.settings["epochs"]
        rate = keras.optimizers.schedules.CosineDecay(3e-3, self.steps * epochs)
        self.model.compile(
            keras.optimizers.Adam(rate), LOSS, metrics=["accuracy"]
        )
        saved = FLAGS.directory and Path(
            FLAGS.directory, f"{name}-{seed}.weights.h5"
        )
        if saved and saved.exists():
            self.model.load_weights(saved)
        else:
            self.model.fit(
                *self.train, batch_size=size, epochs=epochs, verbose=0
            )
        if saved and not saved.exists():
            saved.parent.mkdir(parents=True, exist_ok=True)
            self.model.save_weights(saved)
        self.accuracy = accuracy(self.model, self.test)
        self.kernels = len(gems.PruningReport(self.model).prunable)
        self._weights = self.model.get_weights()
        self._made, self._sparse = None, None

    def sparse(self, filters, way="gradual"):
        """Returns the sparse model with the trained weights, without zeros."""
        wrap = OPTIMIZERS.get(way)
        if (filters, wrap) != self._made:
            if self._sparse is not None:
                gems.unwrap(self._sparse)
            self._sparse = gems.SparseModel(
                self.model, filters=filters, phase="finetuning", seed=0
            )
            optimizer = keras.optimizers.Adam(1e-3)
            if wrap:
                optimizer = wrap(optimizer)
            self._sparse.compile(optimizer, LOSS, metrics=["accuracy"])
            self._made = (filters, wrap)
        self.model.set_weights(self._weights)
        self._sparse.gem.reset_mining()
        for variable in self._sparse.optimizer.variables:
            if "learning_rate" not in variable.path:
                variable.assign(keras.ops.zeros_like(variable))
        keras.utils.set_random_seed(self.seed)
        return self._sparse

    def prune(self, way, distribution, sparsity):
        """Returns the row of a way, a distribution and a sparsity."""
        filters, spread = DISTRIBUTIONS[distribution]
        if way == "tfmot":
            return self._row(
                way, distribution, sparsity, *self._tfmot(sparsity)
            )
        sparse = self.sparse(filters, way)
        if way == "one shot":
            hide(sparse, gems.methods.Magnitude(sparsity, spread).find(sparse))
            batches = self.train[0]
            if self.size:
                images = np.array_split(batches[:2000], 8)
                batches = [(x, None) for x in images]
            gems.recalibrate_batch_norm(sparse, batches)
        elif way == "snip":
            method = gems.methods.Snip(sparsity, 4, distribution=spread)
            batches = self.train[0]
            if self.size:
                batches = tf.data.Dataset.from_tensor_slices(self.train)
                batches = batches.batch(self.size)
            hide(sparse, method.find(sparse, batches))
            sparse.fit(
                *self.train,
                batch_size=self.size,
                epochs=self.settings["prune"],
                verbose=0,
            )
        else:
            kind = gems.GradualMagnitudeCallback
            if way == "acdc":
                kind = gems.methods.acdc.ACDCCallback
            often = {"frequency": 1} if way == "gradual once an epoch" else {}
            callback = kind(sparsity, distribution=spread, **often)
            sparse.fit(
                *self.train,
                batch_size=self.size,
                epochs=self.settings["prune"],
                verbose=0,
                callbacks=[callback],
            )
        kept = [w.alive.count() for w in sparse.gem.prunable]
        zeros = sum(w.alive.size for w in sparse.gem.prunable) - sum(kept)
        found = accuracy(sparse, self.test), kept, zeros
        return self._row(way, distribution, sparsity, *found)

    def _tfmot(self, sparsity):
        """Prunes with TF Model Optimization.

        Returns:
            Tuple of the accuracy, the numbers of kept weights and the number of
            zeros.
        """
        import tensorflow_model_optimization as tfmot
        import tf_keras

        from tf_gems.export import to_tf_keras

        self.model.set_weights(self._weights)
        keras.utils.set_random_seed(self.seed)
        epochs, steps = self.settings["prune"], self.steps
        callback = gems.GradualMagnitudeCallback(sparsity)
        schedule = tfmot.sparsity.keras.PolynomialDecay(
            0.0,
            sparsity,
            begin_step=0,
            end_step=callback.last_pruning(epochs) * steps,
            frequency=max(1, steps // 4),
        )
        twin = tfmot.sparsity.keras.prune_low_magnitude(
            to_tf_keras(self.model), pruning_schedule=schedule
        )
        twin.compile(
            tf_keras.optimizers.Adam(1e-3),
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        twin.fit(
            *self.train,
            batch_size=self.size,
            epochs=epochs,
            verbose=0,
            callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
        )
        plain = tfmot.sparsity.keras.strip_pruning(twin)
        plain.compile(loss=twin.loss, metrics=["accuracy"])
        pruned = [
            kernel.numpy()
            for layer in twin.layers
            for kernel, _, _ in getattr(layer, "pruning_vars", ())
        ]
        kept = [int(np.count_nonzero(kernel)) for kernel in pruned]
        zeros = sum(kernel.size for kernel in pruned) - sum(kept)
        return accuracy(plain, self.test), kept, zeros

    def _row(self, way, distribution, sparsity, found, kept, zeros):
        kernels = gems.PruningReport(self.model).prunable
        return {
            "network": self.name,
            "seed": self.seed,
            "way": way,
            "distribution": distribution,
            "sparsity": sparsity,
            "sparsity_of_all_kernels": zeros
            / sum(math.prod(kernel.shape) for kernel in kernels),
            "dense": self.accuracy,
            "accuracy": found,
            "least_kept": min(kept),
            "kernels_of_at_most_4": sum(k <= 4 for k in kept),
            "epochs": self.settings["epochs"],
            "prune_epochs": self.settings["prune"],
        }


def render(rows):
    """Returns tables of the loss of accuracy, in percentage points."""
    lines = []
    for network in dict.fromkeys(row["network"] for row in rows):
        for way in dict.fromkeys(row["way"] for row in rows):
            chosen = [
                r for r in rows if (r["network"], r["way"]) == (network, way)
            ]
            if not chosen:
                continue
            dense = statistics.mean(
                {r["seed"]: r["dense"] for r in chosen}.values()
            )
            sparsities = sorted({r["sparsity"] for r in chosen})
            head = "".join(f"{s:>9.0%}" for s in sparsities)
            lines.append(f"{network}, {way}, dense {dense:.2%}")
            lines.append(f"  {'':<24}{head}")
            for name in DISTRIBUTIONS:
                if all(row["distribution"] != name for row in chosen):
                    continue
                cells = []
                for sparsity in sparsities:
                    found = [
                        r["accuracy"]
                        for r in chosen
                        if (r["distribution"], r["sparsity"])
                        == (name, sparsity)
                    ]
                    cell = f"{statistics.mean(found):.2%}" if found else ""
                    cells.append(f"{cell:>9}")
                lines.append(f"  {name:<24}{''.join(cells)}")
    return "\n".join(lines)


def main(_):
    """Runs the missing rows, and prints the tables."""
    if FLAGS.render:
        found = json.loads(Path(FLAGS.render).read_text("utf-8"))
        print(render(found["rows"]))
        return
    output = FLAGS.output and Path(FLAGS.output)
    rows = []
    if output and output.exists():
        rows = json.loads(output.read_text("utf-8"))["rows"]
    keys = ("network", "seed", "way", "distribution", "sparsity")
    done = {tuple(row[key] for key in keys) for row in rows}
    for seed in map(int, FLAGS.seeds):
        for name in FLAGS.networks:
            cells = [
                (way, distribution, float(sparsity))
                for distribution in FLAGS.distributions
                for sparsity in FLAGS.sparsities
                for way in FLAGS.ways
                if (name, seed, way, distribution, float(sparsity)) not in done
                and (way == "tfmot") == (distribution == "tfmot")
            ]
            dense = Dense(name, seed) if cells else None
            for cell in cells:
                row = dense.prune(*cell)
                rows.append(row)
                print(
                    f"{name} {seed} {cell}: {row['accuracy']:.2%} of "
                    f"{row['dense']:.2%}",
                    flush=True,
                )
                if output:
                    found = {
                        "provenance": provenance(),
                        "networks": {
                            key: " ".join(make.__doc__.split())
                            for key, make in trained_networks.NETWORKS.items()
                        },
                        "rows": rows,
                    }
                    output.write_text(
                        json.dumps(found, indent=1) + "\n", "utf-8"
                    )
    print(render(rows))


if __name__ == "__main__":
    app.run(main)
