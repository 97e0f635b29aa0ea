"""Runs exported files in new environments without this library.

    python benchmarks/outside.py --output=benchmarks/results/outside.json

Trains a dense and a convolutional network on digits, prunes them, and exports
them in every format. It then creates two virtual environments with pip, one
with only `tensorflow` and one with only `ai-edge-litert`, and their
dependencies. In each environment, `outside_runner.py` runs every supported file
on real images, without Keras models and without this library. The outputs are
compared with those that Keras computed before. The ticket file is expanded to a
`.keras` file, which Keras loads without this library.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app
from absl import flags

import tf_gems as gems
from tf_gems import datasets
from tf_gems.provenance import provenance

FLAGS = flags.FLAGS
RUNNER = Path(__file__).with_name("outside_runner.py")
# Tolerances of outputs, relative to the largest output. `export_litert` checks
# only the examples that it receives. Other examples can have larger 8-bit
# errors.
TOLERANCES = {
    "float32.tflite": 1e-4,
    "latency.tflite": 1e-4,
    "float16.tflite": 1e-2,
    "dynamic_int8.tflite": 1e-1,
    "int8.tflite": 2e-1,
    "saved_model": 1e-4,
    "expanded.keras": 1e-4,
}
PACKAGES = ("tensorflow", "ai-edge-litert")


def dense_network():
    """Returns the dense network."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ],
        name="dense",
    )


def convolutional_network():
    """Returns the convolutional network. XNNPACK can run it sparsely."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Concatenate()([inputs, inputs, inputs])
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    y = layers.Conv2D(64, 1, activation="relu")(x)
    x = layers.Add()([y, layers.Conv2D(64, 1, activation="relu")(y)])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x), name="convolutional")


def export(network, directory, epochs):
    """Trains and prunes a network, and exports it in every format.

    Args:
        network: Keras model for digits.
        directory: Path of the output directory. It is created if missing.
        epochs: Integer, number of epochs.

    Returns:
        Dict of the accuracy in Keras and the errors of failed exports.
    """
    keras.utils.set_random_seed(0)
    data = datasets.load("digits")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(3e-3), loss)
    network.fit(*data.train, batch_size=64, epochs=epochs, verbose=0)
    sparse = gems.SparseModel(network, seed=0)
    gems.methods.Magnitude(0.9).find(sparse).apply(sparse)
    sparse.compile(keras.optimizers.Adam(3e-3), loss)
    sparse.fit(*data.train, batch_size=64, epochs=epochs, verbose=0)
    plain = gems.strip(sparse)
    images, labels = data.test
    report = gems.deployment_report(
        plain,
        directory,
        (images, labels),
        representative_data=data.train[0][:100],
        runs=0,
    )
    gems.export_litert(
        plain, directory / "latency.tflite", images, optimize="latency"
    )
    subprocess.run(
        [
            *(sys.executable, "-m", "tf_gems", "expand"),
            str(Path(directory, "ticket.gem").resolve()),
            f"--output={Path(directory, 'expanded.keras').resolve()}",
        ],
        check=True,
        capture_output=True,
        cwd=Path(gems.__file__).parents[1],
    )
    np.savez(
        directory / "truth.npz",
        inputs=images,
        outputs=np.asarray(plain(images, training=False)),
        labels=labels,
    )
    (directory / "tolerances.json").write_text(json.dumps(TOLERANCES), "utf-8")
    return {
        "accuracy": report.accuracy,
        "refused": {
            row["form"]: row["refused"] for row in report.rows if row["refused"]
        },
    }


def environment(package, directory):
    """Creates a virtual environment with one package. Returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    python = os.path.join(directory, "bin", "python")
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-cache-dir", package],
        check=True,
    )
    return python


def run_in(python, package, directories):
    """Runs all files of several directories. Returns the results.

    Args:
        python: String, path of the interpreter, or a list of it and its flags.
        package: String, `"tensorflow"` or `"ai-edge-litert"`.
        directories: List of paths.
    """
    command = [python] if isinstance(python, str) else list(python)
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [*command, str(RUNNER), package, *map(str, directories)],
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env={
                k: v
                for k, v in os.environ.items()
                if k not in ("PYTHONPATH", "TF_USE_LEGACY_KERAS")
            },
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main(_):
    """Exports the networks, runs them in the environments, and writes JSON."""
    results = {
        "benchmark": "outside",
        "command": "python benchmarks/outside.py",
        "provenance": provenance(),
        "networks": {},
        "environments": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        directories = []
        for network, epochs in (
            (dense_network(), 10),
            (convolutional_network(), 30),
        ):
            directory = Path(folder, network.name)
            results["networks"][network.name] = export(
                network, directory, epochs
            )
            directories.append(directory)
        for package in PACKAGES:
            place = os.path.join(folder, f"venv-{package}")
            begin = time.perf_counter()
            python = environment(package, place)
            freeze = subprocess.run(
                [python, "-m", "pip", "freeze"],
                check=True,
                capture_output=True,
                text=True,
            )
            found = run_in(python, package, directories)
            results["environments"][package] = {
                "packages": freeze.stdout.split(),
                "seconds": round(time.perf_counter() - begin, 1),
                "files": found,
            }
            shutil.rmtree(place)
            for row in found:
                print(package, row, flush=True)
            if FLAGS.output:
                Path(FLAGS.output).write_text(
                    json.dumps(results, indent=1) + "\n", "utf-8"
                )
    if not all(
        row["within"]
        for found in results["environments"].values()
        for row in found["files"]
    ):
        sys.exit("The outputs of a file differ from those of Keras.")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "Path of the JSON file to write.")
    app.run(main)
