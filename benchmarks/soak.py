"""Checks that memory does not grow in a long run or in many short runs.

    python benchmarks/soak.py --epochs=2000 --fits=24

The first part mines digits for many epochs with the callbacks of a real run,
and reads the resident memory after each epoch. The second part fits many small
networks in one process, with mining and fine-tuning. The third part fits the
same networks dense, compiled twice. Growth that occurs in both is due to
TensorFlow, which keeps a graph of every function that it has traced. Each part
writes its results, so that the same command continues after an interruption.
"""

import gc
import json
import os
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
from tf_gems import zoo
from tf_gems.provenance import provenance

FLAGS = flags.FLAGS
flags.DEFINE_integer("epochs", 2000, "Number of mining epochs.")
flags.DEFINE_integer(
    "fits", 24, "Number of networks trained in one process.", lower_bound=4
)
flags.DEFINE_string(
    "part", None, "Part to measure in this process. Set for child processes."
)
flags.DEFINE_string(
    "output",
    None,
    "Path of the JSON file to write. The plot has the same name.",
)

RESULTS = Path(__file__).with_name("results") / "soak.json"
PARTS = ("mining", "dense", "sparse")


def resident():
    """Returns the resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 2)


class Memory(keras.callbacks.Callback):
    """Records the resident memory after every epoch."""

    def __init__(self):
        super().__init__()
        self.megabytes = []

    def on_epoch_end(self, epoch, logs=None):
        self.megabytes.append(resident())
        if epoch % 100 == 0:
            print(f"epoch {epoch}: {self.megabytes[-1]} MB", flush=True)


def compiled(model, learning_rate=0.1):
    """Compiles a classifier."""
    model.compile(
        keras.optimizers.SGD(learning_rate, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def mine():
    """Mines digits, and returns the memory after each epoch, in MB."""
    data, memory = datasets.load("digits"), Memory()
    batches = data.batches(128, seed=0)
    network = zoo.lenet_300_100(data.image_shape, data.classes)
    model = compiled(gems.SparseModel.from_preset("paper", network, seed=0))
    with tempfile.TemporaryDirectory() as directory:
        model.fit(
            batches,
            epochs=FLAGS.epochs,
            validation_data=data.test_batches(500),
            shuffle=False,
            verbose=0,
            callbacks=[
                gems.GemMinerCallback(0.98),
                gems.callbacks.SetEpoch(batches),
                gems.callbacks.Backup(directory),
                memory,
            ],
        )
    return memory.megabytes


def fit_many(kind):
    """Trains many networks twice. Returns the memory after each, in MB."""
    random, found = np.random.default_rng(0), []
    x = random.random((256, 8, 8, 1), dtype="float32")
    y = random.integers(0, 10, 256)
    for number in range(FLAGS.fits):
        keras.utils.clear_session()
        model = zoo.lenet_300_100((8, 8, 1), 10)
        callbacks = []
        if kind == "sparse":
            model = gems.SparseModel(model, seed=number)
            callbacks = [gems.GemMinerCallback(0.8, 1)]
        for phase in ("mining", "finetuning"):
            if kind == "sparse" and phase == "finetuning":
                model.start_finetuning()
                callbacks = []
            compiled(model).fit(
                x, y, 64, epochs=2, verbose=0, callbacks=callbacks
            )
            model.evaluate(x, y, verbose=0)
        del model
        gc.collect()
        found.append(resident())
    return found


def summarize(megabytes):
    """Returns the growth, the slope over the second half of the values."""
    late = np.array(megabytes[len(megabytes) // 2 :])
    slope = np.polyfit(np.arange(late.size), late, 1)[0]
    return {
        "first": megabytes[0],
        "middle": float(late[0]),
        "last": megabytes[-1],
        "most": max(megabytes),
        "megabytes_each_in_second_half": float(slope),
    }


def draw(report, path):
    """Plots the memory of all parts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    left.plot(report["mining"]["megabytes"], lw=1)
    left.set(title="Mining digits", xlabel="epoch", ylabel="resident MB")
    left.set_ylim(0, 1.25 * max(report["mining"]["megabytes"]))
    for kind in PARTS[1:]:
        values = np.array(report[kind]["megabytes"])
        right.plot(values - values[0], label=kind)
    right.set(
        title="One network after the other, in one process",
        xlabel="network",
        ylabel="MB above the first",
    )
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main(_):
    """Measures the missing parts, and writes the plot and the results."""
    path = Path(FLAGS.output or RESULTS)
    if FLAGS.part:
        begin = time.time()
        found = mine() if FLAGS.part == "mining" else fit_many(FLAGS.part)
        result = {
            **summarize(found),
            "seconds": round(time.time() - begin),
            "megabytes": found,
        }
        path.write_text(json.dumps(result), "utf-8")
        return
    settings = {"epochs": FLAGS.epochs, "fits": FLAGS.fits}
    report = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if report.get("settings") != settings:
        report = {"benchmark": "soak", "settings": settings}
    for part in [part for part in PARTS if part not in report]:
        with tempfile.TemporaryDirectory() as directory:
            child = Path(directory, "part.json")
            command = [sys.executable, __file__, f"--part={part}"]
            command += [f"--{k}={v}" for k, v in settings.items()]
            subprocess.run([*command, f"--output={child}"], check=True)
            report[part] = json.loads(child.read_text("utf-8"))
        report["command"] = " ".join(["python", *sys.argv])
        report["provenance"] = provenance()
        path.write_text(json.dumps(report) + "\n", "utf-8")
    draw(report, path.with_suffix(".png"))
    for part in PARTS:
        shown = {k: v for k, v in report[part].items() if k != "megabytes"}
        print(part, json.dumps(shown))


if __name__ == "__main__":
    app.run(main)
