"""Collects Vela's estimates for pruned networks on an Arm Ethos-U NPU.

    python benchmarks/ethos_u.py --output=benchmarks/results/ethos_u.json

Each network and its dense version are exported with 8 bits and compiled for an
Ethos-U55 with 128 MACs. All figures are estimates of the compiler. Nothing was
run on an NPU. LeNet-300-100 and ResNet-20 at 98.56 % use the masks of the
published tickets in `savedmodels`, which were mined. All other masks come from
uniform magnitude pruning of random weights. They show how size and cycles
depend on sparsity, and do not represent accuracy. Weights are untrained, and
activation ranges come from random inputs. Neither has much effect on cycles or
size.
"""

import dataclasses
import tempfile
from pathlib import Path

import mining  # noqa: F401  # must be the first import: silences TensorFlow

# isort: split
import keras
import numpy as np
from absl import app
from absl import flags
from keras import layers
from keras import models
from results_file import write_results

import tf_gems
from tf_gems import zoo
from tf_gems.export import vela

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "sparsities",
    ["0.9", "0.95", "0.9856"],
    "Fractions of zeros, each in [0, 1).",
)
flags.DEFINE_string(
    "accelerator", "ethos-u55-128", "Accelerator configuration of Vela."
)
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

TICKETS = Path(__file__).parents[1] / "savedmodels"


def ds_cnn():
    """Returns a DS-CNN for keyword spotting, with inputs of 49 x 10."""
    model = models.Sequential([layers.Input((49, 10, 1))])
    model.add(layers.Conv2D(64, (10, 4), 2, padding="same", use_bias=False))
    model.add(layers.BatchNormalization())
    model.add(layers.ReLU())
    for _ in range(4):
        for layer in (
            layers.DepthwiseConv2D(3, padding="same", use_bias=False),
            layers.Conv2D(64, 1, use_bias=False),
        ):
            model.add(layer)
            model.add(layers.BatchNormalization())
            model.add(layers.ReLU())
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(12))
    return model


NETWORKS = {
    "LeNet-300-100": (lambda: zoo.lenet_300_100((28, 28, 1), 10), "mnist"),
    "ResNet-20": (lambda: zoo.resnet20((32, 32, 3), 10), "cifar10"),
    "DS-CNN": (ds_cnn, None),
    "MobileNetV1 x0.25": (
        lambda: zoo.mobilenet_v1((96, 96, 3), 10, alpha=0.25),
        None,
    ),
}


def inputs(model):
    """Returns random inputs for a network."""
    random = np.random.default_rng(0)
    return random.normal(size=(20, *model.input_shape[1:])).astype("float32")


def pruned(build, ticket, sparsity):
    """Returns a plain network with zeros and a description of its masks."""
    keras.utils.set_random_seed(0)
    model = build()
    path = TICKETS / f"{ticket}.gem"
    if ticket and abs(sparsity - 0.9856) < 1e-9:
        tf_gems.Ticket.load(path).apply(model)
        return model, f"mined, savedmodels/{path.name}"
    sparse = tf_gems.SparseModel(model, seed=0, start="trained")
    method = tf_gems.methods.Magnitude(sparsity, distribution="uniform")
    sparse.start_finetuning(method.find(sparse))
    model = tf_gems.strip(sparse)
    if any("moving_mean" in weight.path for weight in model.weights):
        # Otherwise the signals would vanish.
        tf_gems.recalibrate_batch_norm(model, inputs(model))
    return model, "magnitudes of random weights"


def main(_):
    """Compiles the networks, prints a table and writes JSON."""
    rows = []
    print(
        f"{'network':<20}{'zeros':>8}{'cycles':>11}{'dense':>11}{'times':>7}"
        f"{'weights':>10}{'dense':>10}{'SRAM':>9}{'NPU':>6}  masks"
    )
    for name, (build, ticket) in NETWORKS.items():
        for sparsity in map(float, FLAGS.sparsities):
            model, masks = pruned(build, ticket, sparsity)
            row = {"network": name, "sparsity": sparsity, "masks": masks}
            rows.append(row)
            try:
                with tempfile.TemporaryDirectory() as folder:
                    report = tf_gems.export_ethos_u(
                        *(model, f"{folder}/m.tflite", inputs(model)),
                        accelerator=FLAGS.accelerator,
                        # The estimates do not depend on exact outputs.
                        tolerance=10.0,
                    )
            except RuntimeError as error:
                row["refused"] = str(error).replace(f"{folder}/", "")
                print(f"{name:<20}{sparsity:>8.2%}  {row['refused']:.80}")
                continue
            one, dense = report.estimate, report.dense
            row |= {
                "estimate": dataclasses.asdict(one),
                "dense": dataclasses.asdict(dense),
                "int8_bytes": report.export.bytes,
                "compiled_bytes": report.compiled_bytes,
            }
            print(
                f"{name:<20}{sparsity:>8.2%}{one.cycles:>11,}"
                f"{dense.cycles:>11,}{dense.cycles / one.cycles:>7.2f}"
                f"{one.weight_bytes:>10,}{dense.weight_bytes:>10,}"
                f"{one.sram_bytes:>9,}{one.npu_share:>6.0%}  {masks}",
                flush=True,
            )
    write_results(
        FLAGS.output,
        "ethos_u",
        rows,
        estimates_of=f"Vela {vela.version()}; nothing was measured",
        accelerator=FLAGS.accelerator,
        masks="see each row; only those of tickets were mined",
    )


if __name__ == "__main__":
    app.run(main)
