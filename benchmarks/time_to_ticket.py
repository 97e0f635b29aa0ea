"""Compares iterative magnitude pruning and Gem-Miner in epochs and seconds.

The paper reports that IMP prunes 20 % per round, and that each of its 19 rounds
takes as many epochs as Gem-Miner in total. In this benchmark, both methods find
a ticket of LeNet-300-100 on MNIST at a density of 1.44 %, one after the other
on the same machine. Both tickets are fine-tuned for the same number of epochs.

    python benchmarks/time_to_ticket.py --output=time_to_ticket.json
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
flags.DEFINE_integer(
    "epochs",
    10,
    "Number of epochs of mining, of each round, and of fine-tuning.",
)
flags.DEFINE_integer("seeds", 3, "Number of seeds.")
flags.DEFINE_string("data_dir", None, "Directory of the TFDS datasets.")
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

SPARSITY = 0.9856
BATCH_SIZE = 128


def both(epochs):
    """Returns both methods by name."""
    return {
        "gem_miner": methods.GemMiner(
            SPARSITY,
            epochs=epochs,
            learning_rate=1.0,
            freeze_period=1,
            regularization=1e-4,
        ),
        "imp": methods.IterativeMagnitude(
            SPARSITY, epochs=epochs, learning_rate=0.1, rate=0.2
        ),
    }


def measure(method, data, epochs, seed):
    """Finds a ticket and fine-tunes it. Returns a row of the results."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    network = gems.zoo.lenet_300_100(
        data.image_shape,
        data.classes,
        kernel_regularizer=keras.regularizers.L2(5e-5),
    )
    sparse = gems.SparseModel(
        network, kernel_initializer=method.kernel_initializer, seed=seed
    )
    sparse.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=16,
    )
    batches, test = data.batches(BATCH_SIZE, seed), data.test_batches(500)
    begin = time.perf_counter(), time.process_time()
    ticket = method.find(sparse, batches, verbose=0)
    end = time.perf_counter(), time.process_time()
    ticket.apply(sparse)
    sparse.compiled = True
    _, before = sparse.evaluate(test, verbose=0)
    train(sparse, batches, epochs, 0.1)
    _, after = sparse.evaluate(test, verbose=0)
    return {
        "seed": seed,
        "kept": ticket.kept,
        "epochs_of_search": method.epochs_of_search,
        "seconds_of_search": round(end[0] - begin[0], 2),
        "processor_seconds_of_search": round(end[1] - begin[1], 2),
        "accuracy_before": round(float(before), 4),
        "accuracy": round(float(after), 4),
    }


def main(_):
    """Runs the benchmark, and prints and writes the results."""
    data = datasets.load("mnist", FLAGS.data_dir)
    rows = {name: [] for name in both(FLAGS.epochs)}
    for seed in range(FLAGS.seeds):
        for name, method in both(FLAGS.epochs).items():
            rows[name].append(measure(method, data, FLAGS.epochs, seed))
            print(name, rows[name][-1], flush=True)
    ratios = {
        key: round(
            statistics.median(row[key] for row in rows["imp"])
            / statistics.median(row[key] for row in rows["gem_miner"]),
            2,
        )
        for key in (
            "epochs_of_search",
            "seconds_of_search",
            "processor_seconds_of_search",
        )
    }
    print("IMP / Gem-Miner:", ratios)
    results = {
        "benchmark": "time_to_ticket",
        "command": "python benchmarks/time_to_ticket.py "
        f"--epochs={FLAGS.epochs} --seeds={FLAGS.seeds}",
        "provenance": provenance(),
        "target_sparsity": SPARSITY,
        "imp_over_gem_miner": ratios,
        "results": rows,
    }
    if FLAGS.output:
        Path(FLAGS.output).write_text(json.dumps(results, indent=2), "utf-8")


if __name__ == "__main__":
    app.run(main)
