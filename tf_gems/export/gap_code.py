"""The code of sparse constants in a SavedModel: gaps and values.

The kept weights of a flat array are stored in order, each with its *gap*: the
distance from the kept weight before it, or from the start. Gaps are unsigned
integers of 8, 16 or 32 bits, whichever needs the fewest bytes in all. Where a
gap is larger than the type holds, zeros are stored on the way, as in Han et
al., 2016, "Deep Compression" (https://arxiv.org/abs/1510.00149).
"""

import numpy as np

_TYPES = ("uint8", "uint16", "int32")


def encode(flat):
    """Encodes a flat array.

    Args:
        flat: Array of rank 1 with fewer than 2**31 elements.

    Returns:
        `(values, gaps)`: two arrays of the same length. Element `i` of
        `values` stands at the sum of `gaps[:i + 1]`.

    Example:

    >>> values, gaps = encode(np.array([0.0, 0.0, 5.0, 0.0, 7.0]))
    >>> values.tolist(), gaps.tolist(), gaps.dtype.name
    ([5.0, 7.0], [2, 2], 'uint8')
    """
    places = np.flatnonzero(flat)
    return encode_kept(places, flat[places], flat.size)


def encode_kept(places, kept_values, size):
    """Encodes the kept weights of a flat array.

    Args:
        places: Array of integers, where they stand, in order.
        kept_values: Array of the same length.
        size: Integer, the length of the flat array, below 2**31.

    Returns:
        See `encode`.
    """
    if size >= 1 << 31:
        raise ValueError(
            "Gaps are summed in 32 bits. Received: an array of "
            f"{size:,} elements. Store it in parts."
        )
    gaps = np.diff(places, prepend=0)
    coded = [_with_stops(gaps, np.dtype(name)) for name in _TYPES]
    value_bytes = kept_values.dtype.itemsize
    steps, kept = min(
        coded, key=lambda c: c[0].nbytes + value_bytes * len(c[0])
    )
    values = np.zeros(len(steps), kept_values.dtype)
    values[kept] = kept_values
    return values, steps


def _with_stops(gaps, dtype):
    """Splits gaps that are too large for a type.

    Returns:
        `(steps, kept)`: the gaps as that type, and the positions among them
        of those that end at a kept weight.
    """
    largest = np.iinfo(dtype).max
    # A gap of exactly a multiple of the largest ends on its last full step.
    stops = np.maximum(gaps - 1, 0) // largest
    kept = np.cumsum(stops + 1) - 1
    steps = np.full(len(gaps) + stops.sum(), largest, dtype)
    steps[kept] = gaps - stops * largest
    return steps, kept.astype("int64")
