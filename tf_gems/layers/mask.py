"""Masks as functions of trainable scores, and the gradient through them."""

import keras
from keras import ops

from tf_gems import registry
from tf_gems.validation import is_number


@ops.custom_gradient
def straight_through(scores, mask):
    """Returns `mask`, and lets its gradient pass to `scores` unchanged.

    A mask is a step function of the scores, so its true gradient is zero
    almost everywhere. The straight-through estimator replaces it by the
    identity: `d mask / d scores := 1`. The forward value is exactly `mask`,
    for every score; `scores + stop_gradient(mask - scores)` is not, outside
    [0, 1].

    Args:
        scores: Float tensor, not a variable.
        mask: Tensor of the same shape and dtype, of zeros and ones.

    Returns:
        `mask`.

    Reference: Bengio et al., 2013, "Estimating or Propagating Gradients
    Through Stochastic Neurons for Conditional Computation", section 4.
    """

    def gradient(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        return upstream, ops.zeros_like(upstream)

    return ops.copy(mask), gradient


class Mask(registry.Configurable):
    """Base class: a pure function from scores to zeros and ones."""

    def __call__(self, scores, alive, places=None):
        """Returns the masks of weights.

        Args:
            scores: List of float32 tensors, one for each prunable weight.
            alive: List of bool tensors of the same shapes; `False` where a
                weight is frozen, which the caller masks in any case.
            places: Integer scalar, how many weights may be kept at present;
                0 or `None`: as the rule itself says.

        Returns:
            List of float32 tensors of zeros and ones, with a gradient to the
            scores.
        """
        raise NotImplementedError

    def surrogate(self, score):
        """Returns what the gradient of a mask goes to, by default the score."""
        return score


@keras.saving.register_keras_serializable(package="tf_gems")
class RoundMask(Mask):
    """Keeps a weight if its score exceeds a threshold.

    `m = 1[p > threshold]`, exactly 0 or 1, with `dm/dp := 1` (the
    straight-through estimator, also below the threshold, so that the mask can
    become 1 again). A score equal to the threshold is rounded to 0, as in the
    authors' code; `round` would round 0.5 to the nearest even number.

    Args:
        threshold: Float in [0, 1). Defaults to `0.5`.

    Example:

    >>> [mask] = RoundMask()([ops.convert_to_tensor([0.2, 0.5, 0.9])])
    >>> mask
    <tf.Tensor: shape=(3,), dtype=float32, numpy=array([0., 0., 1.]...)>

    Reference: Sreenivasan et al., 2022, "Rare Gems", section 3.
    """

    def __init__(self, threshold=0.5):
        if not is_number(threshold) or not 0 <= threshold < 1:
            raise ValueError(
                "`threshold` must be in [0, 1), because scores are in [0, "
                f"1]. Received: threshold={threshold!r}. The paper uses 0.5."
            )
        self.threshold = float(threshold)

    def __call__(self, scores, alive=None, places=None):
        return [
            straight_through(p, ops.cast(p > self.threshold, "float32"))
            for p in scores
        ]
