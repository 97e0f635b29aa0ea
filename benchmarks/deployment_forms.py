"""Exports one trained cell of the deployment table and runs all files.

    python benchmarks/deployment_forms.py --network=resnet20 --sparsity=0.9 \\
        --route=gem_miner --models=DIRECTORY

Reads the models that `benchmarks/deployment_train.py` saved, and writes
`forms.json` to the same directory. It holds the size of every file, compressed
with gzip and zstd, and its accuracy on the test images in LiteRT or TensorFlow.
The route `gem_miner` is exported by `tf_gems.deployment_report`. The route
`tfmot` is exported by TensorFlow's converter with `EXPERIMENTAL_SPARSITY`, as
the guide of TF Model Optimization describes. If LiteRT cannot run a file, the
row holds the error message.
"""

import json
import os
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "--route=tfmot" in sys.argv:  # must precede imports of TensorFlow
    os.environ["TF_USE_LEGACY_KERAS"] = "1"

import keras
import numpy as np
from absl import app
from absl import flags
from deployment_train import ROUTES
from deployment_train import TASKS
from deployment_train import define_flags
from deployment_train import directory_of
from deployment_train import normalized

import tf_gems as gems
from tf_gems.export import accuracy as measured
from tf_gems.export.litert import write_litert
from tf_gems.export.paths import Stored
from tf_gems.provenance import provenance
from tf_gems.quiet import quiet

FLAGS = flags.FLAGS
CALIBRATED = 100


def row(form, encoding, size, accuracy=None, refused=None, note=None):
    """Returns a row of the table. `size` is a value of `Stored.sizes`."""
    plain, by_gzip, by_zstd = size or (None, None, None)
    return {
        "form": form,
        "encoding": encoding,
        "bytes": plain,
        "gzip_bytes": by_gzip,
        "zstd_bytes": by_zstd,
        "accuracy": None if accuracy is None else round(accuracy, 4),
        "refused": refused,
        "note": note,
    }


def forms_of_gems(directory, data):
    """Returns the rows of a network that this library pruned."""
    model = keras.models.load_model(directory / "model.keras")
    images, labels = data.test
    calibration = normalized(data, data.train[0][:CALIBRATED])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        report = gems.deployment_report(
            model, folder, data.test, representative_data=calibration, runs=0
        )
        for found in report.rows:
            export = found["export"]
            if export is None:
                reason = found["refused"].replace(folder + os.sep, "")
                rows.append(row(found["form"], None, None, None, reason))
                continue
            sparse = any(t["encoding"] == "sparse" for t in export.tensors)
            size = export.bytes, export.gzip_bytes, export.zstd_bytes
            rows.append(
                row(
                    found["form"],
                    "sparse" if sparse else "dense",
                    size,
                    found["accuracy"],
                    note=" ".join(export.reasons()) or None,
                )
            )
            if found["form"] == "saved_model":
                size = (
                    export.dense_bytes,
                    export.dense_gzip_bytes,
                    export.dense_zstd_bytes,
                )
                # The outputs of Keras' own export are those of Keras.
                rows.append(row("saved_model", "dense", size, report.accuracy))
        path = os.path.join(folder, "twin.tflite")
        _, dense = write_litert(model, path, images[:32], "float32")
        with open(path, "wb") as file:
            file.write(dense)
        outputs = run_litert(path, images)
        rows.append(
            row(
                "float32",
                "dense",
                Stored.of_bytes(dense).sizes,
                measured.accuracy(labels, outputs),
            )
        )
        half = os.path.join(folder, "half.gem")
        export = gems.export.export_gem(
            model, half, images[:32], dtype="float16"
        )
        network = gems.Ticket.load(half).network()
        size = export.bytes, export.gzip_bytes, export.zstd_bytes
        outputs = network.predict(images, verbose=0)
        rows.append(
            row(
                "gem_float16",
                "sparse",
                size,
                measured.accuracy(labels, outputs),
            )
        )
    ticket = gems.Ticket.load(directory / "ticket.gem")
    outputs = ticket.network().predict(images, verbose=0)
    rows.append(
        row(
            "ticket before fine-tuning",
            "sparse",
            Stored(directory / "ticket.gem").sizes,
            measured.accuracy(labels, outputs),
        )
    )
    return rows, report.accuracy


