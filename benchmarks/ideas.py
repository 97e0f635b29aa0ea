"""Compares ideas to improve Gem-Miner and fine-tuning with the baseline.

Trains ResNet-20 on 10,000 images of CIFAR-10 at half the height and width
(reduced), for 12 epochs of mining and 12 epochs of fine-tuning. Fine-tuning
ideas start from the same ticket. Mining ideas start from the same scores and
images. All other settings are equal. The dense network trains for 24 epochs,
and is the teacher where an idea needs one. Rows that are already in the output
file are not run again.

    python benchmarks/ideas.py --directory=/tmp/ideas \\
        --output=benchmarks/results/ideas.json
"""

import os
import statistics
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import trained_networks
from absl import app
from absl import flags
from results_file import run_missing

import tf_gems as gems

MINING = ["base", "sgd 0.3", "sgd 1", "sgd 3", "warm", "redraw", "flip"]
FINETUNING = [
    "hyperbolic step 200",
    "hyperbolic step 2",
    "density scaling",
    "label smoothing",
    "distillation",
    "rate 0.03",
    "rate 0.3",
]
EPOCHS, WARM_EPOCHS, SIZE = 12, 2, 128
IMAGES, TESTS, EDGE = 10_000, 5_000, 16
TEMPERATURE = 4.0
ROUNDS = ("idea", "sparsity", "seed")

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "ideas", ["dense", *MINING, *FINETUNING], "Names of the ideas."
)
flags.DEFINE_list(
    "sparsities",
    ["0.9856", "0.9941", "0.9628"],
    "Fractions of zeros, each in [0, 1).",
)
flags.DEFINE_list("seeds", ["0", "1", "2"], "Random seeds.")
flags.DEFINE_string(
    "directory", "ideas", "Directory of the tickets and dense networks."
)
flags.DEFINE_string("output", None, "Path of the JSON file to write.")
flags.DEFINE_string(
    "render", None, "Path of a JSON file to print as a table, without training."
)

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def soft_labels(labels, smoothing):
    """Returns smoothed one-hot labels."""
    return (1 - smoothing) * np.eye(10)[labels] + smoothing / 10


