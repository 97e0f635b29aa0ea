"""Backs up training: a process that is killed loses at most one epoch."""

import contextlib
import hashlib
import inspect
import json
import math
import warnings
import weakref
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
from keras import ops

from tf_gems import _keras
from tf_gems import workers
from tf_gems.array_batches import ArrayBatches
from tf_gems.files import BACKUP
from tf_gems.files import remove_files
from tf_gems.files import remove_leftovers
from tf_gems.files import replacing
from tf_gems.fingerprint.values import describe_array
from tf_gems.fingerprint.values import digest
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.targets import check_path

_KEPT = 2  # should the last one be damaged, there is one before it
_MAGIC = b"\x89GEMBACK"
# How trainings of this process began, should one of them be stopped and start
# again with the same model, whose weights are others by then.
_BEGUN = weakref.WeakKeyDictionary()


class Backup(keras.callbacks.Callback):
    """Saves the state of training after every epoch, and restores it.

    `keras.callbacks.BackupAndRestore` overwrites its only file, so a run that
    is killed while it writes cannot be resumed. It does not save the states of
    random layers either. This callback writes one file for each epoch, which
    is renamed into place when it is complete. If a file is damaged, the
    previous one is used. If the order of the data depends only on the epoch,
    see `tf_gems.callbacks.SetEpoch`, a run that is killed and restarted gives
    bitwise the same result on the same kind of device.

    The state consists of the variables of the model and of its optimizer. The
    position in the list of callbacks does not matter, unless other callbacks
    change variables at the end of an epoch: list those first. The state of
    other callbacks, such as the patience of `EarlyStopping`, is not saved.

    The data should have a known length, see
    `tf.data.experimental.assert_cardinality`. Otherwise, on TensorFlow,
    reading beyond the end counts as a step of the optimizer in the first epoch
    of every process.

    With several workers, the chief writes the backups and all workers read
    them. The directory must be on a shared file system.

    A backup belongs to one training. It contains digests of the network, its
    initial weights and seeds, the optimizer and the loss. If one of them
    differs, an error is raised, so set a seed. List everything else that the
    training depends on in `belongs_to`.

    Args:
        directory: Path of the backups, created with the first backup.
        belongs_to: List of everything else that the training depends on: data
            sets, arrays, callbacks, JSON values. Defaults to none.

    Raises:
        ValueError: If the backup belongs to another training.
        OSError: If there is no space for a backup. The previous one is kept.

    Example:

    ```python
    sparse.fit(batches, epochs=150, callbacks=[
        tf_gems.GemMinerCallback(0.98),
        tf_gems.callbacks.SetEpoch(batches),
        tf_gems.callbacks.Backup("backup", belongs_to=[batches])])
    ```
    """

    def __init__(self, directory, belongs_to=()):
        super().__init__()
        self.directory = Path(check_path(directory, "directory"))
        if not isinstance(belongs_to, list | tuple):
            raise ValueError(
                "`belongs_to` must be a list of what the training depends "
                f"on. Received: belongs_to={belongs_to!r:.300}. Put the "
                "object in a list."
            )
        self.belongs_to = list(belongs_to)
        self._fingerprint = None

    @property
    def paths(self):
        """The existing backups, the latest first."""
        return sorted(self.directory.glob("*.backup"), reverse=True)

    @property
    def epoch(self):
        """Integer, the number of epochs in the latest complete backup."""
        for path in self.paths:
            with contextlib.suppress(OSError, ValueError):
                return _read(path)[0]["epoch"]
        return 0

    def on_train_begin(self, logs=None):
        fingerprint = _fingerprint(self.model, self.belongs_to)
        begun = _BEGUN.setdefault(self.model, {})
        key = str(self.directory.absolute())
        if not self.paths:
            self._fingerprint = begun[key] = fingerprint
            return
        # Of the same model object: how its training began.
        for name in ("its starting weights", "the seeds of its random layers"):
            fingerprint[name] = begun.get(key, fingerprint)[name]
        self._fingerprint = begun[key] = fingerprint
        with workers.scope_of(self.model):
            self.model.optimizer.build(self.model.trainable_variables)
        for path in self.paths:
            try:
                header, values = _read(path)
            except (OSError, ValueError) as error:
                warnings.warn(
                    f"The backup '{path}' is damaged ({error}). Training "
                    "continues from the previous backup, or from the "
                    "beginning.",
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
                "A backup can only be restored to the same model in the same "
                f"phase. Received: directory='{self.directory}' of "
                f"{len(theirs)} variables, phases {header['phases']}; "
                f"model='{self.model.name}' with its optimizer has "
                f"{len(ours)}, phases {_phases(self.model)}. Use one "
                "directory for each training, or remove this one."
            )
        if not _holds(variables, values):
            self._refuse_other_training(header["fingerprint"])
        # The first backup defines which training this is.
        self._fingerprint = header["fingerprint"]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        # As `BackupAndRestore` does: `fit` begins with this epoch.
        _keras.set_initial_epoch(self.model, header["epoch"])

    def _refuse_other_training(self, theirs):
        ours = self._fingerprint
        names = [name for name in ours if ours[name] != theirs.get(name)]
        if names:
            raise ValueError(
                "A backup can only be resumed by the training that wrote it. "
                f"Received: directory='{self.directory}', from a training "
                f"that differs in {', '.join(names)}. Set the same seed "
                "(`keras.utils.set_random_seed`) and the same settings, use "
                "another directory, or remove this one to start again."
            )

    def on_epoch_begin(self, epoch, logs=None):
        # Keras never forgets it: the next `fit` would begin there as well.
        _keras.set_initial_epoch(self.model, None)

    def on_train_end(self, logs=None):
        _keras.set_initial_epoch(self.model, None)

    def remove(self):
        """Removes the backups. This can be interrupted safely.

        The directory is removed too, unless it contains other files.
        """
        remove_files(self.directory, BACKUP)

    def on_epoch_end(self, epoch, logs=None):
        if not is_chief(self.model):
            return
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            return  # nothing to come back to
        self.directory.mkdir(parents=True, exist_ok=True)
        header = {
            "epoch": epoch + 1,
            "phases": _phases(self.model),
            "fingerprint": self._fingerprint or {},
        }
        values = [ops.convert_to_numpy(v) for v in _variables(self.model)]
        with replacing(self.directory / f"{epoch + 1:09d}.backup") as file:
            _write(file, header, values)
        for useless in self.paths[_KEPT:]:
            useless.unlink(missing_ok=True)
        remove_leftovers(self.directory)  # of a run that was killed


