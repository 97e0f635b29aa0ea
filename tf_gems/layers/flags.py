"""Yes or no for every weight, in one bit each."""

import math

import numpy as np
from keras import ops

_COUNTS = np.array([number.bit_count() for number in range(256)], "uint8")
_BITS = 1 << np.arange(8, dtype="uint8")[:, None]


class Flags:
    """Bools of a weight's shape, eight of them in a byte of a variable.

    Of `n` flags in `B = ceil(n / 8)` bytes, byte `b` holds those at the places
    `b, b + B, ..., b + 7 B`, from its lowest bit up. So each of the eight
    planes of bits is a run of the flags, and reading them in a training step
    costs what reading a byte for each would.

    It may stand where an array or a tensor of bools may.

    Args:
        layer: Keras layer that is to own the variable.
        name: String, the variable's.
        shape: Tuple of integers.

    Attributes:
        packed: `keras.Variable` of bytes, which is in every checkpoint.
        shape: Tuple of integers.
    """

    dtype = "bool"

    def __init__(self, layer, name, shape):
        self.shape = tuple(shape)
        self.size = math.prod(self.shape)
        self._bytes = -(-self.size // 8)
        self.packed = layer.add_weight(
            name=name,
            shape=(self._bytes,),
            dtype="uint8",
            initializer=lambda shape, dtype: self.all_true(),
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def assign(self, values):
        """Sets all flags; not from within a compiled step.

        Args:
            values: Array or tensor of this shape; what is not zero is `True`.
        """
        self.packed.assign(self.pack(ops.convert_to_numpy(values)))

    def pack(self, values):
        """Returns the bytes of these flags.

        Args:
            values: NumPy array of this shape.
        """
        if values.shape != self.shape:
            raise ValueError(
                "Flags have the shape of their weight. Received: shape="
                f"{values.shape} for '{self.packed.path}' of {self.shape}."
            )
        planes = np.zeros((8, self._bytes), bool)
        planes.reshape(-1)[: self.size] = np.ravel(values)
        packed = np.zeros(self._bytes, "uint8")
        for place, plane in enumerate(planes.view("uint8")):
            packed |= plane << place
        return packed

    def all_true(self):
        """Returns the bytes, a tensor, of flags that are all `True`."""
        return ops.convert_to_tensor(self.pack(np.ones(self.shape, bool)))

    def count(self):
        """Returns how many are `True`; not from within a compiled step."""
        packed = ops.convert_to_numpy(self.packed)
        return int(np.sum(_COUNTS[packed], dtype="int64"))

    def read(self):
        """Returns the flags as a bool tensor, compiled or not."""
        packed = ops.expand_dims(ops.convert_to_tensor(self.packed), 0)
        flags = ops.not_equal(ops.bitwise_and(packed, _BITS), 0)
        return ops.reshape(ops.reshape(flags, (-1,))[: self.size], self.shape)

    def __array__(self, dtype=None, copy=None):
        packed = ops.convert_to_numpy(self.packed)
        planes = [packed & bit != 0 for bit in _BITS[:, 0]]
        flags = np.concatenate(planes)[: self.size].reshape(self.shape)
        return flags if dtype is None else flags.astype(dtype)

    def __tf_tensor__(self, dtype=None, name=None):
        return ops.cast(self.read(), dtype or "bool")

    def __jax_array__(self):
        return self.read()
