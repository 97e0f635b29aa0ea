"""The one primitive under every trainable mask."""

from keras import ops


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
