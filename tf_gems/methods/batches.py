"""Batches of data, and means over them."""

import itertools

import keras
import numpy as np

from tf_gems import training_data


def take_batches(data, count):
    """Returns `count` batches of data, as tuples of arrays; `None` for all.

    Args:
        data: See `tf_gems.training_data.read`.
        count: Positive integer, or `None`.

    Raises:
        ValueError: If there are fewer, or none.
    """
    data = training_data.read(data)
    if data is None:
        raise ValueError(
            "This method looks at data. Received: data=None. Pass what `fit` "
            "takes: arrays `x` and `y`, or a data set of batches `(x, y)`."
        )
    if count is None and _never_ends(data):
        raise ValueError(
            "All batches of an epoch are taken. Received: batches=None, of "
            f"data of type {type(data.source).__name__}, which never ends. "
            "Give `steps_per_epoch`, or a number of `batches`."
        )
    found = list(itertools.islice(data, count))
    if len(found) < (count or 1):
        raise ValueError(
            "`data` must hold as many batches as asked for. Received: "
            f"{len(found)} batches, for batches={count}. Lower `batches`."
        )
    return [keras.tree.map_structure(_to_array, batch) for batch in found]


def mean_over(batches, function):
    """Averages lists of arrays over batches, each example counting once.

    Args:
        batches: List of tuples of arrays.
        function: Takes a batch, returns a list of means over its examples.
    """
    total = None
    sizes = [int(keras.tree.flatten(b)[0].shape[0]) for b in batches]
    for batch, size in zip(batches, sizes, strict=True):
        parts = [size * np.asarray(mean) for mean in function(*batch)]
        if total is None:
            total = parts
        else:
            total = [a + b for a, b in zip(total, parts, strict=True)]
    return [part / sum(sizes) for part in total]


def _to_array(value):
    composite = type(value).__name__ in ("RaggedTensor", "SparseTensor")
    if value is None or composite:
        return value
    if hasattr(value, "detach"):  # of torch, perhaps on an accelerator
        value = value.detach().cpu()
    return np.asarray(value)


def _never_ends(data):
    """Whether a data set says so itself; of a generator nobody knows."""
    if data.steps is not None:
        return False
    if training_data.is_indexed(data.source):
        return data.source.num_batches is None
    return bool(getattr(data.source, "cardinality", int)() == -1)