def forms_of_tfmot(directory, data):
    """Returns the rows of a network that TF Model Optimization pruned."""
    import tensorflow as tf
    import tf_keras

    model = tf_keras.models.load_model(directory / "model.h5", compile=False)
    images, labels = data.test
    calibration = normalized(data, data.train[0][:CALIBRATED])
    expected = np.concatenate(
        [
            np.asarray(model(images[i : i + 100], training=False))
            for i in range(0, len(images), 100)
        ]
    )
    default, sparsity = (
        tf.lite.Optimize.DEFAULT,
        tf.lite.Optimize.EXPERIMENTAL_SPARSITY,
    )
    forms = {
        ("float32", "dense"): [],
        ("float32", "sparse"): [sparsity],
        ("float16", "dense"): [default],
        ("float16", "sparse"): [default, sparsity],
        ("dynamic_int8", "dense"): [default],
        ("dynamic_int8", "sparse"): [default, sparsity],
        ("int8", "dense"): [default],
        ("int8", "sparse"): [default, sparsity],
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for (form, encoding), optimizations in forms.items():
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
            converter.optimizations = optimizations
            if form == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if form == "int8":
                converter.representative_dataset = lambda: (
                    [calibration[i : i + 1]] for i in range(CALIBRATED)
                )
            with quiet():
                written = converter.convert()
            path = os.path.join(folder, f"{form}-{encoding}.tflite")
            with open(path, "wb") as file:
                file.write(written)
            accuracy, refused = None, None
            try:
                outputs = run_litert(path, images)
            except (RuntimeError, ValueError) as error:
                refused = "LiteRT: " + " ".join(str(error).split())[:200]
            else:
                accuracy = measured.accuracy(labels, outputs)
                if not np.isfinite(outputs).all():
                    refused = "LiteRT computes NaN"
                elif np.abs(outputs - expected).max() > np.abs(expected).max():
                    refused = (
                        "outputs differ from Keras by more than the largest"
                    )
            rows.append(
                row(
                    form,
                    encoding,
                    Stored.of_bytes(written).sizes,
                    accuracy,
                    refused,
                )
            )
        saved = os.path.join(folder, "saved_model")
        with quiet():
            model.save(saved, save_format="tf")
        right = measured.accuracy(labels, expected)
        rows.append(row("saved_model", "dense", Stored(saved).sizes, right))
    return rows, right


def run_litert(path, images):
    """Returns the outputs of a file with one input in `ai_edge_litert`."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        runner = Interpreter(path).get_signature_runner()
        [name] = runner.get_input_details()
        outputs = []
        for i in range(0, len(images), 100):
            [value] = runner(**{name: images[i : i + 100]}).values()
            outputs.append(value)
    return np.concatenate(outputs)


def main(_):
    """Exports and runs the cell that the flags select."""
    directory = directory_of(
        FLAGS.models, FLAGS.network, FLAGS.sparsity, FLAGS.route
    )
    begin = time.perf_counter()
    data = TASKS[FLAGS.network].load(FLAGS.data_dir)
    measure = {"gem_miner": forms_of_gems, "tfmot": forms_of_tfmot}
    rows, accuracy = measure[FLAGS.route](directory, data)
    found = {
        "accuracy": round(accuracy, 4),
        "seconds": round(time.perf_counter() - begin, 1),
        "provenance": provenance(),
        "rows": rows,
    }
    (directory / "forms.json").write_text(json.dumps(found, indent=1), "utf-8")
    for each in rows:
        print(each, flush=True)


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_enum(
        "network", "resnet20", list(TASKS), "Name of the network."
    )
    flags.DEFINE_float("sparsity", 0.9, "Fraction of zeros, in [0, 1).")
    flags.DEFINE_enum(
        "route", "gem_miner", ROUTES, "Method that pruned the network."
    )
    app.run(main)
