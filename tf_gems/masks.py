"""Masks as pure functions of NumPy arrays: exact counts, in linear time.

A freeze has to find the `k` largest of up to 10^8 scores. Sorting them, or
`top_k` over everything, is what makes pruning libraries slow. A float32 is a
32-bit integer in disguise, so two histograms of 65,536 buckets (one for the
upper, one for the lower half of the bits) locate the k-th largest exactly.

Ties are common, because projected scores pile up at exactly 0 and 1. They are
broken by position: the score that comes first is kept first. So a mask always
has exactly as many ones as were asked for.
"""

import numpy as np

_DIGIT_BITS = 16
_DIGITS = 1 << _DIGIT_BITS


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
    keys = np.concatenate([_ordered_bits(s) for s in scores])
    if among is not None:
        # 0 lies below the key of every number, -inf included.
        keys[~np.concatenate([np.ravel(a) for a in among])] = 0
    competing = np.count_nonzero(keys)
    if not 0 <= count <= competing:
        raise ValueError(
            "`count` must lie between 0 and the number of competing scores "
            f"({competing}). Received: count={count}"
        )
    mask = _largest_keys(keys, count)
    ends = np.cumsum([np.size(s) for s in scores])
    return [
        part.reshape(np.shape(s))
        for part, s in zip(np.split(mask, ends[:-1]), scores, strict=True)
    ]


def _ordered_bits(scores):
    """Maps float32 to uint32 so that the order of numbers is kept."""
    scores = np.ravel(np.asarray(scores, "float32"))
    if np.isnan(scores).any():
        raise ValueError(
            "Scores must be numbers to be ranked. Received: scores with NaN. "
            "Training has diverged: lower the learning rate of the scores."
        )
    bits = (scores + np.float32(0)).view("uint32")  # -0.0 + 0.0 is 0.0
    sign = np.uint32(1 << 31)
    return np.where(bits & sign, ~bits, bits | sign)


def _largest_keys(keys, count):
    """Bool array marking the `count` largest keys, first come first kept."""
    if count == 0:
        return np.zeros(keys.shape, bool)
    high = keys >> _DIGIT_BITS
    high_digit, missing = _digit_of_kth_largest(high, count)
    low = keys[high == high_digit] & np.uint32(_DIGITS - 1)
    low_digit, missing = _digit_of_kth_largest(low, missing)
    threshold = np.uint32(high_digit << _DIGIT_BITS | low_digit)
    mask = keys > threshold
    mask[np.flatnonzero(keys == threshold)[:missing]] = True
    return mask


def _digit_of_kth_largest(digits, k):
    """The k-th largest digit, and how many of its equals belong to the k."""
    at_least = np.cumsum(np.bincount(digits, minlength=_DIGITS)[::-1])
    position = int(np.searchsorted(at_least, k))
    larger = int(at_least[position - 1]) if position else 0
    return _DIGITS - 1 - position, k - larger
