"""Identifies a data set by the batches that it yields."""

import hashlib
import math
import warnings

import keras
import numpy as np

from tf_gems import training_data
from tf_gems.array_batches import ArrayBatches
from tf_gems.device_data import DeviceData
from tf_gems.fingerprint.values import describe
from tf_gems.fingerprint.values import describe_array

_SAMPLE_BYTES = 1 << 26  # of data that comes in the same order again
_WHOLE_BYTES = 1 << 30  # of data that does not


def describe_data(data, name):
    """Returns JSON that identifies a data set.

    Arrays and lists of batches are identified by all their contents. Other
    data is identified by the number of batches, and

    - if two readings give the same batches in the same order: their first
      64 MiB, in order;
    - if not, because the data is shuffled: the examples of a whole epoch, up
      to 1 GiB, in any order. What differs even so, as images that are
      augmented at random, is left out, and a warning says that such data
      cannot be identified by its contents.
    """
    data = training_data.read(data)
    if data is None or data.gives_batches_once:
        kind = type(None if data is None else data.source).__name__
        raise ValueError(
            "Every cell of a comparison reads the data again. Received: "
            f"{name} of type {kind}, which yields each batch only once. Pass "
            "arrays, a list of batches, a `keras.utils.PyDataset` or a "
            "`tf.data.Dataset`."
        )
    if data.is_endless:
        raise ValueError(
            f"The data of a comparison must be finite. Received: {name} of "
            f"type {type(data.source).__name__}, which repeats forever. "
            "Remove `repeat()`, or use `take` for the batches of an epoch."
        )
    if isinstance(data.source, DeviceData):
        return describe(vars(data.source))
    found = {
        "class_weight": describe(data.class_weight),
        "steps": data.steps,
        "batches": _count(data),
    }
    if isinstance(data.source, ArrayBatches):
        source = data.source
        _refuse_nan(source.arrays, name)
        arrays = keras.tree.flatten(source.arrays)
        found["arrays"] = [describe_array(a) for a in arrays]
        found["read"] = [source.batch_size, source.shuffle, source.steps]
        return found
    listed = isinstance(data.source, training_data.ListedBatches)
    limit = math.inf if listed else _SAMPLE_BYTES
    first, second = (_ordered(data, name, limit) for _ in range(2))
    if first == second:
        return {**found, "first_batches": first}
    first, second = _unordered(data), _unordered(data)
    pairs = zip(first, second, strict=False)
    found["examples"] = [a if a == b else "random" for a, b in pairs]
    if "random" in found["examples"]:
        warnings.warn(
            f"The contents of `{name}` differ each time they are read, so "
            "finished cells are identified only by its number of batches, "
            "dtypes and shapes. Use a separate directory for each data set, "
            "or pass a function from a seed to the data that derives all "
            "random numbers from the seed.",
            stacklevel=2,
        )
        found["kinds"] = _kinds(data)
    return found


def _count(data):
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None


def _arrays(batch):
    return [
        _dense(part) for part in keras.tree.flatten(batch) if part is not None
    ]


def _dense(part):
    if hasattr(part, "to_tensor"):  # ragged
        part = part.to_tensor()
    elif type(part).__name__ == "SparseTensor":
        return np.asarray(part.values)
    elif hasattr(part, "todense"):
        part = part.todense()
    return np.asarray(keras.ops.convert_to_numpy(part))


def _first_epoch(data):
    """Yields the batches of the first epoch, however often it is read."""
    set_epoch = getattr(data.source, "set_epoch", lambda epoch: None)
    set_epoch(0)
    yield from data
    set_epoch(None)


def _ordered(data, name, limit):
    """Returns a digest of the first batches."""
    whole, read = hashlib.sha256(), 0
    for batch in _first_epoch(data):
        _refuse_nan(batch, name)
        for array in _arrays(batch):
            whole.update(str(describe_array(array)).encode())
            read += array.nbytes
        if read > limit:
            break
    if not read:
        raise ValueError(
            f"Data must contain at least one example. Received: {name} of "
            f"type {type(data.source).__name__}, which is empty."
        )
    return whole.hexdigest()


def _unordered(data):
    """Returns a digest of the examples for each array of the batches.

    The sum of the digests of all examples does not depend on their order.
    """
    sums, read = [], 0
    for batch in _first_epoch(data):
        arrays = _arrays(batch)
        sums = sums or [0] * len(arrays)
        for place, array in enumerate(arrays):
            read += array.nbytes
            for example in array:
                text = str(describe_array(example)).encode()
                number = hashlib.sha256(text).digest()
                sums[place] += int.from_bytes(number, "big")
        if read > _WHOLE_BYTES:
            break
    return [f"{total % 2**256:064x}" for total in sums]


def _kinds(data):
    batch = next(iter(data))
    return [[a.dtype.str, list(a.shape[1:])] for a in _arrays(batch)]


def _refuse_nan(batch, name):
    """Raises an error if a target, or the weight of one, is NaN."""
    targets = training_data.as_tuple(batch)[1:]
    for array in _arrays(targets):
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ValueError(
                "Targets must be numbers. Received: "
                f"{int(np.isnan(array).sum()):,} NaN among the targets of "
                f"{name}. Remove these examples, or label them."
            )
