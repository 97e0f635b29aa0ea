"""What `tf_gems.compact` removes, and how much faster LiteRT runs then.

    python benchmarks/compaction.py --output=benchmarks/results/compaction.json

Two kinds of networks:

* The published tickets of `savedmodels`, which were mined: single weights are
  zero, as they are before fine-tuning. Fine-tuning moves the shifts of batch
  normalization, which makes constants of dead channels that are not zero.
  Rows "shifts drawn" have such shifts, drawn at random.
* Networks of which whole channels are zero (`pattern="channel"`), in the
  kernels that `tf_gems.plan` names for it. Which ones is drawn at random, and
  so are all weights, statistics and shifts: these rows tell time, and nothing
  about accuracy.

Each export is compared with the Keras model before it is timed. Times are
processor times of LiteRT on one thread, for one example, dense and compact in
turns in one process; medians, and quartiles of the ratio. The dense file is
that of the same network with none of its zeros used.
"""

import importlib.metadata
import json
import tempfile
import time
from pathlib import Path

import mining  # noqa: F401  # first: it quiets TensorFlow
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
    """Returns the ResNet-20 of the recipes for CIFAR-10."""
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
    """Draws what batch normalization learns, as after training."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        shape = weight.shape
        if weight.path.endswith(("beta", "moving_mean")):
            weight.assign(0.3 * random.normal(size=shape))
        elif weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(random.uniform(0.5, 1.5, shape))


def cases():
    """Yields rows and networks."""
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
    """Returns a function that runs a file once, and its processor time."""
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
    """Returns the times of two functions that time themselves, in turns."""
    times = [[], []]
    for number in range(-5, rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            took = runs[which]()
            if number >= 0:
                times[which].append(took)
    return times


def measure(model, inputs, folder, rounds):
    """Measures what compaction removes of a network, and the time it saves.

    Args:
        model: Keras model with zeros.
        inputs: Float32 array of a few examples.
        folder: Path to which `dense.tflite` and `compact.tflite` are written.
        rounds: Integer, runs of each file.

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
    """Returns what tells rows apart."""
    return row["zeros"], row["network"], row["sparsity"]


def known():
    """Returns the rows that are measured already, if only some are to be."""
    if not (FLAGS.only and FLAGS.output and Path(FLAGS.output).exists()):
        return {}
    found = json.loads(Path(FLAGS.output).read_text("utf-8"))["results"]
    return {key(row): row for row in found}


def main(_):
    """Measures, prints a table, writes JSON."""
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
    flags.DEFINE_list("sparsities", ["0.3", "0.5", "0.7"], "Of channels.")
    flags.DEFINE_integer("rounds", 101, "Of one run of each file, in turns.")
    flags.DEFINE_string(
        "only", "", "Text in the kinds of zeros to measure; other rows stay."
    )
    flags.DEFINE_string("output", None, "JSON file to write.")
    app.run(main)
