"""The code of sparse weights in a SavedModel: gaps and values.

The kept weights of a flat array are stored in order, each with its *gap*: the
distance from the kept weight before it, or from the start. Gaps are unsigned
integers of 8, 16 or 32 bits, whichever needs the fewest bytes in all. Where a
gap is larger than the type holds, zeros are stored on the way, as in Han et
al., 2016, "Deep Compression" (https://arxiv.org/abs/1510.00149).

Arrays are read in pieces, so that coding takes little memory.
"""

import numpy as np

TYPES = ("uint8", "uint16", "int32")
# Places are summed in 32 bits when the file is loaded.
LARGEST = 2**31 - 1
_PIECE = 1 << 20


def smallest_type(parts, value_bytes):
    """Returns the one of `TYPES` that needs the fewest bytes.

    `parts` are the arrays of one flat array in order, with at most `LARGEST`
    elements in all; `value_bytes` are those of one value.
    """
    steps = dict.fromkeys(TYPES, 0)
    for gaps, _ in _gaps(parts):
        count = len(gaps)
        for name in TYPES:
            gaps = gaps[gaps > np.iinfo(name).max]  # most fit the smallest
            steps[name] += count + int(_stops(gaps, name).sum())
    return min(
        TYPES, key=lambda n: steps[n] * (value_bytes + np.dtype(n).itemsize)
    )


def encode(parts, gap_type):
    """Encodes a flat array, piece by piece.

    Example:

    >>> [(values, gaps)] = encode([np.array([0.0, 0, 5, 0, 7])], "uint8")
    >>> values.tolist(), gaps.tolist(), gaps.dtype.name
    ([5.0, 7.0], [2, 2], 'uint8')
    """
    largest = np.iinfo(gap_type).max
    for gaps, kept in _gaps(parts):
        if gaps.max() <= largest:
            yield kept, gaps.astype(gap_type)
            continue
        stops = _stops(gaps, gap_type)
        places = np.cumsum(stops + 1) - 1
        steps = np.full(len(gaps) + stops.sum(), largest, gap_type)
        steps[places] = gaps - stops * largest
        values = np.zeros(len(steps), kept.dtype)
        values[places] = kept
        yield values, steps


def _gaps(parts):
    """Yields the gaps and the values of what is kept in each piece."""
    start = last = 0
    for part in parts:
        flat = np.ravel(part)
        for begin in range(0, flat.size, _PIECE):
            piece = flat[begin : begin + _PIECE]
            places = np.flatnonzero(piece != 0) + start
            if places.size:
                yield np.diff(places, prepend=last), piece[places - start]
                last = places[-1]
            start += piece.size


def _stops(gaps, gap_type):
    """Returns how many zeros are stored on the way across each gap."""
    # A gap of exactly a multiple of the largest ends on its last full step.
    return np.maximum(gaps - 1, 0) // np.iinfo(gap_type).max
