"""Trains the multilayer perceptrons that `native.py --mined` times.

    python benchmarks/mined_mlp.py --data_dir=$TFDS_DATA_DIR \\
        --directory=/tmp/mined_mlp
    python benchmarks/native.py --mined=/tmp/mined_mlp \\
        --output=benchmarks/results/native_mined.json

Each network trains on MNIST for 20 epochs: dense; with Gem-Miner, for ten
epochs of mining and ten of fine-tuning; and with magnitude pruning, gradually
during one training. Both methods prune all layers to a total sparsity, either
individual weights (`random`) or blocks of four along the inputs.
"""

import dataclasses

import mining  # must be the first import: silences TensorFlow
from absl import app
from absl import flags
from perceptrons import PATTERNS
from perceptrons import perceptron

import tf_gems

FLAGS = flags.FLAGS
SMALL, WIDE = "784-300-100-10", "784-1024-1024-10"
CELLS = tuple(
    f"{sizes}:{method}:{seed}"
    for seed, sizes in ((0, SMALL), (1, SMALL), (0, WIDE), (2, SMALL))
    for method in (
        "dense:0:",
        "gem_miner:0.98:random",
        "gem_miner:0.98:blocks of 4",
        "magnitude:0.98:random",
        "magnitude:0.98:blocks of 4",
    )
)


def cell(text):
    """Returns the cell of a string `SIZES:METHOD:SPARSITY:PLACES:SEED`."""
    network, method, sparsity, places, seed = text.split(":")
    sizes = [int(size) for size in network.split("-")]
    return mining.Cell(
        text.replace("::", ":").replace(":", "_").replace(" ", ""),
        lambda: perceptron(sizes),
        method,
        float(sparsity),
        int(seed),
        arguments={"pattern": PATTERNS.get(places)},
        about={"network": sizes, "places": places},
        steps_per_execution=16,
    )


def main(_):
    """Trains the missing networks."""
    data = tf_gems.datasets.load("mnist", FLAGS.data_dir, FLAGS.fraction)
    flat = [(x.reshape(len(x), -1), y) for x, y in (data.train, data.test)]
    data = dataclasses.replace(data, train=flat[0], test=flat[1])
    mining.run([cell(text) for text in FLAGS.cells], data)


if __name__ == "__main__":
    mining.define_flags(CELLS, 20, 128, 0.1, 1.0)
    app.run(main)