def sgd(rate, epochs):
    """Returns SGD with momentum and a cosine schedule that decays to zero."""
    steps = epochs * -(-IMAGES // SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    return keras.optimizers.SGD(schedule, momentum=0.9)


class Flip(keras.callbacks.Callback):
    """Changes the signs of weights that round to zero at the end of an epoch.

    Each kernel has a single magnitude. Resampling a weight, as IteRand does,
    therefore changes its sign with probability 0.5. With probability 1, the
    mask has the values -1, 0 and 1: a weight that was removed with one sign can
    return with the other.
    """

    def __init__(self, sparse, probability, seed):
        super().__init__()
        self.sparse, self.probability = sparse, probability
        self.random = np.random.default_rng(seed)

    def on_epoch_end(self, epoch, logs=None):
        for w in self.sparse.gem.prunable:
            flipped = (w.read_score() <= 0.5) & np.asarray(w.alive)
            drawn = self.random.random(flipped.shape) < self.probability
            values = w.read_weight()
            w.weight.assign(np.where(flipped & drawn, -values, values))


class Cells:
    """Measures ideas with the same data, seeds and tickets."""

    def __init__(self):
        self.train, self.test = trained_networks.cifar10(IMAGES, TESTS, EDGE)

    def _fit(self, model, epochs, callbacks=None, labels=None):
        labels = self.train[1] if labels is None else labels
        model.fit(
            self.train[0],
            labels,
            batch_size=SIZE,
            epochs=epochs,
            verbose=0,
            callbacks=callbacks,
        )

    def _accuracy(self, model):
        logits = model.predict(self.test[0], batch_size=500, verbose=0)
        return float(np.mean(logits.argmax(-1) == self.test[1]))

    def _network(self, seed):
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        return gems.zoo.resnet20((EDGE, EDGE, 3), 10)

    def _dense(self, seed):
        path = Path(FLAGS.directory, f"dense-{seed}.weights.h5")
        model = self._network(seed)
        if path.exists():
            model.load_weights(path)
        else:
            model.compile(sgd(0.1, 2 * EPOCHS), LOSS)
            self._fit(model, 2 * EPOCHS)
            path.parent.mkdir(parents=True, exist_ok=True)
            model.save_weights(path)
        return model

    def _mined(self, idea, sparsity, seed):
        """Returns a mined model and its ticket."""
        model, epochs = self._network(seed), EPOCHS
        path = Path(FLAGS.directory, f"{idea}-{sparsity}-{seed}.gem")
        warm = idea == "warm"
        if warm:
            epochs = EPOCHS - WARM_EPOCHS
            if not path.exists():
                model.compile(sgd(0.1, WARM_EPOCHS), LOSS)
                self._fit(model, WARM_EPOCHS)
        sparse = gems.SparseModel(
            model,
            kernel_initializer=None if warm else "signed_constant",
            seed=seed,
        )
        if path.exists():
            return sparse, gems.Ticket.load(path)
        kind, _, number = idea.partition(" ")
        sgd_used = kind == "sgd"
        sparse.compile(sgd(float(number), epochs) if sgd_used else "auto", LOSS)
        callbacks = [gems.GemMinerCallback(sparsity, freeze_period=1)]
        if idea in ("redraw", "flip"):
            share = 0.5 if idea == "redraw" else 1.0
            callbacks.append(Flip(sparse, share, seed))
        self._fit(sparse, epochs, callbacks)
        ticket = sparse.ticket()
        path.parent.mkdir(parents=True, exist_ok=True)
        ticket.save(path)
        return sparse, ticket

    def _teach(self, idea, seed):
        """Returns the labels and the loss of an idea."""
        labels = self.train[1]
        if idea == "label smoothing":
            soft = soft_labels(labels, 0.1)
            return soft, keras.losses.CategoricalCrossentropy(from_logits=True)
        if idea == "distillation":
            logits = self._dense(seed).predict(
                self.train[0], batch_size=500, verbose=0
            )
            soft = keras.ops.softmax(logits / TEMPERATURE)
            both = np.concatenate([soft, np.eye(10)[labels]], -1)
            return both, _distillation
        return labels, LOSS

    def measure(self, idea, sparsity, seed):
        """Returns a row of the results."""
        row = {"idea": idea, "sparsity": sparsity, "seed": seed}
        if idea == "dense":
            return row | {"after": self._accuracy(self._dense(seed))}
        labels, loss = self._teach(idea, seed)
        try:
            mining = idea if idea in MINING else "base"
            sparse, ticket = self._mined(mining, sparsity, seed)
        except RuntimeError as error:
            return row | {"failure": str(error).split(".")[0]}
        sparse.start_finetuning(ticket)
        row["before"] = self._accuracy(sparse)
        rate = float(idea.split()[1]) if idea.startswith("rate") else 0.1
        optimizer = sgd(rate, EPOCHS)
        if idea.startswith("hyperbolic step"):
            alpha = float(idea.split()[-1])
            optimizer = gems.optimizers.hyperbolic_step(optimizer, alpha)
        if idea == "density scaling":
            optimizer = gems.optimizers.density_scaling(optimizer)
        sparse.compile(optimizer, loss)
        self._fit(sparse, EPOCHS, labels=labels)
        return row | {"after": self._accuracy(sparse)}


def _distillation(targets, logits):
    """Returns the mean of the losses for the labels and for the teacher."""
    soft, hard = targets[:, :10], targets[:, 10:]
    entropy = keras.losses.categorical_crossentropy
    taught = entropy(soft, logits / TEMPERATURE, from_logits=True)
    known = entropy(hard, logits, from_logits=True)
    return (TEMPERATURE**2 * taught + known) / 2


def render(rows):
    """Returns a Markdown table of means and half ranges over the seeds."""
    places = sorted({row["sparsity"] for row in rows if row["sparsity"]})
    head = " | ".join(f"{1 - sparsity:.2%} kept" for sparsity in places)
    lines = [f"| idea | {head} |", "| --- |" + " --- |" * len(places)]
    for idea in dict.fromkeys(row["idea"] for row in rows):
        cells = []
        for sparsity in places:
            found = [
                row
                for row in rows
                if row["idea"] == idea and row["sparsity"] in (sparsity, 0.0)
            ]
            failed = sum("failure" in row for row in found)
            texts = [f"{failed} of {len(found)} died"] if failed else []
            for key in () if failed else ("before", "after"):
                values = [100 * row[key] for row in found if key in row]
                if values:
                    half = (max(values) - min(values)) / 2
                    mean = statistics.mean(values)
                    texts.append(f"{mean:.1f} ±{half:.1f}")
            cells.append(" / ".join(texts) or "-")
        seeds = len({row["seed"] for row in rows if row["idea"] == idea})
        lines.append(f"| {idea} ({seeds} seeds) | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    """Runs the missing rows, and prints the table."""
    wanted = dict.fromkeys(
        (idea, 0.0 if idea == "dense" else float(sparsity), int(seed))
        for sparsity in FLAGS.sparsities
        for seed in FLAGS.seeds
        for idea in FLAGS.ideas
    )
    rows = run_missing(
        FLAGS.render or FLAGS.output,
        "ideas",
        () if FLAGS.render else wanted,
        ROUNDS,
        None if FLAGS.render else Cells().measure,
    )
    print(render(rows))


if __name__ == "__main__":
    app.run(main)
