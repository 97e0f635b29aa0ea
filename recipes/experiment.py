"""The experiment of every recipe: dense, mined and random networks.

The stages are a dense network, a ticket that is mined and then fine-tuned, and
a random ticket of the same density. All have the same total number of training
epochs. They are followed by the export, a plot and a table. The directory of a
run is named by a hash of its settings. Every stage writes its results before
the next one starts, and backs up its training after every epoch. Running the
command again resumes an interrupted run, and only prints the report of a
finished one.
"""

import contextlib
import dataclasses
import functools
import json
import sys
import time

import quiet_tensorflow  # noqa: F401 - must precede imports of TensorFlow

# isort: split
import keras
import live_page
import numpy as np
import picture
from absl import flags
from devices import Devices
from devices import start_workers
from resuming import resumable
from settings import NETWORKS
from settings import read_flags

import tf_gems as gems
from tf_gems import datasets
from tf_gems import workers
from tf_gems.export.run_litert import run_litert
from tf_gems.files import BACKUP
from tf_gems.files import lock
from tf_gems.files import read_record
from tf_gems.files import remove_files
from tf_gems.files import replacing
from tf_gems.files import replacing_path
from tf_gems.files import write_text
from tf_gems.provenance import provenance
from tf_gems.targets import FOLDER
from tf_gems.targets import check_directory
from tf_gems.targets import check_names
from tf_gems.targets import claiming

# Files of a run, in addition to backups. `settings.hash` names its directory.
_FILES = (
    *("ticket.gem", "finetuned.keras", "sparse.tflite", "saved_model"),
    *("results.json", "export.txt", "report.png", "page"),
    *("mine.csv", "finetune.csv", "random.csv", "dense.csv"),
)
_OPTIMIZERS = {
    "sgd": functools.partial(keras.optimizers.SGD, momentum=0.9),
    "nesterov": functools.partial(
        keras.optimizers.SGD, momentum=0.9, nesterov=True
    ),
    "adam": functools.partial(keras.optimizers.Adam, epsilon=1e-8),
    "auto": lambda _: gems.optimizers.ScoreOptimizer(),
}


def main(presets):
    """Runs the experiment that the flags describe.

    Args:
        presets: Dict, as passed to `settings.define_flags`.
    """
    settings, command = read_flags(presets)
    values = flags.FLAGS
    with resumable():
        if values.workers:
            sys.exit(start_workers(values.workers))
        Run(
            settings,
            values.output_dir,
            values.data_dir,
            values.download,
            command,
            Devices(values.strategy),
        ).start()