def random_states(model):
    """Returns the states of dropout and its like, which Keras does not save.

    Each holds a seed, and how often it has been drawn from.
    """
    return [v for v in model.variables if v.name == "seed_generator_state"]


def _fingerprint(model, belongs_to):
    """Returns what identifies a training before its first step."""
    parts = {
        "the network": [(tuple(v.shape), str(v.dtype)) for v in model.weights],
        "its starting weights": list(model.weights),
        "the seeds of its random layers": random_states(model),
        "the optimizer": model.optimizer,
        "the loss": getattr(model, "loss", None),
        "the data or the settings": list(belongs_to),
    }
    return {name: digest(_describe(part)) for name, part in parts.items()}


def _describe(value):
    """Returns JSON that is the same for equal values in another process.

    It is cheaper than `tf_gems.fingerprint`, and refuses nothing. Arrays are
    described by all their values; data sets that know their epochs by their
    first batch; sequences of batches by their length and the labels of the
    first; other data sets by their type, length and element specification;
    functions by their names; Keras objects by their config, and others by the
    arguments that they keep under the same name.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_describe(item) for item in value]
    if isinstance(value, keras.Variable) or ops.is_tensor(value):
        value = ops.convert_to_numpy(value)
    if isinstance(value, np.ndarray | np.generic):
        return describe_array(value)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, ArrayBatches):
        read = [value.batch_size, value.shuffle, value.steps]
        return [name, read, _describe(keras.tree.flatten(value.arrays))]
    if inspect.isroutine(value) or isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if callable(getattr(value, "set_epoch", None)):
        value.set_epoch(0)
        batch = next(iter(value))
        value.set_epoch(None)
        return [name, _length(value), _describe(keras.tree.flatten(batch))]
    if hasattr(value, "__getitem__") and _length(value):
        # Inputs may be augmented at random; labels are as they are.
        batch = value[0]
        labels = batch[1:] if isinstance(batch, tuple) else None
        return ["batches", _length(value), _describe(labels)]
    if hasattr(value, "element_spec"):
        return [name, _length(value), str(value.element_spec)]
    if callable(getattr(value, "get_config", None)):
        try:
            config = dict(value.get_config())
            config.pop("name", None)  # Keras counts the names of a process
            return [name, _describe(config)]
        except NotImplementedError:
            return name
    arguments = {
        key: _describe(vars(value)[key])
        for key in inspect.signature(type(value).__init__).parameters
        if key in getattr(value, "__dict__", {})
    }
    return [name, _length(value), arguments]


def _length(value):
    try:
        return len(value)
    except TypeError:
        return None


def _variables(model):
    return [*model.variables, *model.optimizer.variables]


def _phases(model):
    return [gem.phase for gem in find_gem_layers(model)]


def _holds(variables, values):
    """Whether a model already is as a backup has it, in every bit."""
    return all(
        ops.convert_to_numpy(variable).tobytes() == value.tobytes()
        for variable, value in zip(variables, values, strict=True)
    )


def _write(file, header, values):
    """Writes header, arrays, and the SHA-256 of both."""
    arrays = [[value.dtype.name, value.shape] for value in values]
    text = json.dumps({**header, "arrays": arrays}).encode()
    digest = hashlib.sha256()
    for data in (
        *(_MAGIC, len(text).to_bytes(8, "little"), text),
        *(value.tobytes() for value in values),
    ):
        file.write(data)
        digest.update(data)
    file.write(digest.digest())


def _read(path):
    """Returns header and values of a backup in which every bit is right."""
    data = path.read_bytes()
    body, digest = data[:-32], data[-32:]
    if hashlib.sha256(body).digest() != digest or body[:8] != _MAGIC:
        raise ValueError("its checksum is wrong")
    start = 16 + int.from_bytes(body[8:16], "little")
    header, values = json.loads(body[16:start]), []
    for name, shape in header["arrays"]:
        dtype, count = _dtype(name), math.prod(shape)
        value = np.frombuffer(body, dtype, count, start)
        values.append(value.reshape(shape))
        start += value.nbytes
    return header, values


def _dtype(name):
    """Returns the NumPy dtype of a name, also of those that NumPy lacks."""
    return np.dtype(getattr(ml_dtypes, name, name))


def is_chief(model):
    """Whether this process is the one among its workers that writes."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.process_index() == 0
    strategy = getattr(model, "distribute_strategy", None)
    return strategy is None or strategy.extended.should_checkpoint
