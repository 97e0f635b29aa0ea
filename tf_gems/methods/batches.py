"""Batches of data, and means over them."""

import itertools

import keras
import numpy as np


def take_batches(data, count):
    """Returns `count` batches of data, as tuples of arrays; `None` for all.

    Args:
        data: One batch as a tuple, or an iterable of batches.
        count: Positive integer, or `None`.

    Raises:
        ValueError: If there are fewer, or none.
    """
    if data is None:
        raise ValueError(
            "This method looks at data. Received: data=None. Pass a batch "
            "`(x, y)`, or an iterable of batches."
        )
    batches = [data] if isinstance(data, tuple) else data
    found = list(itertools.islice(batches, count))
    if len(found) < (count or 1):
        raise ValueError(
            "`data` must hold as many batches as asked for. Received: "
            f"{len(found)} batches, for batches={count}. Lower `batches`."
        )
    return [
        keras.tree.map_structure(_to_array, tuple(batch)) for batch in found
    ]


def mean_over(batches, function):
    """Averages lists of arrays over batches, each example counting once.

    Args:
        batches: List of tuples of arrays.
        function: Takes a batch, returns a list of means over its examples.
    """
    total = None
    sizes = [len(keras.tree.flatten(batch)[0]) for batch in batches]
    for batch, size in zip(batches, sizes, strict=True):
        parts = [size * np.asarray(mean) for mean in function(*batch)]
        if total is None:
            total = parts
        else:
            total = [a + b for a, b in zip(total, parts, strict=True)]
    return [part / sum(sizes) for part in total]


def _to_array(value):
    return None if value is None else np.asarray(value)
