"""Masks with exact counts as pure functions of NumPy arrays.

A freeze selects the `k` largest of up to 10^8 scores, in linear time. The k-th
largest is found as in a radix sort: the upper halves of the bits of all scores
are counted, then the lower halves of the scores with the upper half of the
k-th. `np.partition` is faster if all scores differ, but takes seconds if most
scores are equal, which is common for clipped and frozen scores. No array is
copied as a whole, because the first access to new memory dominates the time.

Ties are common, because many scores are clipped to exactly 0 or 1. They are
broken by position: the first entry is kept. A mask therefore always has
exactly the requested number of ones.
"""

import numpy as np

from tf_gems.validation import check_integer

# Passes over large arrays go in pieces that stay in the cache.
_PIECE = 1 << 18


def keep_largest(scores, count, among=None):
    """Returns masks of the `count` largest scores of a network.

    Args:
        scores: List of float arrays of any shapes, ranked together.
        count: Integer, number of entries to keep in all arrays together.
        among: Optional list of bool arrays of the same shapes; entries that
            are `False` are never kept. Defaults to all entries.

    Returns:
        List of bool arrays, shaped like `scores`, with exactly `count` ones.

    Raises:
        ValueError: If a score is NaN, or fewer than `count` entries are
            ranked.

    Example:

    >>> [mask] = keep_largest([np.array([0.1, 0.7, 0.7, 0.7])], 2)
    >>> mask
    array([False,  True,  True, False])
    """
    scores = _arrays(scores, "float32", "scores")
    count = check_integer(count, "count")
    if among is not None:
        among = _arrays(among, "bool", "among")
        if [a.shape for a in among] != [s.shape for s in scores]:
            raise ValueError(
                "`among` must have the shapes of the scores. Received: among "
                f"of shapes {[a.shape for a in among]}, scores of shapes "
                f"{[s.shape for s in scores]}."
            )
    if any(s.size and np.isnan(np.min(s)) for s in scores):
        raise ValueError(
            "Scores must be numbers to be ranked. Received: scores with NaN. "
            "The training has diverged, or the weights or the data contain "
            "NaN. Reduce the learning rate, or check the data."
        )
    sizes = [s.size for s in scores]
    if among is not None:
        sizes = [np.count_nonzero(a) for a in among]
    competing = int(sum(sizes))
    if not 0 <= count <= competing:
        raise ValueError(
            "`count` must lie between 0 and the number of competing scores "
            f"({competing}). Received: count={count}."
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


def _arrays(values, dtype, name):
    """Returns arrays of a list, or raises an error if it is none."""
    if isinstance(values, list | tuple) and values:
        try:
            found = [np.asarray(value) for value in values]
            if all(array.dtype.kind in "biufV" for array in found):
                return [np.asarray(array, dtype) for array in found]
        except (TypeError, ValueError):
            pass
    raise ValueError(
        f"`{name}` must be a list of arrays of numbers, one for each weight. "
        f"Received: {name}={values!r:.300}."
    )


def _find_threshold(scores, count, among):
    """Returns the score of rank `count` among those that compete."""

    def all_bits():
        for score, competes in zip(scores, among, strict=True):
            yield from _bits(score, competes)

    half, whole = 1 << 15, 1 << 16
    # Of negative numbers the bits tell the magnitude: they come last, and of
    # them the smallest bits first.
    order = np.r_[half - 1 : -1 : -1, half:whole]
    upper, count = _find_half((b >> 16 for b in all_bits()), order, count)
    order = np.r_[:whole] if upper >= half else np.r_[whole - 1 : -1 : -1]
    lower = ((b & 0xFFFF)[b >> 16 == upper] for b in all_bits())
    lower, _ = _find_half(lower, order, count)
    return np.array(upper << 16 | lower, "uint32").view("float32")[()]


def _bits(scores, competes):
    """Yields the bits of the scores that compete, in pieces."""
    scores = np.ravel(scores)
    for start in range(0, scores.size, _PIECE):
        piece = scores[start : start + _PIECE]
        if competes is not None:
            chosen = np.ravel(competes)[start : start + _PIECE]
            piece = piece[np.flatnonzero(chosen)]  # faster than by bools
        yield (piece + np.float32(0)).view("uint32")  # -0.0 is as 0.0


def _find_half(pieces, order, count):
    """Returns the half of rank `count`, and its rank among its equals.

    Args:
        pieces: Arrays of halves.
        order: Array of all halves, the highest rank first.
        count: Integer, from 1 for the highest rank.
    """
    counts = np.zeros(order.size, "int64")
    for piece in pieces:
        if piece.size and piece[0] == piece[-1] == piece[piece.size // 2]:
            # Most may be equal: a bin that is hit again and again is slow.
            others = piece[piece != piece[0]]
            counts[piece[0]] += piece.size - others.size
            piece = others
        found = np.bincount(piece)
        counts[: found.size] += found
    counts = counts[order]
    place = np.searchsorted(np.cumsum(counts), count)
    return int(order[place]), count - int(counts[:place].sum())


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
