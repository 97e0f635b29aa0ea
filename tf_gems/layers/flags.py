"""A Boolean flag for every weight, stored in one bit.

A mask has these forms, and is converted between them in one place each:

* a NumPy bool array, by path in a `tf_gems.Ticket`, wherever no step runs;
* in a training step, a float32 tensor with a gradient to the scores, which
  `GemLayer.masks` computes; `GemLayer.current_masks` are its bool arrays;
* in a variable, and so in every checkpoint, the words of `Flags`;
* in a ticket file, the Rice code of `tf_gems.ticket_file.positions`.
"""

import math

import numpy as np
from keras import ops

from tf_gems.layers.calling import add_state

_COUNTS = np.array([number.bit_count() for number in range(256)], "uint8")
# Words, not bytes: workers of `tf.distribute` exchange no bytes.
_BITS = (1 << np.arange(32, dtype="uint32"))[:, None].view("int32")


class Flags:
    """Bools of a weight's shape, 32 of them in a word of a variable.

    Of `n` flags in `W = ceil(n / 32)` words, word `i` holds those at the places
    `i, i + W, ..., i + 31 W`, from its lowest bit up. So each of the 32 planes
    of bits is a contiguous run of flags, and reading them in a training step
    costs as much as reading bytes.

    `np.asarray(flags)` is a NumPy bool array. In a compiled step, `read`
    returns a bool tensor.

    Attributes:
        packed: `keras.Variable` of int32, which is in every checkpoint.
        shape: Tuple of integers.
    """

    def __init__(self, layer, name, shape):
        self.shape = tuple(shape)
        self.size = math.prod(self.shape)
        self._words = -(-self.size // 32)
        self.packed = add_state(
            *(layer, name, "int32", (self._words,)),
            lambda shape, dtype: self.all_true(),
        )

    def assign(self, values):
        """Sets all flags, where nonzero; not from within a compiled step."""
        self.packed.assign(self.pack(ops.convert_to_numpy(values)))

    def pack(self, values):
        """Returns the words of flags, both NumPy arrays."""
        # The function `pack` would need four bytes a flag.
        if values.shape != self.shape:
            raise ValueError(
                "Flags must have the shape of their weight. Received: "
                f"shape={values.shape} for '{self.packed.path}' of "
                f"{self.shape}."
            )
        planes = np.zeros((32, self._words), bool)
        planes.reshape(-1)[: self.size] = np.ravel(values)
        packed = np.zeros(self._words, "uint32")
        for place, plane in enumerate(planes):
            packed |= plane.astype("uint32") << place
        return packed.view("int32")

    def all_true(self):
        """Returns the words, a tensor, of flags that are all `True`."""
        return ops.convert_to_tensor(self.pack(np.ones(self.shape, bool)))

    def count(self):
        """Returns how many are `True`; not from within a compiled step."""
        packed = ops.convert_to_numpy(self.packed)
        return int(np.sum(_COUNTS[packed.view("uint8")], dtype="int64"))

    def read(self):
        """Returns the flags as a bool tensor, compiled or not."""
        return unpack(ops.convert_to_tensor(self.packed), self.shape)

    def __array__(self, dtype=None, copy=None):
        packed = ops.convert_to_numpy(self.packed)
        planes = [packed & bit != 0 for bit in _BITS[:, 0]]
        flags = np.concatenate(planes)[: self.size].reshape(self.shape)
        return flags if dtype is None else flags.astype(dtype)


def pack(values):
    """Returns the words of flags, an int32 tensor, compiled or not."""
    size = math.prod(values.shape)
    words = -(-size // 32)
    planes = ops.cast(ops.reshape(values, (-1,)), "int32")
    planes = ops.pad(planes, [(0, 32 * words - size)])
    # Each bit occurs once, so the sum has no carries.
    return ops.sum(ops.reshape(planes, (32, words)) * _BITS, axis=0)


def unpack(words, shape):
    """Returns flags as a bool tensor, compiled or not."""
    # A cast, not a comparison: TensorFlow has no kernel for that of int32 on
    # a GPU, and would take it to the host in every step.
    flags = ops.cast(ops.bitwise_and(words, _BITS), "bool")
    return ops.reshape(ops.reshape(flags, (-1,))[: math.prod(shape)], shape)
