"""Masks as pure functions of NumPy arrays: exact counts, in linear time.

A freeze has to find the `k` largest of up to 10^8 scores. The k-th largest
alone decides, and `np.partition` selects it without sorting the others.

Ties are common, because projected scores pile up at exactly 0 and 1. They are
broken by position: the score that comes first is kept first. So a mask always
has exactly as many ones as were asked for.
"""

import numpy as np


def keep_largest(scores, count, among=None):
    """Marks the `count` largest scores of a whole network.

    Args:
        scores: List of float arrays of any shapes, ranked together.
        count: Integer, how many entries to keep over all arrays.
        among: Optional list of bool arrays of the same shapes; entries that
            are `False` are never kept. Defaults to all entries.

    Returns:
        List of bool arrays, shaped like `scores`, with exactly `count` ones.

    Raises:
        ValueError: If a score is NaN, or fewer than `count` entries compete.

    Example:

    >>> [mask] = keep_largest([np.array([0.1, 0.7, 0.7, 0.7])], 2)
    >>> mask
    array([False,  True,  True, False])
    """
    flat = np.concatenate([np.ravel(s) for s in scores])
    flat = flat.astype("float32", copy=False)
    if np.isnan(flat).any():
        raise ValueError(
            "Scores must be numbers to be ranked. Received: scores with NaN. "
            "Training has diverged, or the weights or the data hold NaN: "
            "lower the learning rate, or look at them."
        )
    competes = slice(None)
    if among is not None:
        competes = np.concatenate([np.ravel(a) for a in among])
    competing = flat[competes]
    if not 0 <= count <= competing.size:
        raise ValueError(
            "`count` must lie between 0 and the number of competing scores "
            f"({competing.size}). Received: count={count}"
        )
    mask = np.zeros(flat.shape, bool)
    mask[competes] = _largest(competing, count)
    ends = np.cumsum([np.size(s) for s in scores])
    return [
        part.reshape(np.shape(s))
        for part, s in zip(np.split(mask, ends[:-1]), scores, strict=True)
    ]


def _largest(scores, count):
    """Bool array marking the `count` largest, of equals the first."""
    if count == 0:
        return np.zeros(scores.shape, bool)
    if count == 1:  # no need to partition
        mask = np.zeros(scores.shape, bool)
        mask[scores.argmax()] = True
        return mask
    place = scores.size - count
    threshold = np.partition(scores, place)[place]
    mask = scores > threshold
    missing = count - np.count_nonzero(mask)
    mask[np.flatnonzero(scores == threshold)[:missing]] = True
    return mask
