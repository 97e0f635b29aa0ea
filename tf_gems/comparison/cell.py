"""One method at one sparsity with one seed: searched, trained, recorded."""

import contextlib
import dataclasses
import json
import math
import time
import weakref
from pathlib import Path

import keras
from keras import ops

from tf_gems import sanity
from tf_gems import training_data
from tf_gems.comparison.experiment import digest
from tf_gems.comparison.experiment import finetune
from tf_gems.comparison.experiment import recorded
from tf_gems.comparison.experiment import searched
from tf_gems.files import BACKUP
from tf_gems.files import read_record
from tf_gems.files import remove_files
from tf_gems.files import write_text
from tf_gems.fingerprint.data import describe_data
from tf_gems.fingerprint.network import describe_network
from tf_gems.fingerprint.values import describe
from tf_gems.methods.method import Method
from tf_gems.network import gems_of
from tf_gems.optimizer_copy import config_of
from tf_gems.optimizer_copy import copy_optimizer
from tf_gems.sparse_model import SparseModel
from tf_gems.text import file_name
from tf_gems.ticket import Ticket
from tf_gems.training import clear_session
from tf_gems.validation import check_model
from tf_gems.validation import is_function

_OF_SEARCH = (r"round_\d+\.gem", r"rewind\.gem")
RECORDED = ("method", "check", "sparsity", "seed")
CHECKS = {
    "shuffled": sanity.shuffle,
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
    metric: object
    steps_per_execution: int
    directory: Path
    strategy: object = None
    networks: dict = dataclasses.field(default_factory=dict)  # by seed

    def __getstate__(self):
        # Keras pickles objects by its registry: these need not be in it.
        networks = {
            seed: (key, None) for seed, (key, _) in self.networks.items()
        }
        return vars(self) | {
            "networks": networks,
            "optimizer": _Packed(self.optimizer),
            "loss": keras.tree.map_structure(_Packed, self.loss),
            "metric": _Packed(self.metric),
        }

    def __setstate__(self, state):
        for name in ("optimizer", "loss", "metric"):
            state[name] = keras.tree.map_structure(_Packed.whole, state[name])
        vars(self).update(state)

    def compiled(self, method, seed):
        """Returns a fresh model, ready for a method."""
        with self._new_session(seed):
            model = self.build(seed)
            self._refuse_another(model, seed)
            sparse = SparseModel(
                model, kernel_initializer=method.kernel_initializer, seed=seed
            )
            sparse.compile(
                copy_optimizer(self.optimizer),
                self.loss,
                # One that earlier models have updated begins with their
                # counts: Keras resets it only once it is built.
                metrics=[_Packed(self.metric).whole()],
                # Loops of steps of Keras 3.15 fail on several replicas.
                steps_per_execution=1
                if self.strategy
                else self.steps_per_execution,
            )
        return sparse

    @contextlib.contextmanager
    def _new_session(self, seed):
        clear_session(seed)
        scope = self.strategy.scope() if self.strategy else None
        with scope or contextlib.nullcontext():
            yield

    def _refuse_another(self, model, seed):
        """Raises an error if a seed does not give the same network again."""
        known, first = self.networks[seed]
        what = "the same model as an earlier call"
        if first is None or first() is not model:
            found = _network_key(model)
            parts = [name for name in found if found[name] != known[name]]
            what = f"different {' and '.join(parts)}" if parts else None
        if what:
            raise ValueError(
                "`build` must return a new model at every call, with the "
                f"same network for the same seed. Received: seed={seed}, for "
                f"which the second call returned {what}. Create the model "
                "inside the function, and derive all random numbers from the "
                "seed."
            )

    def data(self, seed):
        """Returns the training set in the order of a seed."""
        return self.train(seed) if is_function(self.train) else self.train

    def accuracy(self, model):
        """Returns the metric on the test set; `None` if it is no number."""
        found = model.evaluate(
            training_data.read(self.test).source, verbose=0, return_dict=True
        )
        if self.metric_name not in found:
            raise ValueError(
                "`metric` must be one that the model reports. Received: "
                f"metric={self.metric_name!r}; it reports {', '.join(found)}."
            )
        value = float(found[self.metric_name])
        return round(value, 5) if math.isfinite(value) else None

    @property
    def metric_name(self):
        """The name of the metric in what `evaluate` returns."""
        if isinstance(self.metric, str):
            return self.metric
        name = getattr(self.metric, "name", None)
        return name or self.metric.__name__

    def settings(self):
        """Returns JSON values that describe the comparison to readers."""
        loss = self.loss
        if isinstance(loss, keras.losses.Loss):
            loss = {"class": type(loss).__name__, **loss.get_config()}
        optimizer = {"class": type(self.optimizer).__name__}
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer |= config_of(self.optimizer)
        settings = {
            "optimizer": optimizer,
            "loss": loss,
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "metric": self.metric_name,
        }
        return json.loads(json.dumps(settings, default=_readable))

    def key(self):
        """Returns digests of what all cells of a comparison depend on."""
        return {
            "backend": keras.backend.backend(),
            "optimizer": digest(describe(self.optimizer)),
            "loss": digest(describe(self.loss)),
            "metric": digest(describe(self.metric)),
            "epochs": self.epochs,
            "learning rate": digest(describe(self.learning_rate)),
            "test data": digest(describe_data(self.test, "test")),
        }

    def key_of_seed(self, seed):
        """Returns digests of what the cells of a seed depend on."""
        with self._new_session(seed):
            model = check_model(self.build(seed), "build(seed)")
            _refuse_several_outputs(model)
            network = _network_key(model)
        self.networks[seed] = network, weakref.ref(model)
        data = describe_data(self.data(seed), "train")
        return {**network, "training data": digest(data)}


def _refuse_several_outputs(model):
    outputs = getattr(model, "outputs", None) or ()
    if len(outputs) > 1:
        raise ValueError(
            "Methods are compared by one metric of one output. Received: "
            f"build(seed)='{model.name}' with {len(outputs)} outputs. Build a "
            "model with one output, such as `keras.Model(model.inputs, "
            "model.outputs[0])`."
        )


class _Packed:
    """An optimizer, a loss or a metric, as its class and its arguments."""

    def __init__(self, value):
        self.kind, self.state = None, value
        if isinstance(value, keras.losses.Loss):
            self.kind, self.state = type(value), vars(value)
        elif isinstance(value, keras.metrics.Metric):
            self.kind, self.state = type(value), value.get_config()
        elif isinstance(value, keras.optimizers.Optimizer):
            if not isinstance(value, keras.optimizers.LossScaleOptimizer):
                self.kind, self.state = type(value), config_of(value)

    def whole(self):
        if self.kind is None:
            return self.state
        if not issubclass(self.kind, keras.losses.Loss):
            return self.kind.from_config(self.state)
        loss = object.__new__(self.kind)
        vars(loss).update(self.state)
        return loss


def _network_key(model):
    found = describe_network(model)
    return {
        "network": digest(found["layers"]),
        "initial weights": digest(found["weights"]),
    }


def _readable(value):
    """Returns a name for a value that JSON cannot represent."""
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        try:
            return keras.optimizers.schedules.serialize(value)
        except NotImplementedError:
            pass
    return getattr(value, "__qualname__", type(value).__qualname__)


@dataclasses.dataclass(frozen=True)
class Cell:
    """A method at a sparsity with a seed, or a check of what it found.

    Args:
        protocol: `Protocol`.
        name: String, what the user calls the method.
        method: `tf_gems.methods.Method`, of the cell's sparsity.
        seed: Integer.
        key: Dict from what the cell depends on to digests of it.
        check: `None`, or a key of `CHECKS`: the ticket of the same cell
            without a check, with a part of it randomized.
    """

    protocol: Protocol
    name: str
    method: Method
    seed: int
    key: dict
    check: str | None = None

    @property
    def path(self):
        """The file that is there once the cell is finished."""
        name, *others = self.place
        parts = [file_name(name), *others, digest(self.key)]
        parts += [self.check] if self.check else []
        return self.protocol.directory / "cells" / ("-".join(parts) + ".json")

    @property
    def place(self):
        """What the user calls the cell: method, sparsity and seed."""
        sparsity = f"{self.method.target_sparsity:.6g}"
        return self.name, sparsity, str(self.seed)

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
        try:
            record = recorded(self.path, self._run, self.lock.stem)
        except Exception as error:
            error.add_note(
                f"In the comparison: method={self.name!r}, "
                f"sparsity={self.method.target_sparsity}, seed={self.seed}. "
                "Finished cells are kept, and are not run again."
            )
            raise
        record.pop("key", None)
        return record

    def _run(self):
        record = {
            "method": self.name,
            "check": self.check,
            "sparsity": self.method.target_sparsity,
            "seed": self.seed,
        }
        model = self.protocol.compiled(self.method, self.seed)
        ticket, search = (
            self._checked(model) if self.check else self._find_ticket()
        )
        if ticket is None:
            record |= {
                "kept": None,
                "size": sum(gem.size for gem in gems_of(model)),
                "accuracy_before": None,
                **search,
                "epochs_of_finetuning": 0,
                "accuracy": None,
                "density_of_layers": {},
            }
        else:
            record |= self._trained(model, ticket, search)
        return {**record, "key": self.key}

    def _trained(self, model, ticket, search):
        """Fine-tunes a ticket, and returns what there is to record."""
        clock = _Clock(self._backup("finetuning"))
        before, after, losses = finetune(
            model,
            ticket,
            self.protocol.data(self.seed),
            self.finetuning_epochs,
            self.protocol.learning_rate,
            self.protocol.accuracy,
            self._backup("finetuning"),
        )
        record = {
            "kept": ticket.kept,
            "size": ticket.size,
            "accuracy_before": before,
            **search,
            "epochs_of_finetuning": self.finetuning_epochs,
            "accuracy": after,
        }
        if not all(map(math.isfinite, losses)) or not is_finite(model):
            # A network of NaN still answers, always the same.
            record["accuracy"] = None
            record["diverged"] = "fine-tuning: the loss or a weight is NaN"
        elif record["accuracy"] is None:
            record["diverged"] = "the metric is not a finite number"
        record.update(clock.read("finetuning"))
        record["density_of_layers"] = {
            layer["path"]: round(layer["density"], 6)
            for layer in ticket.layers()
        }
        return record

    def _find_ticket(self):
        """The method's ticket and what it cost; searched for once.

        The ticket is `None` if the search diverged.
        """
        file, cost = self._ticket_file(), self.path.with_suffix(".search")
        if not cost.exists():
            clock = _Clock(self._backup("search"))
            model = self.protocol.compiled(self.method, self.seed)
            found = {"epochs_of_search": self.method.epochs_of_search}
            try:
                searched(
                    file,
                    self.method,
                    model,
                    self.protocol.data(self.seed),
                    self._backup("search"),
                    verbose=0,
                )
            except (RuntimeError, ValueError) as error:
                if is_finite(model):
                    raise
                found["diverged"] = f"search: {error}"
            found |= clock.read("search")
            write_text(cost, json.dumps(found, indent=1))
        # Also if a process was killed after it had written the record.
        remove_files(self._backup("search"), BACKUP, *_OF_SEARCH)
        found = read_record(cost, "epochs_of_search")
        return None if "diverged" in found else Ticket.load(file), found

    def _checked(self, model):
        """A randomized copy of the ticket that the method found."""
        original = dataclasses.replace(self, check=None)
        ticket, found = original._find_ticket()
        if ticket is None:
            return None, found
        return CHECKS[self.check](ticket, model, seed=self.seed), {
            "epochs_of_search": 0
        }

    def _ticket_file(self):
        return self.path.with_suffix(".gem")

    def _backup(self, stage):
        return self.path.with_suffix(f".{stage}-backup")


def is_finite(model):
    """Whether no weight of a model is infinite or NaN."""
    return all(
        bool(ops.all(ops.isfinite(v)))
        for v in model.weights
        if "float" in v.dtype
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
