"""What the adaptive penalty is worth where the budget or the optimizer changes.

LeNet-300-100 on MNIST at density 1.44 %: the same call at three numbers of
epochs and three batch sizes, with the penalty that adapts itself and with
constant weights, which would have to be rescaled by hand; then optimizers of
other kinds. Ten epochs of fine-tuning, one seed each.

    python benchmarks/adaptive.py --output=benchmarks/results/adaptive.json
"""

import json
import os
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
flags.DEFINE_float("target_sparsity", 0.9856, "Fraction of zeros.")
flags.DEFINE_string("data_dir", None, "Directory of TFDS.")
flags.DEFINE_string("output", None, "JSON file, written row by row.")

EPOCHS = (4, 10, 20)  # as 30, 75 and 150
BATCH_SIZES = (64, 128, 512)
PENALTIES = {
    "auto": {"regularization": "auto"},
    "1e-4, resting": {"regularization": 1e-4},
    "1e-4, paper": {"regularization": 1e-4, "gated": False},
}
OPTIMIZERS = {
    "SGD, momentum": (keras.optimizers.SGD, {"momentum": 0.9}, 1.0),
    "SGD": (keras.optimizers.SGD, {}, 5.0),
    "Adam": (keras.optimizers.Adam, {}, 0.01),
    "AdamW": (keras.optimizers.AdamW, {}, 0.01),
    "Lion": (keras.optimizers.Lion, {}, 0.003),
}


def cells():
    """Yields the settings of every run."""
    for epochs in EPOCHS:
        for batch_size in BATCH_SIZES:
            for penalty in PENALTIES:
                yield penalty, "SGD, momentum", epochs, batch_size
    for optimizer in OPTIMIZERS:
        for penalty in ("auto", "1e-4, resting"):
            yield penalty, optimizer, 10, 128


def measure(data, penalty, optimizer, epochs, batch_size):
    """Mines and fine-tunes; returns a row of the results."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    network = gems.zoo.lenet_300_100(
        data.image_shape,
        data.classes,
        kernel_regularizer=keras.regularizers.L2(5e-5),
    )
    sparse = gems.SparseModel(
        network, kernel_initializer="signed_constant", seed=0
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    kind, kwargs, rate = OPTIMIZERS[optimizer]
    sparse.compile(
        kind(**kwargs), loss, metrics=["accuracy"], steps_per_execution=16
    )
    row = {
        "penalty": penalty,
        "optimizer": optimizer,
        "learning_rate": rate,
        "epochs": epochs,
        "batch_size": batch_size,
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
        ticket = miner.find(sparse, data.batches(batch_size))
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
        steps_per_execution=16,
    )
    test = data.test_batches(500)
    row["before"] = round(float(sparse.evaluate(test, verbose=0)[1]), 4)
    train(sparse, data.batches(128), 10, 0.1)
    row["after"] = round(float(sparse.evaluate(test, verbose=0)[1]), 4)
    return row


def render(rows):
    """Returns the accuracies before / after fine-tuning as a table."""
    penalties = list(PENALTIES)
    lines = [f"{'':<34}" + "".join(f"{name:>18}" for name in penalties)]
    found = {}
    for row in rows:
        place = f"{row['optimizer']}, {row['epochs']} epochs of batch "
        text = "died"
        if "after" in row:
            text = f"{row['before']:.2%} / {row['after']:.2%}"
        found.setdefault(f"{place}{row['batch_size']}", {})[row["penalty"]] = (
            text
        )
    for place, texts in found.items():
        cells = "".join(f"{texts.get(name, ''):>18}" for name in penalties)
        lines.append(f"{place:<34}{cells}")
    return "\n".join(lines)


def main(_):
    """Measures, prints and writes the results."""
    data = datasets.load("mnist", FLAGS.data_dir)
    rows = []
    for cell in dict.fromkeys(cells()):
        rows.append(measure(data, *cell))
        print(rows[-1], flush=True)
        if FLAGS.output:
            results = {
                "benchmark": "adaptive",
                "command": "python benchmarks/adaptive.py "
                f"--target_sparsity={FLAGS.target_sparsity}",
                "provenance": provenance(),
                "results": rows,
            }
            text = json.dumps(results, indent=1)
            Path(FLAGS.output).write_text(text, "utf-8")
    print(render(rows))


if __name__ == "__main__":
    app.run(main)
