"""Compares post-training quantization and quantization-aware training.

Each network of `trained_networks.py` is trained, and then pruned to 90 % zeros
in a `fit` of a few epochs. Starting from these weights, an 8-bit file is
exported in two ways: by post-training quantization with ranges from examples,
and after a few epochs of quantization-aware training. The float network is
trained for the same number of additional epochs, so that training is equally
long. The accuracies are measured by running the files in LiteRT on the test
set. Rows that are already in the output file are not run again.

    python benchmarks/quantization.py \\
        --output=benchmarks/results/quantization.json
"""

import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import trained_networks
from absl import app
from absl import flags
from ai_edge_litert.interpreter import Interpreter
from results_file import write_results

import tf_gems as gems

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "networks", ["digits", "mobilenet_half"], "Names of the networks."
)
flags.DEFINE_list("seeds", ["0", "1", "2"], "Random seeds.")
flags.DEFINE_float("sparsity", 0.9, "Fraction of zeros, in [0, 1).")
flags.DEFINE_integer("epochs", 4, "Number of epochs after pruning.")
flags.DEFINE_float("rate", 3e-4, "Learning rate after pruning.")
flags.DEFINE_string("output", None, "Path of the JSON file to write.")
flags.DEFINE_string(
    "render", None, "Path of a JSON file to print as a table, without training."
)


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(model, rate):
    """Compiles a model and returns it."""
    model.compile(keras.optimizers.Adam(rate), LOSS, metrics=["accuracy"])
    return model


def accuracy(path, data):
    """Returns the accuracy of a TFLite file."""
    images, labels = data
    interpreter = Interpreter(str(path))
    [inputs] = interpreter.get_input_details()
    [outputs] = interpreter.get_output_details()
    right = 0
    for start in range(0, len(images), 50):
        batch = images[start : start + 50]
        interpreter.resize_tensor_input(inputs["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(inputs["index"], batch)
        interpreter.invoke()
        found = interpreter.get_tensor(outputs["index"]).argmax(1)
        right += int((found == labels[start : start + 50]).sum())
    return right / len(images)


def run(network, seed, sparsity, epochs, rate):
    """Returns the row of a network and a seed."""
    keras.utils.set_random_seed(seed)
    build = trained_networks.NETWORKS[network]
    model, (x, y), test, plan = build(seed)
    batch = {"batch_size": plan["batch_size"], "verbose": 0}
    compiled(model, 3e-3).fit(x, y, epochs=plan["epochs"], **batch)
    row = {"network": network, "seed": seed, "sparsity": sparsity}
    row["dense"] = model.evaluate(*test, verbose=0)[1]
    sparse = compiled(gems.SparseModel(model, start="trained"), 1e-3)
    sparse.fit(
        x,
        y,
        epochs=plan["prune"],
        callbacks=[gems.GradualMagnitudeCallback(sparsity)],
        **batch,
    )
    plain = gems.strip(sparse)
    start = plain.get_weights()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        # The float network and its 8-bit file from post-training quantization.
        keras.utils.set_random_seed(seed)
        again = compiled(gems.SparseModel(plain, start="trained"), rate)
        again.fit(x, y, epochs=epochs, **batch)
        plain = gems.strip(again)
        row["zeros"] = zeros(plain)
        gems.export_litert(plain, path, inputs=test[0][:100])
        row["float"] = accuracy(path, test)
        gems.export_litert(
            plain,
            path,
            form="int8",
            representative_data=x[:500],
            inputs=test[0][:100],
            tolerance=1.0,
        )
        row["after_training"] = accuracy(path, test)
        plain.set_weights(start)
        keras.utils.set_random_seed(seed)
        aware = gems.QuantizationAwareModel(plain, x[:500])
        compiled(aware, rate).fit(x, y, epochs=epochs, **batch)
        row["zeros_aware"] = zeros(plain)
        row["aware_keras"] = aware.evaluate(*test, verbose=0)[1]
        report = gems.export_litert(
            aware, path, form="int8", inputs=test[0][:100]
        )
        row["aware"] = accuracy(path, test)
        row["notes"] = [note for note in report.notes if "step" in note]
    return row


def zeros(model):
    """Returns the fraction of zeros in all kernels except depthwise ones."""
    kernels = [
        np.asarray(part.kernel.value)
        for part in model.layers
        if hasattr(part, "kernel")
        and not isinstance(part, keras.layers.DepthwiseConv2D)
    ]
    count = sum(kernel.size for kernel in kernels)
    return sum(int((kernel == 0).sum()) for kernel in kernels) / count


COLUMNS = {
    "dense": "dense, float",
    "float": "sparse, float",
    "after_training": "sparse, 8 bits after training",
    "aware": "sparse, 8 bits trained for",
}


def table(rows):
    """Returns the rows as a Markdown table, with accuracies in percent."""
    lines = [
        f"| network | seed | {' | '.join(COLUMNS.values())} |",
        "| --- " * (2 + len(COLUMNS)) + "|",
    ]
    for row in rows:
        cells = [f"{100 * row[key]:.1f}" for key in COLUMNS]
        lines.append(
            f"| {row['network']} | {row['seed']} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def main(_):
    """Runs the missing rows, and prints the table."""
    if FLAGS.render:
        print(table(json.loads(Path(FLAGS.render).read_text())["results"]))
        return
    rows = []
    if FLAGS.output and Path(FLAGS.output).exists():
        rows = json.loads(Path(FLAGS.output).read_text())["results"]
    for network in FLAGS.networks:
        for seed in map(int, FLAGS.seeds):
            if any(
                (row["network"], row["seed"]) == (network, seed) for row in rows
            ):
                continue
            rows.append(
                run(network, seed, FLAGS.sparsity, FLAGS.epochs, FLAGS.rate)
            )
            write_results(
                FLAGS.output,
                "quantization",
                rows,
                sparsity=FLAGS.sparsity,
                epochs=FLAGS.epochs,
                rate=FLAGS.rate,
            )
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
