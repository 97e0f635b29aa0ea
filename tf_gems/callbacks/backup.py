"""Backs training up so that a kill at any moment loses one epoch at most."""

import contextlib
import json
import warnings
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np
from keras import ops

from tf_gems.files import BACKUP
from tf_gems.files import remove_files
from tf_gems.files import remove_leftovers
from tf_gems.files import replacing
from tf_gems.layers.gem_layer import find_gem_layers

_KEPT = 2  # should the last one be damaged, there is one before it
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError),
    *(NotImplementedError, RuntimeError, UnicodeDecodeError, ValueError),
)


class Backup(keras.callbacks.Callback):
    """Saves the state of training after every epoch, and restores it.

    `keras.callbacks.BackupAndRestore` writes over its only file, and a run
    that is killed meanwhile cannot be resumed; nor does it save how often
    dropout has drawn. Here each epoch has a file of its own, renamed into
    place once it is whole, and a file that is damaged nevertheless gives way
    to the one before. With data in an order that follows from the epoch, see
    `tf_gems.callbacks.SetEpoch`, a run that is killed and started again ends
    as it would have, bit for bit, on the same kind of device.

    The state is what is in the variables of the model and of its optimizer.
    The place in the list of callbacks does not matter, unless others change
    variables when an epoch ends: those come first. What callbacks remember
    themselves (the patience of `EarlyStopping`) begins anew.

    Give the data a length, see `tf.data.experimental.assert_cardinality`: on
    TensorFlow a reading beyond the end counts as a step of the optimizer, in
    the first epoch of every process.

    Of several workers the chief writes, and all read: the directory must be
    on a file system that they share.

    Args:
        directory: Path of the backups, made when there is something to save.

    Raises:
        ValueError: If the backup is of another model or phase.
        OSError: If there is no room for a backup; the last one is kept.

    Example:

    ```python
    sparse.fit(batches, epochs=150, callbacks=[
        tf_gems.GemMinerCallback(0.98),
        tf_gems.callbacks.SetEpoch(batches),
        tf_gems.callbacks.Backup("backup")])
    ```
    """

    def __init__(self, directory):
        super().__init__()
        self.directory = Path(directory)

    @property
    def paths(self):
        """The backups that there are, the last one first."""
        return sorted(self.directory.glob("*.backup"), reverse=True)

    @property
    def epoch(self):
        """Integer, epochs of training that the last backup holds."""
        return int(self.paths[0].stem) if self.paths else 0

    def on_train_begin(self, logs=None):
        if not self.paths:
            return
        with _scope_of(self.model):
            self.model.optimizer.build(self.model.trainable_variables)
        for path in self.paths:
            try:
                header, values = _read(path)
            except _DAMAGE as error:
                warnings.warn(
                    f"The backup '{path}' is damaged ({error}). Training goes "
                    "on from the one before, or from the beginning.",
                    stacklevel=2,
                )
            else:
                self._restore(path, header, values)
                return

    def _restore(self, path, header, values):
        variables = _variables(self.model)
        ours = [list(variable.shape) for variable in variables]
        theirs = [list(value.shape) for value in values]
        if (ours, _phases(self.model)) != (theirs, header["phases"]):
            raise ValueError(
                "A backup is of the same model in the same phase. Received: "
                f"directory='{self.directory}' of {len(theirs)} variables, "
                f"phases {header['phases']}; model='{self.model.name}' with "
                f"its optimizer has {len(ours)}, phases "
                f"{_phases(self.model)}. Use a directory for each training, "
                "or remove this one."
            )
        for variable, value in zip(variables, values, strict=True):
            # NumPy stores types that it does not know, bfloat16, as bytes.
            if value.dtype.kind == "V":
                value = value.view(ops.convert_to_numpy(variable).dtype)
            variable.assign(value)
        # As `BackupAndRestore` does: `fit` begins with this epoch.
        self.model._initial_epoch = header["epoch"]

    def on_epoch_begin(self, epoch, logs=None):
        # Keras never forgets it: the next `fit` would begin there as well.
        self.model._initial_epoch = None

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None

    def remove(self):
        """Removes the backups; a kill meanwhile does no harm.

        The directory goes with them, unless it holds something else.
        """
        remove_files(self.directory, BACKUP)

    def on_epoch_end(self, epoch, logs=None):
        if not is_chief(self.model):
            return
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            return  # nothing to come back to
        self.directory.mkdir(parents=True, exist_ok=True)
        header = {"epoch": epoch + 1, "phases": _phases(self.model)}
        variables = _variables(self.model)
        with replacing(self.directory / f"{epoch + 1:09d}.backup") as file:
            np.savez(
                file,
                np.frombuffer(json.dumps(header).encode(), "uint8"),
                *[ops.convert_to_numpy(variable) for variable in variables],
            )
        for useless in self.paths[_KEPT:]:
            useless.unlink()
        remove_leftovers(self.directory)  # of a run that was killed


def random_states(model):
    """Returns the states of dropout and its like, which Keras does not save.

    Each holds a seed, and how often it has been drawn from.
    """
    return [v for v in model.variables if v.name == "seed_generator_state"]


def _variables(model):
    return [*model.variables, *model.optimizer.variables]


def _phases(model):
    return [gem.phase for gem in find_gem_layers(model)]


def _read(path):
    """Returns header and values of a backup, whose checksums all agree."""
    with np.load(path, allow_pickle=False) as archive:
        header, *values = (archive[name] for name in archive.files)
    return json.loads(header.tobytes()), values


def _scope_of(model):
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy else contextlib.nullcontext()


def is_chief(model):
    """Whether this process is the one among its workers that writes."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.process_index() == 0
    strategy = getattr(model, "distribute_strategy", None)
    return strategy is None or strategy.extended.should_checkpoint
