"""RigL: sparse training with connections that grow where the gradient is."""

import itertools

import keras
import numpy as np
from keras import ops

from tf_gems import training_data
from tf_gems.methods.dynamic_sparse_training import DynamicSparseTraining
from tf_gems.methods.gradients import compiled
from tf_gems.methods.gradients import gradient
from tf_gems.methods.saliency import Saliency
from tf_gems.methods.saliency import take_batches
from tf_gems.network import gems_of
from tf_gems.network import prunable_weights


@keras.saving.register_keras_serializable(package="tf_gems")
class RigL(DynamicSparseTraining):
    """Drops the smallest weights, and grows those with the largest gradient.

    The weights that grow have the largest `|dL / dw|` among those that are not
    alive. This is the gradient of the dense weight at the masked network, on
    one batch. Update `u` uses batch `u` of the data in its order, and starts
    from the first batch again after the last one, so a resumed run uses the
    same batches.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        **kwargs: See `tf_gems.methods.DynamicSparseTraining`.

    Example:

    ```python
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    rigl = tf_gems.methods.RigL(0.9, epochs=100, learning_rate=0.1)
    ticket = rigl.find(sparse, data, directory="training")

    # Or in a `fit` of your own:
    rigl.prepare(sparse)
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    sparse.fit(data, epochs=100, callbacks=[rigl.callback(data)])
    ```

    Reference: Evci et al., 2020, "Rigging the Lottery: Making All Tickets
    Winners", algorithm 1.
    """

    def growth(self, data):
        return _GradientSizes(training_data.read(data))


class _GradientSizes:
    """The size of the gradient for every weight, pruned ones included."""

    def __init__(self, data):
        if data is None or data.gives_batches_once:
            raise ValueError(
                "RigL reads batches in addition to those of `fit`. Received: "
                f"{_kind(data)}. Pass arrays, a list of batches, a "
                "`PyDataset` or a `tf.data.Dataset`."
            )
        self._batches = _Cycle(data)
        self._model = None

    def __call__(self, model, values, update):
        if model is not self._model:
            self._trace(model)
        [batch] = take_batches([self._batches.take(update - 1)], 1)
        others = [ops.convert_to_tensor(v) for v in self._others]
        return [np.abs(g) for g in self._slope(values, others, *batch)]

    def _trace(self, model):
        fixed = {id(w.weight) for w in prunable_weights(model)}
        fixed |= {id(v) for gem in gems_of(model) for v in gem.own_variables()}
        # On JAX what a compiled function does not take it never sees change.
        self._others = [v for v in model.variables if id(v) not in fixed]

        loss = Saliency(0.0).loss_of(model, self._others)

        def of_values(values, others, *batch):
            return loss([*values, *others], *batch)

        self._slope = compiled(gradient(of_values))
        self._model = model


def _kind(data):
    if data is None:
        return "data=None"
    kind = type(data.source).__name__
    return f"data of type {kind}, which yields each batch only once"


class _Cycle:
    """The batches of data, again and again, by their places."""

    def __init__(self, data):
        self._data = data
        self._batches = itertools.chain.from_iterable(itertools.repeat(data))
        self._next = 0

    def take(self, place):
        """Returns the batch at a place that is later than the last one."""
        if self._data.has_places:
            return self._data[place % len(self._data)]
        skipped = place - self._next
        self._next = place + 1
        return next(itertools.islice(self._batches, skipped, None))
