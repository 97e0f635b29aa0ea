"""How the stored values of a weight are encoded, without loss.

Four codings, of which the first that is exact is taken:

* `"constant"`: one value, which all have, as initial statistics do;
* `"signs"`: floats of one magnitude, as those of `SignedConstant`: the
  magnitude, and a bit for each value, 1 where it is negative;
* `"float16"`: floats that half precision holds exactly (or that the user
  wants rounded);
* `"plain"`: all of them in their own type.

Equal means equal in every bit, so that NaN and -0.0 stay what they are.
"""

import numpy as np

CODINGS = ("constant", "signs", "float16", "plain")
_FLOATS = ("float16", "float32", "float64")


def choose(values, dtype=None):
    """Returns the coding of an array.

    Returns:
        One of `CODINGS`.

    Raises:
        ValueError: If a number is too large to be rounded to half precision.

    Example:

    >>> choose(np.array([0.1, -0.1, 0.1]))
    'signs'
    """
    bits = values.view(f"u{values.itemsize}")
    if values.size and np.all(bits == bits[0]):
        return "constant"
    if values.dtype.name not in _FLOATS:
        return "plain"
    magnitudes = np.abs(values).view(bits.dtype)
    if values.size and np.all(magnitudes == magnitudes[0]):
        return "signs"
    if values.itemsize == 2:
        return "plain"
    # What is too large becomes infinite, what is no number may change its bits.
    with np.errstate(over="ignore", invalid="ignore"):
        half = values.astype("float16")
        exact = np.array_equal(half.astype(values.dtype).view(bits.dtype), bits)
    if exact:
        return "float16"
    if dtype != "float16":
        return "plain"
    if np.any(np.isinf(half) & np.isfinite(values)):
        raise ValueError(
            "Half precision holds numbers up to 65504. Received: "
            f"dtype='float16' for {np.max(np.abs(values)):.6g}. Save with "
            "full precision."
        )
    return "float16"


def sizes(coding, dtype, count):
    """Returns the bits of signs and the bytes of numbers that are written.

    Returns:
        Pair of integers.
    """
    itemsize = np.dtype(dtype).itemsize
    if coding in ("constant", "signs"):
        return count * (coding == "signs"), itemsize
    return 0, count * (2 if coding == "float16" else itemsize)


def fits(coding, dtype, count):
    """Returns whether values of this type and number can be so coded."""
    if coding in ("constant", "signs") and not count:
        return False
    return coding in ("constant", "plain") or (
        coding in CODINGS and dtype in _FLOATS
    )


def encode(values, coding):
    """Returns the signs, an array of bits, and the bytes of numbers."""
    signs = np.zeros(0, "uint8")
    if coding == "signs":
        signs = np.signbit(values).astype("uint8")
        values = np.abs(values[:1])
    elif coding == "constant":
        values = values[:1]
    elif coding == "float16":
        values = values.astype("float16")
    return signs, values.astype(_little(values.dtype)).tobytes()


def decode(signs, data, coding, dtype, count):
    """Returns the values that `encode` has written.

    Returns:
        Array of one dimension.
    """
    stored = np.dtype("float16" if coding == "float16" else dtype)
    values = np.frombuffer(data, _little(stored)).astype(stored, copy=False)
    if coding == "constant":
        return np.repeat(values, count)
    if coding == "signs":
        return np.where(signs, -values, values)
    return values.astype(dtype, copy=False)


def _little(dtype):
    return dtype.newbyteorder("<")
