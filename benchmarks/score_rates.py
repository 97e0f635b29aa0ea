"""Compares `ScoreOptimizer`, which needs no learning rate, with tuned SGD.

`tf_gems.optimizers.ScoreOptimizer` is compared with SGD with momentum at
several learning rates with cosine decay to zero. The results are the accuracies
before and after fine-tuning, as means over the seeds. Rows that are already in
the output file are not run again.

    python benchmarks/score_rates.py \\
        --output=benchmarks/results/score_rates.json
"""

import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import trained_networks
from absl import app
from absl import flags
from results_file import run_missing

import tf_gems as gems

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "data", ["digits", "mnist", "cifar10"], "Names of the datasets."
)
flags.DEFINE_list("epochs", ["10", "30", "100"], "Numbers of mining epochs.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "Random seeds.")
flags.DEFINE_list(
    "arms", None, "Names of the optimizers, such as `sgd 0.3`. Defaults to all."
)
flags.DEFINE_string("output", None, "Path of the JSON file to write.")
flags.DEFINE_string(
    "render", None, "Path of a JSON file to print as a table, without training."
)

RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
TRAVELS = (10.0, 20.0, 40.0)
ARMS = [f"travel {travel:g}" for travel in TRAVELS] + [
    f"sgd {rate:g}" for rate in RATES
]
# Batch size, fraction of zeros, fine-tuning epochs and learning rate.
SETTINGS = {
    "digits": (32, 0.98, 20, 0.1),
    "mnist": (128, 0.9856, 5, 0.1),
    "cifar10": (64, 0.95, 10, 0.1),
}
ROUNDS = ("data", "arm", "epochs", "seed")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(name):
    """Returns a network, its training data and its test data.

    The networks are LeNet-300-100 on digits and on a fifth of MNIST, and
    ResNet-8 on 3,000 images of CIFAR-10 at half the height and width.
    """
    if name == "cifar10":
        return trained_networks.resnet(0)[:3]
    fraction = 0.2 if name == "mnist" else 1.0
    data = gems.datasets.load(name, os.environ.get("TFDS_DATA_DIR"), fraction)
    model = gems.zoo.lenet_300_100(data.image_shape, data.classes)
    return model, data.train, data.test


def optimizer(arm, steps):
    """Returns the optimizer of the scores."""
    kind, number = arm.split()
    number = float(number)
    if kind == "travel":
        return gems.optimizers.ScoreOptimizer(number)
    rate = keras.optimizers.schedules.CosineDecay(number, steps)
    return keras.optimizers.SGD(rate, momentum=0.9)


def measure(name, arm, epochs, seed):
    """Mines and fine-tunes a network. Returns a row of the results."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model, (images, labels), test = network(name)
    size, sparsity, tuning, rate = SETTINGS[name]
    steps = -(-len(labels) // size)
    sparse = gems.SparseModel(
        model, kernel_initializer="signed_constant", seed=seed
    )

    def fit(epochs, callbacks=None):
        sparse.fit(
            images,
            labels,
            batch_size=size,
            epochs=epochs,
            verbose=0,
            callbacks=callbacks,
        )

    callback = gems.GemMinerCallback(sparsity, freeze_period=1)
    row = {"data": name, "arm": arm, "epochs": epochs, "seed": seed}
    sparse.compile(optimizer(arm, epochs * steps), LOSS)
    try:
        fit(epochs, [callback])
    except RuntimeError as error:
        return row | {"failure": str(error).split(".")[0]}
    sparse.start_finetuning()
    schedule = keras.optimizers.schedules.CosineDecay(rate, tuning * steps)
    sparse.compile(
        keras.optimizers.SGD(schedule, momentum=0.9), LOSS, metrics=["accuracy"]
    )
    row["before"] = sparse.evaluate(*test, batch_size=500, verbose=0)[1]
    fit(tuning)
    row["after"] = sparse.evaluate(*test, batch_size=500, verbose=0)[1]
    return row


def render(rows):
    """Returns a table of accuracies before and after fine-tuning, in %."""
    places = list(dict.fromkeys((row["data"], row["epochs"]) for row in rows))
    head = "".join(f"{f'{data}, {epochs}':>16}" for data, epochs in places)
    lines = [f"{'':<12}{head}"]
    for arm in ARMS:
        cells = []
        for place in places:
            found = [
                row
                for row in rows
                if (row["data"], row["epochs"]) == place and row["arm"] == arm
            ]
            failed = sum("failure" in row for row in found)
            text = f"{failed} of {len(found)} died" if failed else ""
            if found and not failed:
                before, after = (
                    100 * statistics.mean(row[key] for row in found)
                    for key in ("before", "after")
                )
                text = f"{before:.2f} / {after:.2f}"
            cells.append(f"{text:>16}")
        lines.append(f"{arm:<12}{''.join(cells)}")
    return "\n".join(lines)


def main(_):
    """Runs the missing rows, and prints the table."""
    cells = [
        (name, arm, int(epochs), int(seed))
        for seed in FLAGS.seeds
        for epochs in FLAGS.epochs
        for name in FLAGS.data
        for arm in FLAGS.arms or ARMS
    ]
    path = FLAGS.render or FLAGS.output
    cells = () if FLAGS.render else cells
    rows = run_missing(path, "score_rates", cells, ROUNDS, measure)
    print(render(rows))


if __name__ == "__main__":
    app.run(main)
