"""SynFlow: pruning without data that does not cut the network in two."""

import contextlib

import keras
import numpy as np
from keras import layers
from keras import ops

from tf_gems import _keras
from tf_gems.layers.zeros import nonzero
from tf_gems.methods.gradients import compiled
from tf_gems.methods.gradients import double_precision
from tf_gems.methods.gradients import gradient
from tf_gems.methods.method import Method
from tf_gems.methods.method import present_weights
from tf_gems.methods.saliency import take_batches
from tf_gems.methods.saliency import weights_replaced
from tf_gems.network import network_weights
from tf_gems.network import prunable_weights
from tf_gems.schedules import Geometric
from tf_gems.validation import check_positive_integer
from tf_gems.wrapper_removal import wrapped_by

_SHIFTS = ("bias", "beta")


@keras.saving.register_keras_serializable(package="tf_gems")
class SynFlow(Method):
    """Keeps the weights on the strongest paths from inputs to outputs.

    The flow `R` of a network is the sum of its outputs for an input of ones,
    with every weight replaced by its absolute value, and without biases,
    normalization and activations: the sum over all paths of the products of
    the weights along them. The score of a weight is `|w| dR / d|w|`, its share
    of the flow. Scores are recomputed in each of `rounds` rounds, with the
    density falling geometrically, so that no layer is emptied while
    others have weights left.

    The network is computed in float64, and the logarithm of its flow is
    differentiated, so that deep networks do not overflow. Normalization is
    left out entirely, because a scale of zero, with which many residual
    branches start, would give all weights of the branch a score of zero.

    The guarantee of the paper applies to layers that are on all paths. A
    residual branch parallel to an identity can lose all its weights (at 99.9
    %, ResNet-20 loses two to six of its convolutions), except for the one
    entry that `"global"` keeps of each weight. The paper uses
    `tf_gems.distributions.Global(minimum=0)`.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        rounds: Positive integer. Defaults to `100`.
        distribution: See `tf_gems.distributions.get`. Defaults to `"global"`.
        pattern: See `tf_gems.patterns.get`. Defaults to `"unstructured"`.

    Example:

    ```python
    ticket = tf_gems.methods.SynFlow(0.98).find(sparse)
    ```

    Reference: Tanaka et al., 2020, "Pruning neural networks without any data
    by iteratively conserving synaptic flow", algorithm 1.
    """

    def __init__(
        self,
        target_sparsity,
        rounds=100,
        distribution="global",
        pattern="unstructured",
    ):
        super().__init__(target_sparsity, distribution, pattern)
        self.rounds = check_positive_integer(rounds, "rounds")

    def scores(self, model, data):
        """Returns the scores of the last round, and -1 for pruned weights.

        Args:
            model: `SparseModel`, or Keras model that contains `GemLayer`s.
            data: As for `find`. It is only used for the shape of an input, and
                not needed for Sequential and functional models.
        """
        inputs = _ones_like_an_input(model, data)
        values = [np.abs(w) for w in present_weights(model)]
        masks = [nonzero(w.weight) for w in prunable_weights(model)]
        density = Geometric(1.0, 1.0 - self.target_sparsity)

        def log_flow(chosen):
            with weights_replaced(model, chosen, _linear_weights(model)):
                outputs = model(inputs, training=False)
                total = sum(ops.sum(y) for y in keras.tree.flatten(outputs))
                return ops.log(total)

        with double_precision(), linear(model):
            slope = compiled(gradient(log_flow))
            for round_ in range(1, self.rounds + 1):
                kept = [v * m for v, m in zip(values, masks, strict=True)]
                shares = [
                    np.where(m, v * np.asarray(g), -1.0)
                    for v, m, g in zip(values, masks, slope(kept), strict=True)
                ]
                _refuse_no_flow(shares, round_)
                if round_ < self.rounds:
                    # Rank only the remaining weights, which is also faster.
                    masks = self.keep(
                        model, shares, density(round_ / self.rounds), masks
                    )
        return shares


def _linear_weights(model):
    """Pairs of the weights that are not pruned, and their values in `R`."""
    prunable = {id(w.weight) for w in prunable_weights(model)}
    return [
        (v, ops.absolute(v) * (0 if v.path.endswith(_SHIFTS) else 1))
        for v in network_weights(model)
        if id(v) not in prunable and "float" in v.dtype
    ]


def _ones_like_an_input(model, data):
    """Returns one input of ones, in the structure that the model takes."""
    if data is not None:
        [batch] = take_batches(data, 1)
        like, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    else:
        network = wrapped_by(model)
        like = getattr(network, "input", None)
        if isinstance(network, keras.Sequential):
            [like] = network.inputs
    shapes = [x.shape[1:] for x in keras.tree.flatten(like) if x is not None]
    if not shapes or any(None in shape for shape in shapes):
        raise ValueError(
            "SynFlow requires the shape of an input. Received: data=None for "
            f"'{model.name}', whose input shapes are {shapes or 'unknown'}. "
            "Pass a batch as `data`."
        )
    return keras.tree.map_structure(
        lambda x: np.ones((1, *x.shape[1:]), "float64"), like
    )


def _refuse_no_flow(shares, round_):
    """Raises an error if the scores are not numbers, or rank nothing."""
    largest = max(share.max(initial=0.0) for share in shares)
    if not largest > 0 or not all(np.isfinite(s).all() for s in shares):
        raise ValueError(
            "SynFlow requires a positive, finite flow from inputs to "
            f"outputs. Received: scores of at most {largest:g} in round "
            f"{round_}. Use Keras layers or `activation` arguments for "
            "activations and normalization, which SynFlow leaves out. An "
            "activation that is written as a function stops the flow if it "
            "saturates, as softmax does."
        )


_LEFT_OUT = (
    layers.BatchNormalization,
    layers.ELU,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.LeakyReLU,
    layers.PReLU,
    layers.RMSNormalization,
    layers.ReLU,
    layers.Softmax,
    layers.UnitNormalization,
)
_ACTIVATIONS = ("activation", "recurrent_activation")


class _InFloat64(keras.DTypePolicy):
    """Float32 weights, float64 computation."""

    @property
    def compute_dtype(self):
        return "float64"


@contextlib.contextmanager
def linear(model):
    """Disables activations and normalization, and computes in float64.

    Within this context, these layers of the model return their inputs.
    """
    policy = _InFloat64("float32")
    before = []
    try:
        for layer in _keras.flatten_layers(model):
            # `setattr` fails: Keras allows no new state in a built layer.
            attributes = vars(layer)
            new = {name: _same for name in _ACTIVATIONS if name in attributes}
            new["_dtype_policy"] = policy
            if isinstance(layer, _LEFT_OUT):
                new["call"] = _same
            old = {name: attributes[name] for name in new if name in attributes}
            before.append((attributes, old, new))
            attributes.update(new)
        yield
    finally:
        for attributes, old, new in reversed(before):
            for name in new:
                del attributes[name]
            attributes.update(old)


def _same(inputs, *args, **kwargs):
    return inputs
