"""Trains the networks that `mined_speed.py` times.

    python benchmarks/mined.py --data_dir=../shared/data/tiny_imagenet_20 \\
        --directory=/tmp/mined

The networks follow XNNPACK's rules for sparse inference. They are trained on
images of 64x64 pixels for the same number of epochs: dense; with Gem-Miner, for
half of the epochs mining and half fine-tuning; and with magnitude pruning,
gradually during one training, as in TensorFlow Model Optimization. Both methods
prune only the 1x1 convolutions (`filters="pointwise"`), and each of them to the
same sparsity, as TensorFlow Model Optimization does. `stock` is
`keras.applications.MobileNet`, rewritten by `tf_gems.export.make_sparse_ready`
before mining. The dataset is small and training is short. The results show the
order of the methods, and not the accuracy that the networks can reach.
"""

import mining  # must be the first import: silences TensorFlow
from absl import app
from absl import flags
from keras import applications

import tf_gems

FLAGS = flags.FLAGS
CELLS = (
    "v1:dense:0",
    "v1:gem_miner:0.9",
    "v1:magnitude:0.9",
    "stock:gem_miner:0.9",
    "v1:gem_miner:0.95",
    "v1:magnitude:0.95",
    "v2:gem_miner:0.9",
    "v2:magnitude:0.9",
    "v2:dense:0",
    "stock:dense:0",
)
SIZE = 64


def network(name, size, classes, alpha):
    """Returns a Keras model that follows XNNPACK's rules for sparse inference.

    Args:
        name: String, `"v1"`, `"v2"` or `"stock"`.
        size: Integer, height and width of the images.
        classes: Integer, number of logits.
        alpha: Float, width multiplier.
    """
    shape = (size, size, 3)
    if name == "stock":
        model = applications.MobileNet(
            shape,
            alpha,
            weights=None,
            classes=classes,
            classifier_activation=None,
        )
        return tf_gems.export.make_sparse_ready(model)[0]
    builders = {
        "v1": tf_gems.zoo.mobilenet_v1,
        "v2": tf_gems.zoo.mobilenet_v2_sparse_ready,
    }
    return builders[name](shape, classes, alpha=alpha, affine=True)


def cell(text, classes):
    """Returns the cell of a string `NETWORK:METHOD:SPARSITY`."""
    name, method, sparsity = text.split(":")
    alpha = FLAGS[f"{name}_alpha"].value
    return mining.Cell(
        text.replace(":", "-"),
        lambda: network(name, SIZE, classes, alpha),
        method,
        float(sparsity),
        FLAGS.seed,
        "pointwise",
        {"distribution": "uniform"},
        {"network": name, "alpha": alpha, "classes": classes},
    )


def main(_):
    """Trains the missing networks."""
    data = tf_gems.datasets.load(
        "tiny_imagenet", FLAGS.data_dir, FLAGS.fraction
    )
    mining.run([cell(text, data.classes) for text in FLAGS.cells], data)


if __name__ == "__main__":
    mining.define_flags(CELLS, 10, 32, 0.05, 1.0)
    flags.DEFINE_integer("seed", 0, "Random seed.")
    flags.DEFINE_float("v1_alpha", 0.75, "Width multiplier of v1.")
    flags.DEFINE_float("v2_alpha", 1.0, "Width multiplier of v2.")
    flags.DEFINE_float(
        "stock_alpha", 0.5, "Width multiplier of the stock network."
    )
    app.run(main)
