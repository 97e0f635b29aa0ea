"""Pruning by magnitude, in one shot."""

import keras
import numpy as np
from keras import ops

from tf_gems import training_data
from tf_gems.batch_norm import recalibrate_batch_norm
from tf_gems.layers.prunable_weight import set_alive
from tf_gems.methods.method import Method
from tf_gems.methods.method import present_weights
from tf_gems.network import gems_of
from tf_gems.network import masked_by_flags
from tf_gems.network import network_weights
from tf_gems.network import prunable_weights
from tf_gems.ticket import Ticket


@keras.saving.register_keras_serializable(package="tf_gems")
class Magnitude(Method):
    """Keeps the weights with the largest magnitude: the score is `|w|`.

    By default, magnitudes are ranked relative to their layer. Ranking all
    layers together empties layers of small weights, such as depthwise
    convolutions, and thus disconnects the network.

    If data is passed to `find`, the statistics of batch normalization are
    re-estimated for the pruned network, see `tf_gems.recalibrate_batch_norm`.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        distribution: See `tf_gems.distributions.get`. Defaults to `"lamp"`.
        pattern: See `tf_gems.patterns.get`. Defaults to `"unstructured"`.

    Example:

    ```python
    ticket = tf_gems.methods.Magnitude(0.9).find(sparse, data)
    ```

    Reference: Han et al., 2015, "Learning both Weights and Connections for
    Efficient Neural Networks", section 3.
    """

    def __init__(
        self, target_sparsity, distribution="lamp", pattern="unstructured"
    ):
        super().__init__(target_sparsity, distribution, pattern)

    def scores(self, model, data):
        scores = [np.abs(w) for w in present_weights(model)]
        return self.check_ranking(scores) if self.target_sparsity else scores

    def find(self, model, x=None, y=None, **arguments):
        ticket = super().find(model, x, y, **arguments)
        if x is None:
            return ticket
        for name in ("directory", "verbose", "callbacks"):
            arguments.pop(name, None)
        data = training_data.read(x, y, model, **arguments)
        return _recalibrated(ticket, model, data)


def _recalibrated(ticket, model, data):
    """Returns the ticket with normalization that fits its masks.

    The model computes with the masks meanwhile, and is left as it was.
    """
    weights = prunable_weights(model)
    network = network_weights(model)
    flags = [w.alive.packed for w in weights]
    before = [(v, ops.copy(v)) for v in (*network, *flags)]
    masks = list(ticket.masks.values())
    try:
        set_alive(weights, masks)
        with masked_by_flags(gems_of(model)):
            if not recalibrate_batch_norm(model, data):
                return ticket
        return Ticket.from_masks(model, masks, ticket.metadata)
    finally:
        for variable, value in before:
            variable.assign(value)
