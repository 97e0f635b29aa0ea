"""SNIP: pruning by the effect of a mask on the loss."""

import keras
import numpy as np

from tf_gems.methods.gradients import compiled
from tf_gems.methods.gradients import gradient
from tf_gems.methods.method import present_weights
from tf_gems.methods.saliency import Saliency
from tf_gems.methods.saliency import mean_over


@keras.saving.register_keras_serializable(package="tf_gems")
class Snip(Saliency):
    """Keeps the weights to whose masks the loss is most sensitive.

    The score is `|dL / dm| = |g * w|` at `m = 1`, with the gradient `g` of the
    loss averaged over the batches. The current weights of the model are scored.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        batches: Positive integer, the number of batches that the gradient is
            averaged over; `None` for all. Defaults to `1`.
        **kwargs: `distribution` and `pattern`, see `tf_gems.methods.Method`.

    Example:

    ```python
    sparse.compile("sgd", loss)
    ticket = tf_gems.methods.Snip(0.98, batches=10).find(sparse, data)
    ```

    Reference: Lee et al., 2019, "SNIP: Single-shot Network Pruning based on
    Connection Sensitivity", equations 4 and 5.
    """

    def scores(self, model, data):
        weights = present_weights(model)
        slope = compiled(gradient(self.loss_of(model)))
        gradients = mean_over(
            self.take(data), lambda *batch: slope(weights, *batch)
        )
        return self.check_ranking(
            [np.abs(g * w) for g, w in zip(gradients, weights, strict=True)]
        )
