"""One method at one sparsity with one seed: searched, trained, recorded."""

import contextlib
import dataclasses
import hashlib
import json
import math
import shutil
import time
from pathlib import Path

import keras
import numpy as np

from tf_gems import sanity
from tf_gems.files import write_text
from tf_gems.methods.method import Method
from tf_gems.sparse_model import SparseModel
from tf_gems.ticket import Ticket
from tf_gems.training import as_dataset
from tf_gems.training import clear_session
from tf_gems.training import train

CHECKS = {
    "shuffled": lambda ticket, model, seed: sanity.shuffle(ticket, seed, model),
    "reinitialized": sanity.reinitialize,
    "random": sanity.randomize,
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is the same for every method of a comparison.

    Args: See `tf_gems.compare`.
    """

    build: callable
    train: object
    test: object
    optimizer: keras.optimizers.Optimizer
    loss: object
    epochs: int
    learning_rate: float | None
    metric: str
    steps_per_execution: int
    directory: Path
    strategy: object = None

    def compiled(self, method, seed):
        """Returns a fresh model, ready for a method."""
        clear_session(seed)
        # Each model needs an optimizer of its own.
        optimizer = keras.optimizers.serialize(self.optimizer)
        with (
            self.strategy.scope() if self.strategy else contextlib.nullcontext()
        ):
            sparse = SparseModel(
                self.build(seed),
                kernel_initializer=method.kernel_initializer,
                seed=seed,
            )
            sparse.compile(
                keras.optimizers.deserialize(optimizer),
                self.loss,
                metrics=[self.metric],
                # Loops of steps of Keras 3.15 fail on several replicas.
                steps_per_execution=1
                if self.strategy
                else self.steps_per_execution,
            )
        return sparse

    def data(self, seed):
        """Returns the training set in the order of a seed."""
        return self.train(seed) if callable(self.train) else self.train

    def accuracy(self, model):
        """Returns the metric on the test set."""
        model.compiled = True  # a switch of phase changes no metric
        found = model.evaluate(
            as_dataset(self.test), verbose=0, return_dict=True
        )
        return round(float(found[self.metric]), 5)

    def refuse_empty_test(self):
        """Raises an error if the test set holds nothing."""
        for batch in as_dataset(self.test):
            if np.size(keras.tree.flatten(batch)[0]):
                return
            break
        raise ValueError(
            "Accuracies are measured on a test set. Received: a `test` that "
            "holds no batch. Look at how it is read."
        )

    def settings(self):
        """Returns JSON values that cells of equal results have in common."""
        loss = self.loss
        if isinstance(loss, keras.losses.Loss):
            loss = keras.losses.serialize(loss)
        # Without the names that Keras numbers.
        optimizer = keras.optimizers.serialize(self.optimizer)
        del optimizer["config"]["name"]
        weights = self.build(0).weights
        return {
            "weights": [[v.name, list(v.shape)] for v in weights],
            "optimizer": optimizer,
            "loss": str(loss),
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "metric": self.metric,
        }


@dataclasses.dataclass(frozen=True)
class Cell:
    """A method at a sparsity with a seed, or a check of what it found.

    Args:
        protocol: `Protocol`.
        name: String, what the user calls the method.
        method: `tf_gems.methods.Method`, of the cell's sparsity.
        seed: Integer.
        key: String that names the settings of the protocol.
        check: `None`, or a key of `CHECKS`: the ticket of the same cell
            without a check, with a part of it randomised.
    """

    protocol: Protocol
    name: str
    method: Method
    seed: int
    key: str
    check: str | None = None

    @property
    def path(self):
        """The file that is there once the cell is finished."""
        config = keras.saving.serialize_keras_object(self.method)
        text = json.dumps([self.key, config], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        sparsity = f"{self.method.target_sparsity:.6g}"
        parts = [self.name, sparsity, str(self.seed), digest]
        parts += [self.check] if self.check else []
        return self.protocol.directory / "cells" / ("-".join(parts) + ".json")

    @property
    def lock(self):
        """The file by which a process claims all cells of its ticket."""
        original = dataclasses.replace(self, check=None)
        return original.path.with_suffix(".lock")

    @property
    def finetuning_epochs(self):
        return self.protocol.epochs - self.method.epochs_of_search

    def row(self):
        """Returns the record of a cell, running what is missing of it."""
        if self.path.exists():
            return json.loads(self.path.read_text("utf-8"))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        model = self.protocol.compiled(self.method, self.seed)
        ticket, search = self._checked(model) if self.check else self._found()
        ticket.apply(model)
        record = {
            "method": self.name,
            "check": self.check,
            "sparsity": self.method.target_sparsity,
            "seed": self.seed,
            "kept": ticket.kept,
            "size": ticket.size,
            "accuracy_before": self.protocol.accuracy(model),
            **search,
            "epochs_of_finetuning": self.finetuning_epochs,
        }
        losses = [0.0]
        clock = _Clock(self._backup("finetuning"))
        if self.finetuning_epochs:
            losses += train(
                model,
                self.protocol.data(self.seed),
                self.finetuning_epochs,
                self.protocol.learning_rate,
                directory=self._backup("finetuning"),
            ).history.get("loss", [])
        record["accuracy"] = self.protocol.accuracy(model)
        record["diverged"] = not np.isfinite(losses[-1]) or _is_spoiled(model)
        for name in ("accuracy_before", "accuracy"):
            if not math.isfinite(record[name]):
                record[name], record["diverged"] = 0.0, True
        record.update(clock.read("finetuning"))
        record["density_of_layers"] = {
            layer["path"]: round(layer["density"], 6)
            for layer in ticket.layers()
        }
        write_text(self.path, json.dumps(record, indent=1))
        return record

    def _found(self):
        """The method's ticket and what it cost; searched for once."""
        file, cost = self._ticket_file(), self.path.with_suffix(".search")
        if not cost.exists():
            clock = _Clock(self._backup("search"))
            model = self.protocol.compiled(self.method, self.seed)
            ticket = self.method.find(
                model,
                self.protocol.data(self.seed),
                directory=self._backup("search"),
            )
            ticket.save(file)
            found = {
                "epochs_of_search": self.method.epochs_of_search,
                **clock.read("search"),
            }
            write_text(cost, json.dumps(found, indent=1))
            shutil.rmtree(self._backup("search"), ignore_errors=True)
        return Ticket.load(file), json.loads(cost.read_text("utf-8"))

    def _checked(self, model):
        """A randomised copy of the ticket that the method found."""
        original = dataclasses.replace(self, check=None)
        ticket, _ = original._found()
        return CHECKS[self.check](ticket, model, self.seed), {
            "epochs_of_search": 0
        }

    def _ticket_file(self):
        return self.path.with_suffix(".gem")

    def _backup(self, stage):
        return self.path.with_suffix(f".{stage}-backup")


def _is_spoiled(model):
    """Whether a weight of a model is NaN or infinite."""
    values = map(keras.ops.convert_to_numpy, model.weights)
    return not all(
        np.isfinite(value).all()
        for value in values
        if np.issubdtype(value.dtype, np.floating)
    )


class _Clock:
    """Wall-clock and processor seconds of a stage.

    Args:
        backup: Path that exists if an earlier run was stopped in this stage,
            whose seconds are then not counted.
    """

    def __init__(self, backup):
        self._interrupted = backup.exists()
        self._begin = time.perf_counter(), time.process_time()

    def read(self, stage):
        wall, processor = self._begin
        found = {
            f"seconds_of_{stage}": round(time.perf_counter() - wall, 2),
            f"processor_seconds_of_{stage}": round(
                time.process_time() - processor, 2
            ),
        }
        if self._interrupted:
            found[f"{stage}_was_interrupted"] = True
        return found
