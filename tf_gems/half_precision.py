"""The precision of computation in 16 bits."""

from tf_gems import _keras

# What outputs may differ by, as a share of the largest: a few units in the
# last of 11 or 8 bits, each layer adding its own.
HALF_TOLERANCE = {None: 0.0, "float16": 1e-2, "bfloat16": 5e-2}


def half_precision(model):
    """Returns the type of 16 bits that a model computes in, or `None`."""
    types = {part.compute_dtype for part in _keras.flatten_layers(model)}
    for name in ("bfloat16", "float16"):
        if name in types:
            return name
    return None
