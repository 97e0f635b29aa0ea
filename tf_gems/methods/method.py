"""What a pruning method looks like."""

import keras
from keras import ops

from tf_gems import allocation as allocations
from tf_gems.network import prunable_weights
from tf_gems.ticket import Ticket
from tf_gems.validation import check_sparsity


class Method:
    """Base class: scores for all prunable weights, and the ticket they give.

    A method overrides `scores`. What it has in common with the others is done
    here: as many of the largest scores as the allocation says are kept, ties
    are broken by index, and the ticket starts from the model's present
    weights. The model itself stays as it is.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        allocation: How the budget is spread over the weights, see
            `tf_gems.allocation.get`. Defaults to `"global"`.
    """

    def __init__(self, target_sparsity, allocation="global"):
        self.target_sparsity = check_sparsity(target_sparsity)
        self.allocation = allocations.get(allocation)

    def scores(self, model, data):
        """Returns the scores: the larger, the sooner a weight is kept.

        Args:
            model: `SparseModel`, or Keras model that holds `GemLayer`s.
            data: See `find`.

        Returns:
            List of float arrays, one for each prunable weight.
        """
        raise NotImplementedError

    def find(self, model, data=None):
        """Returns the ticket that this method finds in a model.

        Args:
            model: `SparseModel`, or Keras model that holds `GemLayer`s.
            data: One batch as a tuple `(x, y)` or `(x, y, sample_weight)`, or
                an iterable of batches such as a `tf.data.Dataset`. Defaults
                to `None`, for methods without data.

        Returns:
            `tf_gems.Ticket` of exactly the target sparsity; its metadata
            holds the config of the method.
        """
        masks = self.keep(
            model, self.scores(model, data), 1.0 - self.target_sparsity
        )
        metadata = {"method": keras.saving.serialize_keras_object(self)}
        return Ticket.from_masks(model, masks, metadata)

    def keep(self, model, scores, density):
        """Returns masks of the largest scores, as the allocation says."""
        paths = [w.path for w in prunable_weights(model)]
        return self.allocation.keep(scores, density, paths)

    def get_config(self):
        return {
            "target_sparsity": self.target_sparsity,
            "allocation": keras.saving.serialize_keras_object(self.allocation),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def present_weights(model):
    """Returns the values of all prunable weights, as float32 arrays."""
    return [
        ops.convert_to_numpy(ops.cast(w.weight, "float32"))
        for w in prunable_weights(model)
    ]
