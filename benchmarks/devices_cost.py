"""Measures the mining throughput of one device, two replicas and two workers.

    python benchmarks/devices_cost.py --output=devices_cost.json

All kinds use the same global batch size and run one after the other: one
process with one device, one process with two logical CPUs under
`MirroredStrategy`, and two worker processes on the loopback interface under
`MultiWorkerMirroredStrategy`. On one machine they share the cores, and a single
process already uses all of them. The table therefore shows the cost of
coordination, not the speed-up from more machines. The masks and kernels of all
workers must be equal, bit for bit. The statistics of batch normalization differ
between workers, as is usual in Keras.
"""

import hashlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app
from absl import flags
from results_file import write_results

FLAGS = flags.FLAGS
flags.DEFINE_integer("turns", 2, "Number of runs of each kind.")
flags.DEFINE_integer(
    "epochs", 6, "Mining epochs per run. The first epoch is not timed."
)
flags.DEFINE_integer("steps", 8, "Steps per epoch.")
flags.DEFINE_integer("batch_size", 128, "Global batch size.")
flags.DEFINE_string(
    "kind", None, "Kind to measure in this process. Set for child processes."
)
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

KINDS = {"one device": 1, "two replicas": 1, "two workers": 2}


def make_strategy(kind):
    """Returns a `tf.distribute` strategy. Must be called first."""
    import tensorflow as tf

    if kind == "two workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if kind == "one device":
        return tf.distribute.get_strategy()
    [processor, *_] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        processor, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def train(kind):
    """Mines a network. Returns images per second and the ticket's digest."""
    strategy = make_strategy(kind)
    import keras
    import numpy as np

    import tf_gems as gems
    from tf_gems import zoo

    class Clock(keras.callbacks.Callback):
        seconds = ()

        def on_epoch_begin(self, epoch, logs=None):
            self.begin = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds += (time.perf_counter() - self.begin,)

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    images = FLAGS.steps * FLAGS.batch_size
    x = random.normal(size=(images, 32, 32, 3)).astype("float32")
    y = random.integers(0, 10, images)
    with strategy.scope():
        model = gems.SparseModel.from_preset("paper", zoo.resnet20(), seed=0)
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
    clock = Clock()
    model.fit(
        x,
        y,
        FLAGS.batch_size,
        epochs=FLAGS.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[gems.GemMinerCallback(0.9, 1), clock],
    )
    digest = hashlib.sha256()
    ticket = model.ticket()
    for path, mask in ticket.masks.items():
        digest.update(mask.tobytes() + ticket.weights[path].tobytes())
    return {
        "images_a_second": images / statistics.median(clock.seconds[1:]),
        "ticket": digest.hexdigest(),
        "kept": ticket.kept,
    }


def addresses(count):
    """Returns free addresses on the loopback interface."""
    sockets = [socket.socket() for _ in range(count)]
    for entry in sockets:
        entry.bind(("localhost", 0))
    found = [f"localhost:{entry.getsockname()[1]}" for entry in sockets]
    for entry in sockets:
        entry.close()
    return found


def run(kind):
    """Runs a kind in separate processes. Returns the result of each."""
    count = KINDS[kind]
    workers = addresses(count)
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory, str(index)) for index in range(count)]
        processes = []
        for index, path in enumerate(paths):
            environment = dict(os.environ)
            if count > 1:
                task = {"type": "worker", "index": index}
                environment["TF_CONFIG"] = json.dumps(
                    {"cluster": {"worker": workers}, "task": task}
                )
            command = [sys.executable, __file__, f"--kind={kind}"]
            for name in ("epochs", "steps", "batch_size"):
                command.append(f"--{name}={FLAGS[name].value}")
            processes.append(
                subprocess.Popen(
                    [*command, f"--output={path}"], env=environment
                )
            )
        if any([process.wait() for process in processes]):
            raise RuntimeError(f"{kind} failed.")
        found = [json.loads(path.read_text("utf-8")) for path in paths]
    if len({entry["ticket"] for entry in found}) > 1:
        raise RuntimeError(
            f"The tickets of the workers differ. Received: {found}"
        )
    return found


def main(_):
    """Runs all kinds alternately, prints a table and writes JSON."""
    if FLAGS.kind:
        Path(FLAGS.output).write_text(json.dumps(train(FLAGS.kind)), "utf-8")
        return

    speeds, tickets = {kind: [] for kind in KINDS}, {}
    for _ in range(FLAGS.turns):
        for kind in KINDS:
            found = run(kind)
            # The batch size is global, so each worker counts the images of all.
            speeds[kind].append(found[0]["images_a_second"])
            tickets[kind] = [entry["ticket"] for entry in found]
    print(f"{'mining ResNet-20':<20}{'images/s':>10}{'ratio':>8}")
    rows = []
    for kind, values in speeds.items():
        speed = statistics.median(values)
        ratio = statistics.median(
            value / one
            for value, one in zip(values, speeds["one device"], strict=True)
        )
        rows.append(
            {
                "name": kind,
                "images_a_second": speed,
                "ratio": ratio,
                "tickets_of_processes": tickets[kind],
            }
        )
        print(f"{kind:<20}{speed:>10.1f}{ratio:>8.2f}")
    write_results(
        FLAGS.output,
        "devices_cost",
        rows,
    )


if __name__ == "__main__":
    app.run(main)