class Run:
    """One experiment and its directory.

    Args:
        settings: `Settings`.
        output_dir: Parent directory of the run's directory.
        data_dir: Directory of the data. See `tf_gems.datasets.load`.
        download: Boolean, whether to download missing datasets with TFDS.
        command: String, the command to record.
        devices: `Devices`. Defaults to `None`, which uses one device.
    """

    def __init__(
        self,
        settings,
        output_dir,
        data_dir=None,
        download=False,
        command="",
        devices=None,
    ):
        self.settings = settings
        self.devices = devices or Devices()
        self.devices.check_batch(settings.batch_size)
        name = f"{settings.dataset}-{settings.hash()}"
        self.directory = check_directory(output_dir, "output_dir") / name
        check_directory(self.directory)
        self.results_path = self.directory / "results.json"
        self.results = {
            "settings": dataclasses.asdict(settings),
            "command": command,
            "provenance": provenance(),
            "stages": {},
        }
        self._read_results()
        self._load = lambda: datasets.load(
            settings.dataset,
            data_dir,
            settings.fraction,
            download,
            settings.image_size,
        )

    def _read_results(self):
        if self.results_path.exists():
            self.results = read_record(self.results_path, "stages")

    def start(self):
        """Runs the missing stages, and prints the report."""
        done = self.run_stages("mine", "finetune", "random", "dense", "export")
        if done and self.devices.chief:
            picture.draw(self.directory, self.results)
            print(picture.render(self.directory, self.results))

    def run_stages(self, *names):
        """Runs the given stages that are not finished.

        Args:
            *names: Strings, names of the stages, in order.

        Returns:
            Boolean, whether all given stages are finished.
        """
        missing = [n for n in names if n not in self.results["stages"]]
        if not missing:
            self._tidy_up()
            return True
        if not self.results_path.exists():
            check_names(self.directory, _FILES)
        self.data = self._load()
        if not self.devices.chief:
            return self._run_missing(missing)
        # Other processes are refused before anything changes.
        with lock(self.directory), self._claiming():
            self._read_results()
            self._remove_backups()
            return self._run_missing(missing)

    def _tidy_up(self):
        """Removes files of a process that was killed after its last stage."""
        left = self.directory / FOLDER / "lock"
        if not self.devices.chief or not left.exists():
            return
        # Another process uses the directory.
        with contextlib.suppress(RuntimeError):
            with lock(self.directory), self._claiming():
                self._remove_backups()

    def _remove_backups(self):
        for stage in self.results["stages"]:
            remove_files(self._backup(stage), BACKUP)

    def _claiming(self):
        """Claims the file names of a run, also if earlier versions wrote it."""
        known = self.results_path.exists()
        return claiming(self.directory, _FILES, known)

    def _run_missing(self, missing):
        for name in missing:
            if name in self.results["stages"]:
                continue
            if name == "export" and keras.backend.backend() != "tensorflow":
                print(
                    "\nExports need the TensorFlow backend: run the same "
                    "command with KERAS_BACKEND=tensorflow to finish."
                )
                return False
            print(f"\n== {name} ({self.directory.name})", flush=True)
            keras.utils.set_random_seed(self.settings.seed)
            begin = time.time()
            if name != "export" or self.devices.chief:
                found = getattr(self, f"_{name}")()
                found["seconds"] = round(time.time() - begin, 1)
                self._record(name, found)
            self.devices.wait_for_all()
            self._read_results()
        return True

    def _mine(self):
        settings = self.settings
        sparse, rate, kind = self._sparse_model(), None, "auto"
        if settings.learning_rate != "auto":
            kind, epochs = settings.optimizer, settings.mining_epochs
            rate = keras.optimizers.schedules.CosineDecay(
                settings.learning_rate, epochs * self._steps
            )
        self._compile(sparse, rate, kind)
        weight = settings.regularization
        if settings.regularization_schedule == "linear":
            weight = gems.schedules.Polynomial(0.0, weight, power=1.0)
        miner = gems.GemMinerCallback(
            settings.target_sparsity,
            settings.freeze_period,
            weight,
            settings.stop_at_target or weight == "auto",
            settings.saturate_scores or weight == "auto",
        )
        self._fit("mine", sparse, settings.mining_epochs, [miner])
        ticket = sparse.ticket(settings.masks)
        sparse.start_finetuning(ticket)
        self._compile(sparse, 0.0)
        accuracy = self._accuracy(sparse)
        ticket.metadata.update(
            dataclasses.asdict(settings), accuracy_before_finetuning=accuracy
        )
        if self.devices.chief:
            ticket.save(self.directory / "ticket.gem")
        return {
            "accuracy": accuracy,
            "kept": ticket.kept,
            "size": ticket.size,
            "layers": ticket.layers(),
        }

    def _finetune(self):
        settings = self.settings
        sparse = self._sparse_model()
        gems.Ticket.load(self.directory / "ticket.gem").apply(sparse)
        self._compile(
            sparse,
            self._schedule(
                settings.finetuning_learning_rate, settings.finetuning_epochs
            ),
        )
        self._fit("finetune", sparse, settings.finetuning_epochs)
        accuracy = self._accuracy(sparse)
        if self.devices.chief:
            path = self.directory / "finetuned.keras"
            with replacing_path(path, ".keras") as partial:
                gems.strip(sparse).save(partial)
        return {"accuracy": accuracy}

    def _random(self):
        settings = self.settings
        sparse = self._sparse_model()
        sparsity = settings.target_sparsity
        if settings.masks == "rounded":
            mine = self.results["stages"]["mine"]
            sparsity = 1 - mine["kept"] / mine["size"]
        ticket = gems.methods.RandomPruning(sparsity, settings.seed).find(
            sparse
        )
        ticket.apply(sparse)
        rate = settings.dense_learning_rate
        self._compile(sparse, self._schedule(rate, settings.epochs))
        self._fit("random", sparse, settings.epochs)
        return {"accuracy": self._accuracy(sparse), "kept": ticket.kept}

    def _dense(self):
        settings = self.settings
        with self.devices.scope():
            model = workers.prepare(self._network())
        rate = settings.dense_learning_rate
        self._compile(model, self._schedule(rate, settings.epochs))
        self._fit("dense", model, settings.epochs)
        return {"accuracy": self._accuracy(model)}

    def _export(self):
        model = keras.models.load_model(self.directory / "finetuned.keras")
        sample, _ = next(self.data.test_batches(64).as_numpy_iterator())
        litert = gems.export_litert(
            model, self.directory / "sparse.tflite", inputs=sample
        )
        saved_model = gems.export_saved_model(
            model, self.directory / "saved_model", overwrite=True
        )
        write_text(
            self.directory / "export.txt",
            f"{litert.render()}\n\n{saved_model.render()}\n",
        )
        live_page.write(self.directory, self.data)
        return {
            "accuracy": self._litert_accuracy(litert.path),
            "litert": litert.to_dict(),
            "saved_model": saved_model.to_dict(),
        }

    def _litert_accuracy(self, path):
        right = []
        for images, labels in self._test_batches().as_numpy_iterator():
            [[outputs], *_], _ = run_litert(path, [{"image": images}])
            [logits] = outputs.values()
            right.append(logits.argmax(-1) == labels)
        return round(float(np.mean(np.concatenate(right))), 4)

    def _test_batches(self):
        # Limited by memory, since large images have large feature maps.
        small = max(self.data.image_shape) <= 64
        most = 500 if small else 50
        return self.data.test_batches(most, self.devices.replicas)

    @property
    def _steps(self):
        return -(-len(self.data.train[1]) // self.settings.batch_size)

    def _network(self):
        settings = self.settings
        network = NETWORKS[settings.network](
            self.data.image_shape,
            self.data.classes,
            # The gradient of half the squared weights is coupled weight decay.
            kernel_regularizer=keras.regularizers.L2(settings.weight_decay / 2),
        )
        if settings.weights:
            gems.load_pretrained(network, settings.weights)
        return network

    def _sparse_model(self):
        kept = {"kernel_initializer": None} if self.settings.weights else {}
        with self.devices.scope():
            return gems.SparseModel.from_preset(
                "paper", self._network(), seed=self.settings.seed, **kept
            )

    def _schedule(self, rate, epochs):
        settings, steps = self.settings, epochs * self._steps
        if settings.finetuning_schedule == "cosine":
            return keras.optimizers.schedules.CosineDecay(rate, steps)
        milestones = settings.first_milestone, settings.second_milestone
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            [int(steps * part) for part in milestones],
            [rate, rate / 10, rate / 100],
        )

    def _compile(self, model, learning_rate, optimizer=None):
        optimizer = optimizer or self.settings.finetuning_optimizer
        with self.devices.scope():
            model.compile(
                _OPTIMIZERS[optimizer](learning_rate),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )

    def _fit(self, stage, model, epochs, callbacks=()):
        """Trains a model. Resumes an interrupted training."""
        backup = gems.callbacks.Backup(self._backup(stage), callbacks)
        log = self.directory / f"{stage}.csv"
        logger = keras.callbacks.CSVLogger(log, append=bool(backup.epoch))
        if self.devices.chief:
            _shorten(log, 1 + backup.epoch)
        batches = self.data.batches(
            self.settings.batch_size, self.settings.seed
        )
        model.fit(
            batches,
            epochs=epochs,
            validation_data=self._test_batches(),
            shuffle=False,  # The pipeline shuffles.
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                *callbacks,
                *([logger] if self.devices.chief else []),
                gems.callbacks.SetEpoch(batches),
                backup,
            ],
        )

    def _accuracy(self, model):
        _, accuracy = model.evaluate(self._test_batches(), verbose=0)
        return round(float(accuracy), 4)

    def _record(self, stage, found):
        if not self.devices.chief:
            return
        self.results["stages"][stage] = found
        write_text(self.results_path, json.dumps(self.results, indent=1))
        self._remove_backups()

    def _backup(self, stage):
        return self.directory / f"backup-{stage}"


def _shorten(path, lines):
    """Removes the log rows of epochs that are run again."""
    if path.exists():
        kept = path.read_bytes().splitlines(keepends=True)[:lines]
        with replacing(path) as file:
            file.writelines(kept)
