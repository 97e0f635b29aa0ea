"""Arrays cut into batches."""

import keras
import numpy as np


class ArrayBatches(keras.utils.PyDataset):
    """Arrays cut into batches, in an order that follows from the epoch.

    Args:
        arrays: Tuple of nested structures of arrays, of equal lengths.
        batch_size: Positive integer.
        shuffle: Whether each epoch has an order of its own.
        steps: Integer, batches of an epoch, which starts from the first
            example again where they are more than there are. Defaults to
            `None`: all batches.
    """

    def __init__(self, arrays, batch_size, shuffle, steps=None):
        super().__init__()
        self.arrays = arrays
        self.size = common_length(arrays)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self._goes_round = steps is not None
        self.steps = steps or -(-self.size // batch_size)
        self._epoch, self._order = None, None
        self.set_epoch(0)

    def set_epoch(self, epoch):
        """Sets the epoch from which the order follows; `None` is the first."""
        epoch = epoch or 0
        if self._epoch == epoch:
            return
        turns = -(-self.steps * self.batch_size // self.size)
        orders = []
        for turn in range(turns if self._goes_round else 1):
            order = np.arange(self.size)
            if self.shuffle:
                np.random.default_rng([epoch, turn]).shuffle(order)
            orders.append(order)
        self._epoch, self._order = epoch, np.concatenate(orders)

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        if not 0 <= index < self.steps:
            raise IndexError(index)
        begin = index * self.batch_size
        places = self._order[begin : begin + self.batch_size]
        return keras.tree.map_structure(
            lambda array: rows(array, places), self.arrays
        )


def common_length(arrays):
    """Returns the number of examples, which is that of every array."""
    sizes = {a.shape[0] for a in keras.tree.flatten(arrays)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "All arrays must have the same number of examples, at least one. "
            f"Received: arrays of {sorted(map(int, sizes))} examples."
        )
    return int(sizes.pop())


def to_rows(array):
    """Returns what rows can be taken of, with the dtypes that `fit` uses."""
    kind = f"{type(array).__module__}.{type(array).__name__}"
    if kind.startswith("pandas."):
        is_series = array.ndim == 1
        array = array.to_numpy()
        array = array[:, None] if is_series else array
    elif kind.startswith("torch."):
        array = array.detach().cpu().numpy()
    elif kind.endswith(".RaggedTensor") or kind.startswith("scipy.sparse."):
        return array
    elif kind.endswith(".SparseTensor"):
        raise ValueError(
            "Arrays are split into batches along their first axis. Received: "
            "a SparseTensor. Pass a `tf.data.Dataset` of batches."
        )
    array = np.asarray(array)
    if not array.ndim:
        raise ValueError(
            "Data must be arrays with an axis of examples. Received: "
            f"{array!r}. Convert lists of numbers with `np.array(values)`."
        )
    if array.dtype.kind == "O" and array.size:
        if not isinstance(array.flat[0], str | bytes):  # mixed numbers
            array = array.astype(keras.config.floatx())
    # Of other kinds are integers, bools and strings.
    if "float" in array.dtype.name:
        array = array.astype(keras.config.floatx(), copy=False)
    return array


def rows(array, places):
    """Returns the rows of an array at some places, as `fit` takes them."""
    if type(array).__name__ == "RaggedTensor":
        import tensorflow as tf

        return tf.gather(array, places)
    found = array[places]
    if getattr(found, "dtype", None) is not None and found.dtype.kind in "OUS":
        import tensorflow as tf  # the only backend that has strings

        return tf.convert_to_tensor(found, "string")
    return found
