"""Makes Keras train with several workers of `tf.distribute`."""

import contextlib

import keras
from keras import ops

from tf_gems import _keras


def scope_of(model):
    """Returns the scope of the strategy of a model, if it has one."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy else contextlib.nullcontext()


def prepare(model):
    """Prepares a model so that `fit` and `evaluate` run on several workers.

    With `MultiWorkerMirroredStrategy`, Keras 3.15 averages the first batch and
    scalar logs over the workers, which fails. A prepared model uses the shapes
    of the worker's own batch, and logs that are vectors of one entry. A
    `SparseModel` does not need this call.

    Args:
        model: Keras model, created in the scope of its strategy. With any
            other strategy it is not changed.

    Returns:
        The model.

    Example:

    ```python
    with tf.distribute.MultiWorkerMirroredStrategy().scope():
        model = tf_gems.workers.prepare(network())
        model.compile("sgd", "mse")
    ```
    """
    strategy = getattr(model, "distribute_strategy", None)
    extended = getattr(strategy, "extended", None)
    if not getattr(extended, "_in_multi_worker_mode", bool)():
        return model

    def build(iterator=None, data_batch=None):
        if iterator is not None:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(
                    lambda x: strategy.experimental_local_results(x)[0],
                    next(batches),
                )
                break
        with strategy.scope():
            _keras.build_on_batch(model, data_batch)

    def of_vectors(step):
        def run_step(data):
            return keras.tree.map_structure(
                lambda value: ops.reshape(value, (1,)), step(data)
            )

        return run_step

    # Past Keras' tracking: they are neither parts of the model nor saved.
    for name, function in (
        ("_maybe_symbolic_build", build),
        ("train_step", of_vectors(model.train_step)),
        ("test_step", of_vectors(model.test_step)),
    ):
        object.__setattr__(model, name, function)
    return model
