"""A method that keeps what another would prune first."""

import keras

from tf_gems.methods.method import Method
from tf_gems.methods.synflow import SynFlow
from tf_gems.registry import deserialize


@keras.saving.register_keras_serializable(package="tf_gems")
class Inverted(Method):
    """Keeps the weights with the smallest scores, as a sanity check.

    If the scores of a method measure the importance of weights, the accuracy
    is lower with inverted scores. `tf_gems.methods.GemMiner` has its own
    argument `inverted`.

    Args:
        method: `Method` that scores weights in one shot, or its config.

    Raises:
        ValueError: If the method does not rank weights by its own scores.

    Example:

    >>> from tf_gems.methods import Magnitude
    >>> Inverted(Magnitude(0.9)).target_sparsity
    0.9

    Reference: Frankle et al., 2021, "Pruning Neural Networks at
    Initialization: Why Are We Missing the Mark?", section 5.
    """

    def __init__(self, method):
        if isinstance(method, dict):
            method = deserialize(method, "method")
        if not isinstance(method, Method):
            raise ValueError(
                "`method` must be an instance or a config. "
                f"Received: method={method!r}."
            )
        in_rounds = isinstance(method, SynFlow) and method.rounds > 1
        if in_rounds or type(method).scores is Method.scores:
            raise ValueError(
                "Only scores that rank all weights in one step can be "
                f"inverted. Received: method of type {type(method).__name__}. "
                "Use `GemMiner(inverted=True)`, or `SynFlow(rounds=1)`."
            )
        super().__init__(
            method.target_sparsity, method.distribution, method.pattern
        )
        self.method = method

    def scores(self, model, data):
        return [-scores for scores in self.method.scores(model, data)]

    def get_config(self):
        return {"method": keras.saving.serialize_keras_object(self.method)}
