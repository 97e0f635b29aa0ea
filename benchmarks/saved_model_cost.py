"""Measures the size and the prediction time of sparse SavedModels.

    python benchmarks/saved_model_cost.py --output=saved_model_cost.json

The networks have random masks and weights, since size and time depend only on
the number of zeros. Each is compared with Keras' own export of the same
network. Plain TensorFlow loads both. Their runs alternate, and each pair runs
in both orders, so that other load on the machine affects both equally.
"""

import os
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from results_file import write_results

from tf_gems import zoo
from tf_gems.export import export_saved_model

FLAGS = flags.FLAGS
flags.DEFINE_integer("runs", 300, "Number of predictions of each model.")
flags.DEFINE_list(
    "sparsity", ["0.9", "0.98"], "Fractions of zeros, each in [0, 1)."
)
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

NETWORKS = {
    "MLP 784-300-100-10": lambda: zoo.lenet_300_100((28, 28, 1), 10),
    "ResNet-20": lambda: zoo.resnet20((32, 32, 3), 10),
    "MobileNet 0.5, 96x96": lambda: keras.applications.MobileNet(
        (96, 96, 3), alpha=0.5, weights=None, classes=10
    ),
}


def pruned(model, sparsity):
    """Sets a fraction of each kernel to zero, at random positions."""
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            value = variable.numpy()
            kept = random.random(value.shape) >= sparsity
            variable.assign(value * kept)
    return model


def medians(directories, inputs):
    """Returns the median and the first prediction time of each model."""
    serves = [
        tf.saved_model.load(d).signatures["serving_default"]
        for d in directories
    ]
    [name] = serves[0].structured_input_signature[1]
    feed = {name: tf.constant(inputs)}
    times = np.zeros((FLAGS.runs, len(serves)))
    first = []
    for serve in serves:
        begin = time.perf_counter()
        serve(**feed)["output_0"].numpy()
        first.append(time.perf_counter() - begin)
    for run in range(-20, FLAGS.runs):
        order = range(len(serves))
        for which in order if run % 2 else reversed(order):
            begin = time.perf_counter()
            serves[which](**feed)["output_0"].numpy()
            if run >= 0:
                times[run, which] = time.perf_counter() - begin
    return np.median(times, axis=0), first


def main(_):
    """Runs the benchmark, prints a table and writes JSON."""
    rows = []
    print(
        f"{'network':<22}{'zeros':>6}{'sparse':>10}{'dense':>11}{'ratio':>7}"
        f"{'weights':>10}{'batch':>6}{'sparse ms':>11}{'dense ms':>10}"
        f"{'ratio':>7}"
    )
    for network, build in NETWORKS.items():
        for sparsity in map(float, FLAGS.sparsity):
            keras.utils.set_random_seed(0)
            model = pruned(build(), sparsity)
            with tempfile.TemporaryDirectory() as folder:
                paths = [os.path.join(folder, n) for n in ("sparse", "dense")]
                report = export_saved_model(model, paths[0])
                model.export(paths[1], format="tf_saved_model", verbose=False)
                for batch in (1, 32):
                    shape = (batch, *model.input_shape[1:])
                    inputs = np.random.default_rng(0).normal(size=shape)
                    (sparse, dense), first = medians(
                        paths, inputs.astype("float32")
                    )
                    rows.append(
                        {
                            "network": network,
                            "sparsity": sparsity,
                            "sparse_bytes": report.bytes,
                            "dense_bytes": report.dense_bytes,
                            "weight_bytes": 4 * model.count_params(),
                            "sparse_gzip_bytes": report.gzip_bytes,
                            "dense_gzip_bytes": report.dense_gzip_bytes,
                            "batch": batch,
                            "sparse_ms": 1e3 * sparse,
                            "dense_ms": 1e3 * dense,
                            "first_sparse_ms": 1e3 * first[0],
                            "first_dense_ms": 1e3 * first[1],
                        }
                    )
                    row = rows[-1]
                    print(
                        f"{network:<22}{sparsity:>6.0%}"
                        f"{row['sparse_bytes']:>10,}{row['dense_bytes']:>11,}"
                        f"{row['dense_bytes'] / row['sparse_bytes']:>6.1f}x"
                        f"{row['weight_bytes']:>10,}{batch:>6}"
                        f"{row['sparse_ms']:>11.3f}{row['dense_ms']:>10.3f}"
                        f"{sparse / dense:>7.2f}",
                        flush=True,
                    )
    write_results(FLAGS.output, "saved_model_cost", rows)


if __name__ == "__main__":
    sys.exit(app.run(main))
