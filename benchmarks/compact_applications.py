"""Checks that `tf_gems.compact` keeps the outputs of Keras Applications.

    python benchmarks/compact_applications.py \\
        --output=benchmarks/results/compact_applications.json

Each network of `keras.applications` has random weights and a small input. In
each kernel, 70 % of the output channels and their biases are set to zero,
chosen at random. Batch normalization gets random statistics, scales and
offsets, as after training. The outputs of the compact model are compared with
those of the network on two random inputs. Networks that are already in the
output file are not run again.
"""

import json
from pathlib import Path

import keras
import mining  # noqa: F401  # must be the first import: silences TensorFlow
import numpy as np
from absl import app
from absl import flags
from compaction import draw_normalizations
from results_file import write_results
from sweep_models import applications

import tf_gems

FLAGS = flags.FLAGS
flags.DEFINE_list("networks", None, "Names of the networks. Defaults to all.")
flags.DEFINE_float(
    "part", 0.7, "Fraction of the channels to set to zero, in [0, 1)."
)
flags.DEFINE_integer(
    "largest",
    30_000_000,
    "Largest number of parameters. Larger networks are skipped.",
)


def zero_channels(model, part):
    """Sets output channels of all kernels except the last to zero.

    The output channels are the last axis of a dense or convolution kernel, and
    the second to last axis of a depthwise kernel.
    """
    random = np.random.default_rng(0)
    kernels = {}
    for layer in model._flatten_layers():
        kernel = getattr(layer, "pointwise_kernel", None)
        kernel = getattr(layer, "kernel", None) if kernel is None else kernel
        if isinstance(kernel, keras.Variable):
            kernels[layer] = kernel
    for layer, kernel in list(kernels.items())[:-1]:
        values = keras.ops.convert_to_numpy(kernel).copy()
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        axis = -2 if depthwise else -1
        dead = random.random(values.shape[axis]) < part
        np.moveaxis(values, axis, -1)[..., dead] = 0
        kernel.assign(values)
        if layer.bias is not None:
            bias = random.normal(size=layer.bias.shape)
            layer.bias.assign(np.where(dead, 0, bias))


def measure(name):
    """Compacts a network and returns its row."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model = applications.build(name).model
    parameters = model.count_params()
    row = {"network": name, "parameters": [parameters], "part": FLAGS.part}
    if parameters > FLAGS.largest:
        return row | {"skipped": "more parameters than `--largest`"}
    zero_channels(model, FLAGS.part)
    draw_normalizations(model)
    for weight in model.weights:
        # The initial value nearly disables the branch.
        if "layer_scale/variable" in weight.path:
            weight.assign(keras.ops.ones_like(weight))
    outputs = model(
        np.random.default_rng(1).random((2, *model.input_shape[1:]))
    )
    if not np.isfinite(outputs).all():
        return row | {"skipped": "the network itself is not finite"}
    try:
        _, report = tf_gems.compact(model)
    except (RuntimeError, ValueError) as error:
        return row | {"error": str(error)}
    return row | {
        "parameters": report.parameters,
        "multiply_adds": report.multiply_adds,
        "kept": report.kept,
        "difference": report.difference,
    }


def line(row):
    """Returns a row of a Markdown table."""
    if "difference" not in row:
        return f"| {row['network']} | {row.get('skipped') or row['error']} |"
    gone = [1 - b / a for a, b in (row["parameters"], row["multiply_adds"])]
    cells = [row["network"], f"{row['parameters'][0] / 1e6:.1f}"]
    cells += [f"{part:.0%}" for part in gone] + [f"{row['difference']:.0e}"]
    return f"| {' | '.join(cells)} |"


def main(_):
    """Compacts the missing networks and prints one row per network."""
    rows = []
    if FLAGS.output and Path(FLAGS.output).exists():
        rows = json.loads(Path(FLAGS.output).read_text("utf-8"))["results"]
    known = {row["network"] for row in rows}
    for name in FLAGS.networks or applications.networks():
        if name not in known:
            rows.append(measure(name))
            print(line(rows[-1]), flush=True)
            write_results(FLAGS.output, "compact_applications", rows)
    for row in rows:
        print(line(row))


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "Path of the JSON file to write.")
    app.run(main)
