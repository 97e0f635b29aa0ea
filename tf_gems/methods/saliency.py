"""What methods share that look at the loss on data."""

import keras

from tf_gems.methods.batches import take_batches
from tf_gems.methods.dense_network import weights_replaced
from tf_gems.methods.method import Method
from tf_gems.methods.method import refuse_no_ranking
from tf_gems.validation import is_integer


class Saliency(Method):
    """Base class of methods that differentiate the compiled loss.

    The weights scored are those the model has now, so initialize it, or load
    weights, before. The loss is that of `compile`, as `fit` computes it, with
    batch statistics in normalisation, but without penalties on the weights;
    no mask is in force. State does not move.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        batches: Positive integer, the number of batches that derivatives are
            averaged over; `None` for all. Defaults to `1`.
        **kwargs: `distribution` and `pattern`, see `tf_gems.methods.Method`.
    """

    def __init__(self, target_sparsity, batches=1, **kwargs):
        super().__init__(target_sparsity, **kwargs)
        if batches is not None and not is_integer(batches, 1):
            raise ValueError(
                "`batches` must be a positive integer, or `None` for all. "
                f"Received: batches={batches!r}."
            )
        self.batches = batches

    def loss_of(self, model, others=()):
        """Returns the loss as a function of the weights and of a batch.

        Args:
            model: `SparseModel`, or Keras model that holds `GemLayer`s.
            others: Variables whose values follow those of the prunable
                weights in the list.
        """
        if not model.compiled:
            raise ValueError(
                f"{type(self).__name__} differentiates the loss that the "
                f"model is compiled with. Received: '{model.name}', which is "
                "not compiled. Call `compile` with a loss first."
            )

        def loss(values, *batch):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
            end = len(values) - len(others)
            further = zip(others, values[end:], strict=True)
            with weights_replaced(model, values[:end], further):
                outputs = self.outputs(model(x, training=True))
                return model.compute_loss(
                    x, y, outputs, sample_weight, training=True
                )

        return loss

    def outputs(self, outputs):
        """Returns what the loss sees of the model's outputs."""
        return outputs

    def take(self, data):
        """Returns the batches asked for, as tuples of arrays."""
        return take_batches(data, self.batches)

    def refuse_equal(self, scores):
        """Returns scores, or raises an error if they rank nothing.

        Args:
            scores: List of float arrays.
        """
        refuse_no_ranking(scores, type(self).__name__)
        return scores

    def get_config(self):
        return {**super().get_config(), "batches": self.batches}
