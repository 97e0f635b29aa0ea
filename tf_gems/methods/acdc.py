"""Training that alternates between compressed and dense phases (AC/DC)."""

import keras
import numpy as np
from keras import ops

from tf_gems.methods.trained import Trained
from tf_gems.methods.trained import WeightPruner

# Of 100 epochs, the paper trains 10 dense ones, then phases of 5 each, of
# which the last dense one takes 10, and 15 compressed ones.
_WARMUP, _PERIOD, _LAST = 0.1, 0.05, 0.15


def is_compressed(epoch, epochs):
    """Returns whether an epoch of AC/DC trains a sparse network.

    Phases have whole epochs, at least one. The first is dense, and the last
    is compressed, with a dense one before it.

    Example:

    >>> "".join("DC"[is_compressed(epoch, 12)] for epoch in range(12))
    'DCDCDCDCDDCC'
    """
    last = epochs - max(1, round(_LAST * epochs))
    period = max(1, round(_PERIOD * epochs))
    warmup = max(1, round(_WARMUP * epochs))
    if epoch >= last:
        return True
    if epoch < warmup or epoch >= last - period:
        return False
    return (epoch - warmup) // period % 2 == 0


@keras.saving.register_keras_serializable(package="tf_gems")
class ACDCCallback(WeightPruner):
    """Alternates compressed and dense training, and ends compressed.

    When a compressed phase begins, the weights with the largest `|w|` are
    kept, exactly as many as the target allows, and all others become zero.
    When a dense phase begins, all weights train again; pruned weights start
    from zero. Training starts with a dense phase for a tenth of the epochs,
    alternates after every twentieth, and is compressed for the last 15 %, as
    in the paper's training of 100 epochs. See `is_compressed`.

    In a new `tf_gems.SparseModel`, `fit` trains the weights from the first
    epoch on, for any value of `start`. In other cases, first call
    `prepare(model)` of `tf_gems.methods.ACDC`, and `compile`. Pruning depends
    only on the epoch and on the variables of the model, so a resumed run gives
    the same result.

    Epoch logs: `sparsity` and `density`.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros in compressed
            phases.
        epochs: Integer, the length of training. Defaults to `None`: the
            epochs of `fit`.
        distribution: How the kept weights are distributed over the layers, see
            `tf_gems.distributions.get`. Defaults to `"lamp"`.
        pattern: Which weights are pruned together, see `tf_gems.patterns.get`.
            Defaults to `"unstructured"`.

    Raises:
        ValueError: If an argument is out of range, the model prunes nothing or
            is in the mining phase, or some weights are pruned before training
            begins.

    Example:

    ```python
    sparse = tf_gems.SparseModel(model, start="trained")
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    sparse.fit(data, epochs=100, callbacks=[
        tf_gems.methods.ACDCCallback(0.9)])
    ```

    Reference: Peste et al., 2021, "AC/DC: Alternating Compressed/DeCompressed
    Training of Deep Neural Networks", algorithm 1.
    """

    def __init__(
        self,
        target_sparsity,
        epochs=None,
        distribution="lamp",
        pattern="unstructured",
    ):
        super().__init__(target_sparsity, epochs, distribution, pattern)

    def last_pruning(self, epochs):
        dense = [e for e in range(epochs) if not is_compressed(e, epochs)]
        return dense[-1] + 1 if dense else 0

    def on_epoch_begin(self, epoch, logs=None):
        values = [w.read_weight() for w in self._weights]
        alive = [np.asarray(w.alive) for w in self._weights]
        if epoch == 0 and not all(a.all() for a in alive):
            raise ValueError(
                "AC/DC trains all weights in its dense phases, so it must "
                f"start from a dense network. Received: '{self.model.name}', "
                "in which some weights are already pruned. Start from dense "
                "weights, or use `GradualMagnitudeCallback`."
            )
        self.set_target()
        self.forget_best(epoch)
        if not is_compressed(epoch, self._epochs):
            # Optimizers may have moved what was pruned: it starts from zero.
            masks = [np.ones(value.shape, bool) for value in values]
        elif epoch and is_compressed(epoch - 1, self._epochs):
            return
        else:
            masks = self.distribution.keep(
                [np.abs(value) for value in values],
                1.0 - self.target_sparsity,
                [weight.path for weight in self._weights],
                self.pattern,
                None,
            )
            alive = masks
        self._set(values, alive, masks)

    def _set(self, values, alive, masks):
        """Sets weights that are not alive to zero, and then the masks."""
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        for weight, value, here, mask in zip(
            self._weights, values, alive, masks, strict=True
        ):
            if not np.all(here):
                value = ops.cast(value * here, weight.weight.dtype)
                weight.weight.assign(value)
            weight.alive.assign(mask)


@keras.saving.register_keras_serializable(package="tf_gems")
class ACDC(Trained):
    """Trains the weights in alternating compressed and dense phases.

    Runs `fit` with `tf_gems.methods.ACDCCallback`. The ticket contains the
    trained weights and is accurate without further training. By default,
    magnitudes are ranked relative to their layer, see
    `tf_gems.methods.Magnitude`.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer. Defaults to `100`.
        learning_rate: See `tf_gems.methods.Trained`. Defaults to `None`: that
            of the compiled optimizer.
        distribution: See `tf_gems.distributions.get`. Defaults to `"lamp"`.
        **kwargs: `pattern`, see `tf_gems.methods.Method`.

    Example:

    ```python
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    ticket = tf_gems.methods.ACDC(0.9, learning_rate=0.1).find(sparse, data)
    ```

    Reference: Peste et al., 2021, "AC/DC: Alternating Compressed/DeCompressed
    Training of Deep Neural Networks", algorithm 1.
    """

    phase = "finetuning"

    def __init__(
        self,
        target_sparsity,
        epochs=100,
        learning_rate=None,
        distribution="lamp",
        **kwargs,
    ):
        super().__init__(
            target_sparsity,
            epochs,
            learning_rate,
            distribution=distribution,
            **kwargs,
        )

    def callback(self):
        return ACDCCallback(
            self.target_sparsity, self.epochs, self.distribution, self.pattern
        )
