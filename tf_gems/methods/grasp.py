"""GraSP: pruning that preserves the flow of gradients."""

import keras

from tf_gems.methods.gradients import compiled
from tf_gems.methods.gradients import gradient
from tf_gems.methods.gradients import hessian_product
from tf_gems.methods.method import present_weights
from tf_gems.methods.saliency import Saliency
from tf_gems.methods.saliency import mean_over
from tf_gems.validation import check_number


@keras.saving.register_keras_serializable(package="tf_gems")
class Grasp(Saliency):
    """Keeps the weights that preserve the norm of the gradient.

    To first order, removing `w` changes `g . g` by `-2 w * (H g)`, with the
    gradient `g` and the Hessian `H` of the loss. The paper removes the weights
    with the largest `-w * (H g)`, so the score is `w * (H g)`. `g` and `H` are
    averaged over the batches.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        batches: Positive integer, the number of batches that `g` and `H` are
            averaged over; `None` for all. Defaults to `1`.
        temperature: Positive float by which the outputs of the model are
            divided before the loss. For logits, the authors' code uses `200`.
            Defaults to `1`.
        **kwargs: `distribution` and `pattern`, see `tf_gems.methods.Method`.

    Example:

    ```python
    sparse.compile("sgd", loss)
    ticket = tf_gems.methods.Grasp(0.98, temperature=200).find(sparse, data)
    ```

    Reference: Wang et al., 2020, "Picking Winning Tickets Before Training by
    Preserving Gradient Flow", equations 7 and 8, algorithm 2.
    """

    def __init__(self, target_sparsity, batches=1, temperature=1.0, **kwargs):
        super().__init__(target_sparsity, batches, **kwargs)
        self.temperature = check_number(temperature, "temperature", above=0)

    def outputs(self, outputs):
        return keras.tree.map_structure(
            lambda value: value / self.temperature, outputs
        )

    def scores(self, model, data):
        weights = present_weights(model)
        batches = self.take(data)
        loss = self.loss_of(model)
        slope = compiled(gradient(loss))
        curvature = compiled(hessian_product(loss))
        gradients = mean_over(batches, lambda *batch: slope(weights, *batch))
        products = mean_over(
            batches, lambda *batch: curvature(weights, gradients, *batch)
        )
        return self.check_ranking(
            [p * w for p, w in zip(products, weights, strict=True)]
        )
