"""Compares the adaptive score penalty with constant penalties.

Mines LeNet-300-100 on digits (or MNIST, with `--dataset=mnist`) for three
numbers of epochs and three batch sizes, with the adaptive penalty and with
constant weights. A constant weight would have to be rescaled by hand for each
of these settings. Other optimizers are tried as well. Each ticket is fine-tuned
for 20 epochs, and the results are means over seeds. Rows that are already in
the output file are not run again.

    python benchmarks/adaptive.py --output=benchmarks/results/adaptive.json
    python benchmarks/adaptive.py --epochs=30,75,150 --batch_sizes=64,128,512 \\
        --output=benchmarks/results/adaptive_long.json
"""

import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from absl import app
from absl import flags

import tf_gems as gems
from tf_gems import datasets
from tf_gems import methods
from tf_gems.provenance import provenance
from tf_gems.training import train

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "dataset", "digits", ["digits", "mnist"], "Name of the dataset."
)
flags.DEFINE_integer("seeds", 3, "Number of seeds.")
flags.DEFINE_list(
    "epochs",
    None,
    "Numbers of mining epochs. If set, only SGD with momentum is run.",
)
flags.DEFINE_list(
    "batch_sizes",
    None,
    "Batch sizes. Defaults to three sizes that depend on the dataset.",
)
flags.DEFINE_float(
    "target_sparsity", 0.98, "Fraction of zeros to mine to, in [0, 1)."
)
flags.DEFINE_string("data_dir", None, "Directory of the TFDS datasets.")
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

# The default epochs correspond to 30, 75 and 150.
EPOCHS = {"digits": (12, 30, 60), "mnist": (4, 10, 20)}
BATCH_SIZES = {"digits": (32, 64, 256), "mnist": (64, 128, 512)}
PENALTIES = {
    "auto": {"regularization": "auto"},
    "5e-4, resting": {"regularization": 5e-4},
    "5e-4, as the paper": {
        "regularization": 5e-4,
        "stop_at_target": False,
        "saturate_scores": False,
    },
}
OPTIMIZERS = {
    "SGD, momentum": (keras.optimizers.SGD, {"momentum": 0.9}, 1.0),
    "SGD": (keras.optimizers.SGD, {}, 5.0),
    "Adam": (keras.optimizers.Adam, {}, 0.01),
    "AdamW": (keras.optimizers.AdamW, {}, 0.01),
    # A step of Lion changes every score by the rate, so 0.003 is too slow.
    "Lion": (keras.optimizers.Lion, {}, 0.01),
}


def cells():
    """Yields the settings of every run."""
    epochs = list(map(int, FLAGS.epochs or EPOCHS[FLAGS.dataset]))
    sizes = list(map(int, FLAGS.batch_sizes or BATCH_SIZES[FLAGS.dataset]))
    for seed in range(FLAGS.seeds):
        for count in epochs:
            for size in sizes:
                for penalty in PENALTIES:
                    yield penalty, "SGD, momentum", count, size, seed
        for optimizer in [] if FLAGS.epochs else OPTIMIZERS:
            for penalty in ("auto", "5e-4, resting"):
                yield penalty, optimizer, epochs[1], sizes[1], seed


def measure(data, penalty, optimizer, epochs, batch_size, seed):
    """Mines and fine-tunes a network. Returns a row of the results."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    network = gems.zoo.lenet_300_100(
        data.image_shape,
        data.classes,
        kernel_regularizer=keras.regularizers.L2(5e-5),
    )
    sparse = gems.SparseModel(
        network, kernel_initializer="signed_constant", seed=seed
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    kind, kwargs, rate = OPTIMIZERS[optimizer]
    sparse.compile(
        kind(**kwargs), loss, metrics=["accuracy"], steps_per_execution=4
    )
    row = {
        "penalty": penalty,
        "optimizer": optimizer,
        "learning_rate": rate,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
    }
    miner = methods.GemMiner(
        FLAGS.target_sparsity,
        epochs=epochs,
        learning_rate=rate,
        freeze_period=1,
        **PENALTIES[penalty],
    )
    begin = time.perf_counter()
    try:
        batches = data.batches(batch_size, seed)
        ticket = miner.find(sparse, batches, verbose=0)
    except RuntimeError as error:
        return {**row, "failure": str(error).split(".")[0]}
    row["seconds"] = round(time.perf_counter() - begin, 1)
    row["rounded_density"] = sparse.density
    ticket.apply(sparse)
    row["smallest_layer"] = min(layer["kept"] for layer in ticket.layers())
    sparse.compile(
        keras.optimizers.SGD(momentum=0.9),
        loss,
        metrics=["accuracy"],
        steps_per_execution=4,
    )
    test = data.test_batches(500)
    row["before"] = round(float(sparse.evaluate(test, verbose=0)[1]), 4)
    train(sparse, data.batches(64, seed), 20, 0.1)
    row["after"] = round(float(sparse.evaluate(test, verbose=0)[1]), 4)
    return row


def render(rows):
    """Returns a table of the accuracies before and after fine-tuning."""
    penalties = list(PENALTIES)
    lines = [f"{'':<32}" + "".join(f"{name:>22}" for name in penalties)]
    found = {}
    for row in rows:
        place = f"{row['optimizer']}, {row['epochs']} epochs of batch "
        found.setdefault(f"{place}{row['batch_size']}", {}).setdefault(
            row["penalty"], []
        ).append(row)
    for place, of in found.items():
        texts = [_means(of.get(name, [])) for name in penalties]
        cells = "".join(f"{text:>22}" for text in texts)
        lines.append(f"{place:<32}{cells}")
    return "\n".join(lines)


def _means(rows):
    died = sum("failure" in row for row in rows)
    if died or not rows:
        return f"{died} of {len(rows)} died" if died else ""
    means = [
        100 * statistics.mean(row[key] for row in rows)
        for key in ("before", "after")
    ]
    return f"{means[0]:.2f} / {means[1]:.2f}"


def main(_):
    """Runs the missing settings, prints a table and writes the results."""
    data = datasets.load(FLAGS.dataset, FLAGS.data_dir)
    rows = []
    if FLAGS.output and Path(FLAGS.output).exists():
        rows = json.loads(Path(FLAGS.output).read_text("utf-8"))["results"]
    names = ("penalty", "optimizer", "epochs", "batch_size", "seed")
    known = {tuple(row[name] for name in names) for row in rows}
    for cell in dict.fromkeys(cells()):
        if cell in known:
            continue
        rows.append(measure(data, *cell))
        print(rows[-1], flush=True)
        if FLAGS.output:
            results = {
                "benchmark": "adaptive",
                "command": "python benchmarks/adaptive.py "
                f"--dataset={FLAGS.dataset} --seeds={FLAGS.seeds} "
                f"--target_sparsity={FLAGS.target_sparsity}"
                + "".join(
                    f" --{name}={','.join(FLAGS[name].value)}"
                    for name in ("epochs", "batch_sizes")
                    if FLAGS[name].value
                ),
                "provenance": provenance(),
                "results": rows,
            }
            text = json.dumps(results, indent=1)
            Path(FLAGS.output).write_text(text, "utf-8")
    print(render(rows))


if __name__ == "__main__":
    app.run(main)
