"""What a backup belongs to: the training that alone may go on from it."""

import hashlib
import inspect
import json

import keras
import numpy as np
from keras import ops

from tf_gems.array_batches import ArrayBatches


def fingerprint(model, belongs_to=()):
    """Returns what tells a training from others, before its first step.

    Args:
        model: Compiled Keras model.
        belongs_to: Whatever else the training depends on, see `describe`.

    Returns:
        Dict from names, for people, to strings.
    """
    states = [v for v in model.variables if v.name == "seed_generator_state"]
    shapes = [(tuple(v.shape), str(v.dtype)) for v in model.weights]
    return {
        "the network": _digest(describe(shapes)),
        "its starting weights": _digest(describe(list(model.weights))),
        "the seeds of its random layers": _digest(describe(states)),
        "the optimizer": describe(model.optimizer),
        "the loss": describe(getattr(model, "loss", None)),
        "the data or the settings": _digest(describe(list(belongs_to))),
    }


def describe(value):
    """Returns text that is the same for equal values in another process.

    Arrays are told by all their values; data sets that know their epochs by
    their first batch; sequences of batches by their length and the labels of
    the first; others by their type, length and element specification;
    layers, losses, optimizers and schedules by their config, and other
    objects by the arguments that they keep under the same name.

    Args:
        value: JSON value, array, function, data set, callback, or anything.

    Returns:
        String.

    Example:

    >>> describe({"rate": 0.1})
    '{"rate": 0.1}'
    """
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value):
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, keras.Variable) or keras.ops.is_tensor(value):
        value = ops.convert_to_numpy(value)
    if isinstance(value, np.ndarray | np.generic):
        value = np.asarray(value)
        data = np.ascontiguousarray(value)
        if value.dtype == object:
            data = "\n".join(map(str, value.ravel())).encode()
        return [list(value.shape), str(value.dtype), _digest(data)]
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, ArrayBatches):
        read = [value.batch_size, value.shuffle, value.steps]
        return [name, read, _plain(keras.tree.flatten(value.arrays))]
    if inspect.isroutine(value) or isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if callable(getattr(value, "set_epoch", None)):
        value.set_epoch(0)
        batch = next(iter(value))
        value.set_epoch(None)
        return [name, _length(value), _plain(keras.tree.flatten(batch))]
    if hasattr(value, "__getitem__") and _length(value):
        # Inputs may be augmented at random; labels are as they are.
        batch = value[0]
        labels = batch[1:] if isinstance(batch, tuple) else None
        return ["batches", _length(value), _plain(labels)]
    if hasattr(value, "element_spec"):
        return [name, _length(value), str(value.element_spec)]
    if callable(getattr(value, "get_config", None)):
        try:
            config = dict(value.get_config())
            config.pop("name", None)  # Keras counts the names of a process
            return [name, _plain(config)]
        except NotImplementedError:
            return name
    found = {
        key: _plain(vars(value)[key])
        for key in inspect.signature(type(value).__init__).parameters
        if key in getattr(value, "__dict__", {})
    }
    return [name, _length(value), found]


def _length(value):
    try:
        return len(value)
    except TypeError:
        return None


def _digest(data):
    data = data.encode() if isinstance(data, str) else data
    return hashlib.sha256(data).hexdigest()
