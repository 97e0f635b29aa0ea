"""Masks as pure functions of NumPy arrays: exact counts, in linear time.

A freeze has to find the `k` largest of up to 10^8 scores. The k-th largest
alone decides, and `np.partition` selects it without sorting the others. What
costs most at such sizes is memory that is touched for the first time: there
is one copy of the scores, which is partitioned in its place.

Ties are common, because projected scores pile up at exactly 0 and 1. They are
broken by position: the score that comes first is kept first. So a mask always
has exactly as many ones as were asked for.
"""

import numpy as np

# Passes over large arrays go in pieces that stay in the cache.
_PIECE = 1 << 16


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
    scores = [np.asarray(s, "float32") for s in scores]
    if any(s.size and np.isnan(np.min(s)) for s in scores):
        raise ValueError(
            "Scores must be numbers to be ranked. Received: scores with NaN. "
            "Training has diverged, or the weights or the data hold NaN: "
            "lower the learning rate, or look at them."
        )
    sizes = [s.size for s in scores]
    if among is not None:
        sizes = [np.count_nonzero(a) for a in among]
    competing = int(sum(sizes))
    if not 0 <= count <= competing:
        raise ValueError(
            "`count` must lie between 0 and the number of competing scores "
            f"({competing}). Received: count={count}"
        )
    masks = [np.zeros(s.shape, bool) for s in scores]
    if count == 0:
        return masks
    among = among or [None for _ in scores]
    threshold = _find_threshold(scores, count, among)
    for mask, score, competes in zip(masks, scores, among, strict=True):
        np.greater(score, threshold, out=mask)
        if competes is not None:
            mask &= competes
    missing = count - sum(np.count_nonzero(mask) for mask in masks)
    for mask, score, competes in zip(masks, scores, among, strict=True):
        missing -= _add_tied(mask, score, competes, threshold, missing)
    return masks


def _find_threshold(scores, count, among):
    """Returns the score of rank `count` among those that compete."""
    flat = np.empty(sum(s.size for s in scores), "float32")
    start = 0
    for score, competes in zip(scores, among, strict=True):
        part, score = flat[start : start + score.size], np.ravel(score)
        part[:] = score
        if competes is not None:
            _sink_others(part, np.ravel(competes))
        start += score.size
    place = flat.size - count
    flat.partition(place)
    return flat[place]


def _sink_others(scores, competes):
    """Sets what does not compete to minus infinity, in its place."""
    for start in range(0, scores.size, _PIECE):
        piece = slice(start, start + _PIECE)
        # Infinite, of either sign: a fifth of the time of `np.where`.
        limits = (competes[piece].astype("float32") - 0.5) * np.inf
        np.minimum(scores[piece], limits, out=scores[piece])


def _add_tied(mask, scores, competes, threshold, missing):
    """Adds the first that equal the threshold, and returns how many."""
    added = 0
    mask, scores = mask.reshape(-1), np.ravel(scores)
    competes = None if competes is None else np.ravel(competes)
    for start in range(0, mask.size, _PIECE):
        if added == missing:
            break
        piece = slice(start, start + _PIECE)
        tied = scores[piece] == threshold
        if competes is not None:
            tied &= competes[piece]
        first = np.flatnonzero(tied)[: missing - added]
        mask[piece][first] = True
        added += first.size
    return added
