"""Reproduces the paper's tables and figures with this library.

    python recipes/reproduce.py --table=3 --seeds=3 --backend=jax
    python recipes/reproduce.py --table=4 --epochs=0.08 --fraction=0.2 \\
        --minutes=9

A cell is a row of a table with a seed. Each cell is written when it is finished
and never run again. Within a cell, every epoch is backed up. `--minutes` limits
the time of the process. The same command resumes, on any machine with the same
directory. Processes with the same directory share its cells. On the JAX
backend, whole epochs run on the device.
"""

import dataclasses
import json
import os
import re
import sys
import threading
import time
from pathlib import Path

if "--backend=jax" in sys.argv:  # before Keras is imported
    os.environ["KERAS_BACKEND"] = "jax"
else:
    import quiet_tensorflow  # noqa: F401 - must precede imports of TensorFlow

# isort: split
import figures
import keras
import numpy as np
import tables
from absl import app
from absl import flags
from devices import Devices
from devices import arguments_without
from fused_normalization import fused
from resuming import resumable
from settings import NETWORKS

import tf_gems as gems
from tf_gems import datasets
from tf_gems.comparison.cell import CHECKS
from tf_gems.comparison.experiment import digest
from tf_gems.comparison.experiment import finetune
from tf_gems.comparison.experiment import recorded
from tf_gems.comparison.experiment import searched
from tf_gems.device_data import DeviceData
from tf_gems.files import lock
from tf_gems.files import share
from tf_gems.files import write_text
from tf_gems.provenance import provenance
from tf_gems.targets import check_directory
from tf_gems.targets import check_names
from tf_gems.targets import claiming
from tf_gems.training import clear_session


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A table or figure for one network and dataset.

    Args:
        part: String, name of the table or figure. See `tables.rows`.
        network: String, name of the network.
        scale: `tables.Scale`.
        directory: Path of the output directory.
        data: `tf_gems.datasets.ImageData`.
        command: String, the command to record.
        devices: `Devices` that train each cell.
        batch_size: Integer that overrides the batch size of each row, or
            `None`.
        penalties: List of floats. Each one adds the authors' rows with this
            constant weight of the penalty.
        fuse: Boolean, whether to use a fused TensorFlow operation for
            normalization.
    """

    part: str
    network: str
    scale: tables.Scale
    directory: Path
    data: object
    command: str
    devices: Devices
    batch_size: int | None = None
    penalties: tuple = ()
    fuse: bool = False

    def run(self, seeds, only=""):
        """Runs the missing cells. Returns the cells of all rows in order."""
        rows = tables.rows(self.part, self.network)
        rows += [
            tables.by_hand(row, penalty)
            for row in rows
            for penalty in self.penalties
            if row.name == tables.THEIRS
        ]
        if self.batch_size:
            batch = {"batch_size": self.batch_size}
            rows = [dataclasses.replace(row, **batch) for row in rows]
        cells = [
            (row, seed)
            for row in rows
            for seed in range(seeds)
            if re.search(only, row.name)
        ]
        if not cells:
            names = ", ".join(dict.fromkeys(repr(row.name) for row in rows))
            raise app.UsageError(
                "The pattern must match rows of the table. Received: --only="
                f"{only!r}, which matches none. Its rows are: {names}."
            )
        bar = keras.utils.Progbar(len(cells), unit_name="cell")

        def run(cell):
            record = self.cell(*cell)
            bar.add(1)
            print(f"  {record['name']}, seed {cell[1]}: {record['after']}")
            return record

        return share(cells, self.lock, run)

    def lock(self, cell):
        """Returns the file by which a process claims a cell.

        One process runs all cells that share a ticket, as sanity checks do.
        """
        row, seed = cell
        return self.directory / "tickets" / f"{self._of_ticket(row, seed)}.lock"

    def cell(self, row, seed):
        """Returns the record of a cell. Runs its missing parts."""
        scale = self.scale
        method = row.method and row.method(scale)
        config = method and keras.saving.serialize_keras_object(method)
        described = dataclasses.asdict(dataclasses.replace(row, method=None))
        for reported in ("name", "before", "after"):
            described.pop(reported)
        described = [self.network, config, described, seed]
        described.append(dataclasses.asdict(scale))
        path = self.directory / "cells" / f"{self._digest(described)}.json"

        def run():
            try:
                record = self._find_and_finetune(row, method, seed, path)
            except RuntimeError as error:
                if "no longer depends on its input" not in str(error):
                    raise
                record = {"seed": seed, "failure": str(error)}
                record |= dict.fromkeys(("before", "after", "layers"))
            return {
                **record,
                "command": self.command,
                "provenance": provenance(),
            }

        return {
            **recorded(path, run),
            "name": row.name,
            "density": row.density,
            "paper_before": row.before,
            "paper_after": row.after,
        }

    def _find_and_finetune(self, row, method, seed, path):
        state = path.with_suffix("")
        state.mkdir(parents=True, exist_ok=True)
        model = self._compiled(method, seed)
        data = self._batches(row.batch_size, seed)
        search, layers, curve, ticket = 0, [], None, None
        if method:
            ticket = self._ticket(row, method, seed, state)
            if row.curve:
                curve = figures.read_curve(state / "curve.csv")
            layers = [layer["density"] for layer in ticket.layers()]
            search = method.epochs_of_search
        epochs = self.scale.count(row.epochs) if row.epochs else 0
        begin = time.time()
        before, after, _ = finetune(
            model,
            ticket,
            data,
            epochs,
            self._schedule(row, epochs, len(data)),
            self._accuracy,
            state / "finetuning",
            verbose=2,
        )
        return {
            "seed": seed,
            "epochs_of_search": search,
            "epochs_of_finetuning": epochs,
            "seconds_an_epoch": round((time.time() - begin) / epochs, 2)
            if epochs
            else None,
            "layers": layers,
            "curve": curve,
            "before": before,
            "after": after,
        }

    def _ticket(self, row, method, seed, state):
        """Returns the ticket to fine-tune. Searches for it only once."""
        name = self._of_ticket(row, seed)
        file = self.directory / "tickets" / f"{name}.gem"
        model = self._compiled(method, seed)
        callbacks = []
        if row.curve:
            callbacks = [figures.Curve(state / "curve.csv", self._accuracy)]
        ticket = searched(
            file,
            method,
            model,
            self._batches(row.batch_size, seed),
            self.directory / "searches" / name,
            verbose=2,
            callbacks=callbacks,
        )
        if row.check:
            model = self._compiled(method, seed)
            ticket = CHECKS[row.check](ticket, model, seed=seed + 1)
        return ticket

    def _of_ticket(self, row, seed):
        # Sanity checks share the search of the row without a check.
        method = row.method and row.method(self.scale)
        config = method and keras.saving.serialize_keras_object(method)
        return self._digest([config, row.batch_size, seed])

    def _digest(self, described):
        """Returns a digest of a description and the backend."""
        means = [keras.backend.backend(), *(["fused"] if self.fuse else [])]
        return digest([described, *means])[:12]

    def _compiled(self, method, seed):
        clear_session(seed)
        with self.devices.scope():
            model = NETWORKS[self.network](
                self.data.image_shape,
                self.data.classes,
                kernel_regularizer=keras.regularizers.L2(5e-5),
            )
            model = fused(model) if self.fuse else model
            if method:
                initializer = method.kernel_initializer
                model = gems.SparseModel(
                    model, kernel_initializer=initializer, seed=seed
                )
            model.compile(
                keras.optimizers.SGD(0.1, momentum=0.9),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )
        return model

    def _batches(self, batch_size, seed):
        self.devices.check_batch(batch_size)
        if keras.backend.backend() == "jax":
            return DeviceData(
                *self.data.train, batch_size, seed, padding=4, flip=True
            )
        return self.data.batches(batch_size, seed)

    def _schedule(self, row, epochs, steps):
        if self.scale.reduced or row.schedule == "cosine":
            return row.rate if row.schedule == "cosine" else 0.1
        ends = [int(epochs * steps * part) for part in (8 / 15, 12 / 15)]
        rates = [row.rate, row.rate / 10, row.rate / 100]
        return keras.optimizers.schedules.PiecewiseConstantDecay(ends, rates)

    def _accuracy(self, model):
        images, labels = self.data.test
        replicas = self.devices.replicas
        size = max(1, 500 // replicas) * replicas
        _, accuracy = model.evaluate(images, labels, size, verbose=0)
        return round(float(accuracy), 5)


def _load(data_dir, fraction, download):
    """Loads CIFAR-10 from TFDS, or from a file if TFDS is not available.

    The file is created by `np.savez(file, x_train=..., y_train=..., x_test=...,
    y_test=...)`, with uint8 images.
    """
    if not str(data_dir).endswith(".npz"):
        return datasets.load("cifar10", data_dir, fraction, download)
    with np.load(data_dir) as arrays:  # Refuses pickled objects.
        count = round(fraction * len(arrays["y_train"]))
        train = arrays["x_train"][:count], arrays["y_train"][:count]
        test = arrays["x_test"], arrays["y_test"]
    return datasets.ImageData.normalized("cifar10", train, test, 10)


def _penalties(given):
    try:
        found = tuple(map(float, given))
    except ValueError:
        found = (-1.0,)
    if not all(0 <= weight < float("inf") for weight in found):
        raise app.UsageError(
            "Penalty weights must be numbers, 0 or more. Received: "
            f"--penalties={','.join(given)}. Use, for example, 5e-5,1e-4."
        )
    return found


def main(_):
    """Runs the selected cells, and renders their table."""
    values = flags.FLAGS
    if (values.table is None) == (values.figure is None):
        raise app.UsageError("Give either --table or --figure.")
    part = f"table{values.table}" if values.table else f"figure{values.figure}"
    if values.backend == "jax" and values.strategy != "none":
        raise app.UsageError(
            "On JAX, each cell trains on one device. "
            f"Received: --strategy={values.strategy}. Leave it out, and start "
            "the same command on every device: they share the cells."
        )
    if values.backend == "jax" and values.fuse:
        raise app.UsageError(
            "On JAX, the compiler already fuses operations. Received: "
            "--fuse. Leave it out."
        )
    scale = tables.Scale(values.epochs, values.fraction)
    penalties = _penalties(values.penalties)
    # Raises an error if there is no such table.
    tables.rows(part, values.network)
    if values.minutes:
        # All state is in files, so the process may end at any time.
        timer = threading.Timer(60 * values.minutes, os._exit, [75])
        timer.daemon = True
        timer.start()
    # Tables and figures share their common cells.
    name = f"{values.network}-{scale.epochs:g}-{scale.fraction:g}"
    directory = check_directory(values.output_dir, "output_dir")
    names = [f"{part}.{kind}" for kind in ("json", "txt", "png")]
    directory = check_names(directory / f"reproduce-{name}", names)
    arguments = arguments_without("data_dir", "output_dir", "minutes")
    reproduction = Reproduction(
        part,
        values.network,
        scale,
        directory,
        _load(values.data_dir, scale.fraction, values.download),
        " ".join(["python recipes/reproduce.py", *arguments]),
        Devices(values.strategy),
        values.batch_size,
        penalties,
        values.fuse,
    )
    with resumable():
        cells = reproduction.run(values.seeds, values.only)
    text = figures.render(cells, scale)
    # Every process that shares the cells writes the results.
    with lock(directory, wait=True), claiming(directory, names):
        write_text(directory / f"{part}.json", json.dumps(cells, indent=1))
        write_text(directory / f"{part}.txt", f"{text}\n")
        if values.figure:
            figures.draw(part, cells, directory / f"{part}.png")
    print(f"\n{text}\n\nresults: {directory}")


flags.DEFINE_enum(
    "table", None, ["2", "3", "4"], "Number of the table in the paper."
)
flags.DEFINE_enum(
    "figure",
    None,
    ["3", "5", "6", "7"],
    "Number of the figure in the paper. 3: accuracy by density. 5: "
    "density and accuracy during mining, by penalty. 6: variants of"
    " IMP. 7: density by layer.",
)
flags.DEFINE_string(
    "network", "resnet20", "Name of the network, for figures 3 and 5."
)
flags.DEFINE_integer(
    "seeds", 3, "Number of seeds, starting from 0.", lower_bound=1
)
flags.DEFINE_string("only", "", "Regular expression that selects rows by name.")
flags.DEFINE_enum(
    "backend", "tensorflow", ["tensorflow", "jax"], "Keras backend."
)
flags.DEFINE_enum(
    "strategy",
    "none",
    ["none", "mirrored"],
    "Distribution strategy. `mirrored` trains each cell on all GPUs.",
)
flags.DEFINE_float("epochs", 1.0, "Fraction of the paper's epochs.", 1e-3, 1.0)
flags.DEFINE_float(
    "fraction", 1.0, "Fraction of the training set to use.", 1e-3, 1.0
)
flags.DEFINE_list(
    "penalties", [], "Constant penalty weights for additional rows."
)
flags.DEFINE_integer(
    "batch_size", None, "Batch size. Defaults to that of each row."
)
flags.DEFINE_bool(
    "fuse",
    False,
    "Whether to use a fused TensorFlow operation for normalization,"
    " which is faster on CPUs.",
)
flags.DEFINE_float(
    "minutes",
    None,
    "Time limit, in minutes, after which the process exits with code 75.",
)
flags.DEFINE_string(
    "data_dir", None, "Directory of the TFDS datasets, or path of an .npz file."
)
flags.DEFINE_bool(
    "download", False, "Whether to download missing datasets with TFDS."
)
flags.DEFINE_string(
    "output_dir",
    str(Path(__file__).parents[1] / "savedmodels"),
    "Parent directory of the cells' directory.",
)

if __name__ == "__main__":
    app.run(main)
