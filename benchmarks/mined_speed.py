"""Measures the speed-up in a browser of networks mined on real images.

    python benchmarks/mined.py --data_dir=../shared/data/tiny_imagenet_20 \\
        --directory=/tmp/mined
    python benchmarks/mined_speed.py --mined=/tmp/mined \\
        --data_dir=../shared/data/tiny_imagenet_20 --sizes=64,96,224 \\
        --output=benchmarks/results/mined_speed.json

`mined.py` trains on images of 64x64 pixels. The networks are convolutional, so
the weights apply to images of any size. Each network is rebuilt for several
sizes, exported with dense and with sparse weights, compared with Keras on real
images, and timed in headless Chromium as in `browser.py`. The flags `pairs` and
`chromium` are those of `browser.py`. The accuracy is for 64x64 pixels.
"""

import tempfile
from pathlib import Path

import browser
import keras
import mining
import numpy as np
from absl import app
from absl import flags
from mined import network
from twins import write_twins

import tf_gems

FLAGS = flags.FLAGS
EXAMPLES = 4


def images(data, size):
    """Returns a few test images, resized to `size`."""
    found, _ = next(data.test_batches(EXAMPLES).as_numpy_iterator())
    shape = (EXAMPLES, size, size, 3)
    if found.shape == shape:
        return found
    found = keras.ops.image.resize(found, (size, size), "bilinear")
    return np.asarray(found, "float32")


def laid_out(row, file, size):
    """Returns a network of `mined.py`, rebuilt for another image size."""
    trained = keras.models.load_model(file, compile=False)
    model = network(row["network"], size, row["classes"], row["alpha"])
    model.set_weights(trained.get_weights())
    return model


def main(_):
    """Runs the benchmark, prints a table and writes JSON."""
    data = tf_gems.datasets.load("tiny_imagenet", FLAGS.data_dir)
    order = ("stock", "v1", "v2"), ("dense", "gem_miner", "magnitude")
    cells = [
        (row, Path(file))
        for row, file in mining.rows(FLAGS.mined)
        if row["network"] in FLAGS.networks
    ]
    cells.sort(
        key=lambda cell: (
            order[0].index(cell[0]["network"]),
            cell[0]["sparsity"],
            order[1].index(cell[0]["method"]),
        )
    )
    rows = []
    with browser.chromium() as chromium:
        for cell, file in cells:
            for size in map(int, FLAGS.sizes) if cell["sparsity"] else [None]:
                row = {**cell, "size": size}
                if size:
                    row |= measure(chromium, row, file, images(data, size))
                rows.append(row)
                print(
                    f"{row['method']:<10}{row['accuracy']:>6.1%}  "
                    f"{browser.line(row) if size else row['network']}",
                    flush=True,
                )
                browser.write("mined_speed", rows, chromium.version)


def measure(chromium, row, file, inputs):
    """Checks and times a network of `mined.py`. Returns a dict."""
    keras.backend.clear_session()
    model = laid_out(row, file, row["size"])
    with tempfile.TemporaryDirectory() as folder:
        pair = write_twins(model, inputs, folder, "model")
        found = browser.measure(chromium, pair, folder)
    return {**found, "bytes": pair["bytes"], "notes": pair["notes"]}


if __name__ == "__main__":
    flags.DEFINE_string(
        "mined", None, "Directory that `mined.py` wrote.", required=True
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "Directory of the Tiny ImageNet images.",
        required=True,
    )
    app.run(main)
