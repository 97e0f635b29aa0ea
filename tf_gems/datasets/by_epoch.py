"""Pipelines whose order is a function of the epoch."""

import numpy as np

from tf_gems.validation import check_function
from tf_gems.validation import check_integer
from tf_gems.validation import check_positive_integer


def by_epoch(pipeline, seed=0, length=None):
    """Creates a `tf.data.Dataset` that depends only on a seed and the epoch.

    A shuffled `tf.data` pipeline depends on how often it was read, so a
    resumed run reads other batches than an uninterrupted one. Here the
    pipeline of an epoch is created from the epoch number. The method
    `set_epoch` sets this number, see `tf_gems.callbacks.SetEpoch`. Until it is
    called, a random number is used for each reading.

    Args:
        pipeline: Function from an int64 tensor `[seed, epoch]`, which is a
            seed for the stateless functions of `tf.random` and `tf.image`, to
            the `tf.data.Dataset` of that epoch.
        seed: Integer. Defaults to `0`.
        length: Integer, number of elements in an epoch, if known. Defaults to
            `None`.

    Returns:
        `tf.data.Dataset` with a method `set_epoch(epoch)`.

    Example:

    ```python
    def shuffled(seed):
        order = tf.random.experimental.stateless_shuffle(tf.range(n), seed)
        return tf.data.Dataset.from_tensor_slices(order).map(read).batch(64)

    batches = tf_gems.datasets.by_epoch(shuffled, seed=0)
    ```
    """
    import tensorflow as tf

    check_function(pipeline, "pipeline")
    check_integer(seed, "seed")
    if length is not None:
        check_positive_integer(length, "length")
    current = _Epoch()

    def of_reading(drawn):
        epoch = tf.numpy_function(current.get, [], tf.int64)
        epoch = tf.where(epoch < 0, drawn, tf.ensure_shape(epoch, []))
        return pipeline(tf.stack([tf.constant(seed, tf.int64), epoch]))

    data = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
    data = data.take(1).flat_map(of_reading)
    if length is not None:
        data = data.apply(tf.data.experimental.assert_cardinality(length))
    options = tf.data.Options()
    # Autotuning delays the end of every short `fit` by up to its own time.
    options.autotune.enabled = False
    data = data.prefetch(2).with_options(options)
    data.set_epoch = current.set
    return data


class _Epoch:
    """The epoch of a pipeline, -1 if it was not set."""

    def __init__(self):
        self.set(None)

    def get(self):
        return self._epoch

    def set(self, epoch):
        self._epoch = np.int64(-1 if epoch is None else epoch)
