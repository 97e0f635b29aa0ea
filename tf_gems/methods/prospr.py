"""ProsPr: pruning by the effect of a mask on the loss after a few steps."""

import keras
import numpy as np
from keras import ops

from tf_gems.methods.gradients import compiled
from tf_gems.methods.gradients import gradient
from tf_gems.methods.method import present_weights
from tf_gems.methods.saliency import Saliency
from tf_gems.methods.saliency import mean_over
from tf_gems.network import gems_of
from tf_gems.network import prunable_weights
from tf_gems.validation import check_number
from tf_gems.validation import is_integer


@keras.saving.register_keras_serializable(package="tf_gems")
class ProsPr(Saliency):
    """Keeps the weights whose masks have the largest effect on training.

    `M` steps of gradient descent update all trainable variables, starting from
    the current weights `w_0`, with one batch per step: `w_{t+1} = w_t -
    learning_rate * grad L(w_t; batch_t)`. The score is the sensitivity of the
    loss on the next batch to a mask on `w_0`, through these steps: `|dL(w_M) /
    dm| = |w_0 * dL(w_M) / dw_0|` at `m = 1`. Without steps it is the score of
    `tf_gems.methods.Snip`.

    The steps use plain gradient descent, not the compiled optimizer, and the
    weights of the model are not changed.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        steps: Integer `M`, at least 0. Memory grows with it. Defaults to `3`.
        learning_rate: Positive float, learning rate of these steps. Defaults
            to `0.1`.
        batches: Integer above `steps`. The loss after the steps is averaged
            over the remaining batches. Defaults to `None`: `steps + 1`.
        **kwargs: `distribution` and `pattern`, see `tf_gems.methods.Method`.

    Example:

    ```python
    sparse.compile("sgd", loss)
    ticket = tf_gems.methods.ProsPr(0.98).find(sparse, data)
    ```

    Reference: Alizadeh et al., 2022, "Prospect Pruning: Finding Trainable
    Weights at Initialization Using Meta-Gradients", section 3.
    """

    def __init__(
        self,
        target_sparsity,
        steps=3,
        learning_rate=0.1,
        batches=None,
        **kwargs,
    ):
        if not is_integer(steps) or not (
            batches is None or is_integer(batches, steps + 1)
        ):
            raise ValueError(
                "Each step uses one batch, and the final loss uses one more. "
                f"Received: steps={steps!r}, batches={batches!r}. Use "
                "`batches=None`, or more than `steps`, which is at least 0."
            )
        super().__init__(target_sparsity, batches or steps + 1, **kwargs)
        self.steps = int(steps)
        self.learning_rate = check_number(
            learning_rate, "learning_rate", above=0
        )

    def scores(self, model, data):
        weights = present_weights(model)
        others = _other_weights(model)
        loss = self.loss_of(model, others)
        first_slope = gradient(loss)

        def loss_after_steps(masked, rest, steps, *batch):
            values = [*masked, *rest]
            for step in steps:
                slopes = first_slope(values, *step)
                values = [
                    v - self.learning_rate * g
                    for v, g in zip(values, slopes, strict=True)
                ]
            return loss(values, *batch)

        batches = self.take(data)
        steps, last = batches[: self.steps], batches[self.steps :]
        slope = compiled(gradient(loss_after_steps))
        rest = [ops.convert_to_numpy(v) for v in others]
        gradients = mean_over(
            last, lambda *batch: slope(weights, rest, steps, *batch)
        )
        return self.check_ranking(
            [np.abs(g * w) for g, w in zip(gradients, weights, strict=True)]
        )


def _other_weights(model):
    """Returns what fine-tuning trains beside the prunable weights."""
    prunable = {id(w.weight) for w in prunable_weights(model)}
    return [
        v
        for gem in gems_of(model)
        for v in gem.report.trainable
        if id(v) not in prunable
    ]
