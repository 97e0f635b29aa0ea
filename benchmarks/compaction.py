"""Measures what `tf_gems.compact` removes, and the speed-up in LiteRT.

    python benchmarks/compaction.py --output=benchmarks/results/compaction.json

There are two kinds of networks:

* The published tickets of `savedmodels`. They were mined, so individual weights
are zero. They have not been fine-tuned. Fine-tuning changes the offsets of
batch normalization, after which a dead channel is a nonzero constant. Rows
named "shifts drawn" have such offsets, drawn at random.
* Networks with whole channels of zeros (`pattern="channel"`), in the kernels
that `tf_gems.plan` names. The channels, weights, statistics and offsets are all
random, so these rows measure time and not accuracy.

Each export is compared with the Keras model before it is timed. The dense and
the compact file run alternately in one process. Times are CPU times of LiteRT
on one thread for one example: medians, and quartiles of the ratio. The dense
file holds the same network with all its zeros stored.
"""

import importlib.metadata
import json
import tempfile
import time
from pathlib import Path

import mining  # noqa: F401  # must be the first import: silences TensorFlow
import numpy as np
from absl import app
from absl import flags
from results_file import write_results

import tf_gems
from tf_gems import zoo
from tf_gems.export.litert import write_litert
from tf_gems.planning.channels import removable_kernels
from tf_gems.quiet import quiet

FLAGS = flags.FLAGS
TICKETS = Path(__file__).parents[1] / "savedmodels"


def resnet20():
    """Returns the ResNet-20 that the CIFAR-10 recipes use."""
    return zoo.resnet20((32, 32, 3), 10)


MINED = {
    "mnist": ("LeNet-300-100", lambda: zoo.lenet_300_100((28, 28, 1), 10)),
    "cifar10": ("ResNet-20", resnet20),
}
CHANNELS = {
    "ResNet-20": resnet20,
    "MobileNetV1 x0.5, 96 px": lambda: zoo.mobilenet_v1(
        (96, 96, 3), 20, alpha=0.5
    ),
    "VGG-16, 32 px": lambda: zoo.vgg16((32, 32, 3), 10),
}


def draw_normalizations(model):
    """Sets the parameters of batch normalization to random values.

    They are in the range of those of a trained network.
    """
    random = np.random.default_rng(0)
    for weight in model.weights:
        shape = weight.shape
        if weight.path.endswith(("beta", "moving_mean")):
            weight.assign(0.3 * random.normal(size=shape))
        elif weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(random.uniform(0.5, 1.5, shape))


def cases():
    """Yields pairs of a row and a network."""
    for name, (network, build) in MINED.items():
        for shifts in ("as mined", "shifts drawn"):
            model = build()
            tf_gems.Ticket.load(TICKETS / f"{name}.gem").apply(model)
            if shifts == "shifts drawn":
                if not any("moving_mean" in w.path for w in model.weights):
                    continue
                draw_normalizations(model)
            zeros = f"mined, savedmodels/{name}.gem, {shifts}"
            yield (
                {"network": network, "zeros": zeros, "sparsity": 0.9856},
                model,
            )
    for network, build in CHANNELS.items():
        for sparsity in map(float, FLAGS.sparsities):
            model = build()
            kernels = {id(kernel) for kernel in removable_kernels(model)}
            sparse = tf_gems.SparseModel(
                model,
                lambda variable, kernels=kernels: id(variable) in kernels,
                seed=0,
                start="trained",
            )
            method = tf_gems.methods.RandomPruning(
                sparsity, 0, pattern="channel", distribution="uniform"
            )
            sparse.start_finetuning(method.find(sparse))
            model = tf_gems.strip(sparse)
            draw_normalizations(model)
            row = {"network": network, "zeros": "random channels"}
            yield row | {"sparsity": sparsity}, model


def runner(data, example):
    """Returns a function that runs a file once and returns its CPU time."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        found = Interpreter(model_content=bytes(data), num_threads=1)
        found.allocate_tensors()
    found.set_tensor(found.get_input_details()[0]["index"], example)

    def run():
        begin = time.process_time()
        found.invoke()
        return time.process_time() - begin

    return run


def in_turns(runs, rounds):
    """Alternates two functions that return their times. Returns all times."""
    times = [[], []]
    for number in range(-5, rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            took = runs[which]()
            if number >= 0:
                times[which].append(took)
    return times


def measure(model, inputs, folder, rounds):
    """Measures what compaction removes from a network, and the time it saves.

    Args:
        model: Keras model with zeros.
        inputs: Float32 array of a few examples.
        folder: Path of the directory for `dense.tflite` and `compact.tflite`.
        rounds: Integer, number of runs of each file.

    Returns:
        Dict of JSON values.
    """
    paths = [Path(folder, f"{k}.tflite") for k in ("dense", "compact")]
    report, dense = write_litert(
        *(model, paths[1], inputs, "float32"),
        batch_size=1,
        sparse=False,
        compact=True,
    )
    paths[0].write_bytes(dense)
    runs = [runner(path.read_bytes(), inputs[:1]) for path in paths]
    times = in_turns(runs, rounds)
    ratios = np.divide(*times)
    return {
        "parameters": report.compaction.parameters,
        "multiply_adds": report.compaction.multiply_adds,
        "bytes": [report.dense_bytes, report.bytes],
        "dense_ms": 1e3 * float(np.median(times[0])),
        "compact_ms": 1e3 * float(np.median(times[1])),
        "speedup": float(np.median(times[0]) / np.median(times[1])),
        "speedup_quartiles": np.percentile(ratios, [25, 75]).tolist(),
        "largest_difference": report.largest_difference,
        "largest_output": report.largest_output,
        "kept": report.compaction.kept,
    }


def key(row):
    """Returns the key that identifies a row."""
    return row["zeros"], row["network"], row["sparsity"]


def known():
    """Returns the measured rows of the output file, if `--only` is given."""
    if not (FLAGS.only and FLAGS.output and Path(FLAGS.output).exists()):
        return {}
    found = json.loads(Path(FLAGS.output).read_text("utf-8"))["results"]
    return {key(row): row for row in found}


def main(_):
    """Runs the benchmark, prints a table and writes JSON."""
    rows = known()
    for row, model in cases():
        if FLAGS.only not in row["zeros"]:
            continue
        random = np.random.default_rng(0)
        shape = (4, *model.input_shape[1:])
        inputs = random.normal(size=shape).astype("float32")
        with tempfile.TemporaryDirectory() as folder:
            row |= measure(model, inputs, folder, FLAGS.rounds)
        rows[key(row)] = row
        shares = [
            1 - row[name][1] / row[name][0]
            for name in ("parameters", "multiply_adds")
        ]
        print(
            f"{row['network']:<24}{row['sparsity']:>8.2%}"
            f"{shares[0]:>8.1%}{shares[1]:>8.1%}"
            f"{row['dense_ms']:>9.3f}{row['compact_ms']:>9.3f}"
            f"{row['speedup']:>7.2f}x"
            f"{row['largest_difference'] / row['largest_output']:>9.1e}"
            f"  {row['zeros']}",
            flush=True,
        )
    write_results(
        FLAGS.output,
        "compaction",
        list(rows.values()),
        ai_edge_litert=importlib.metadata.version("ai-edge-litert"),
        times="processor time of one thread; other work ran beside it",
    )


if __name__ == "__main__":
    flags.DEFINE_list(
        "sparsities",
        ["0.3", "0.5", "0.7"],
        "Fractions of zero channels, each in [0, 1).",
    )
    flags.DEFINE_integer(
        "rounds", 101, "Number of alternating runs of each file."
    )
    flags.DEFINE_string(
        "only",
        "",
        "Text that the kind of zeros must contain. Other rows are kept.",
    )
    flags.DEFINE_string("output", None, "Path of the JSON file to write.")
    app.run(main)
