"""Masks of a fixed number of the largest scores."""

import math

import keras
from keras import ops

from tf_gems.layers.mask import Mask
from tf_gems.layers.mask import straight_through
from tf_gems.validation import check_bool
from tf_gems.validation import check_choice
from tf_gems.validation import check_sparsity


@keras.saving.register_keras_serializable(package="tf_gems")
class TopKMask(Mask):
    """Keeps exactly `k` weights, those with the largest scores.

    `k = round((1 - sparsity) * n)`, over all weights that share the layer
    (`scope="global"`: one threshold) or in each weight by itself
    (`scope="layerwise"`). The gradient is the identity for all scores. With
    the global scope, `k` can change during training: it is `GemLayer.places`,
    if this is not zero.

    It runs inside the training step, compiled or not, so it uses neither
    sorting nor `top_k`. The k-th largest float32 is found bit by bit, with 32
    counts over the data, and ties are broken by position in the same way.

    Args:
        sparsity: Float in [0, 1), the fraction of zeros.
        scope: `"global"` or `"layerwise"`. Defaults to `"global"`.
        magnitude: Whether to rank the magnitudes of the scores, as in
            edge-popup. The gradient is then that of the magnitude, the sign of
            the score. Defaults to `False`.

    Example:

    >>> [mask] = TopKMask(sparsity=0.5)([ops.convert_to_tensor([3., 1.])])
    >>> mask
    <tf.Tensor: shape=(2,), dtype=float32, numpy=array([1., 0.]...)>

    Reference: Ramanujan et al., 2020, "What's Hidden in a Randomly Weighted
    Neural Network?", section 3.2 (layerwise); "Rare Gems", section 4.3
    (global).
    """

    def __init__(self, sparsity, scope="global", magnitude=False):
        self.sparsity = check_sparsity(sparsity, "sparsity")
        self.scope = check_choice(scope, "scope", ("global", "layerwise"))
        self.magnitude = check_bool(magnitude, "magnitude")

    def __call__(self, scores, alive=None, places=None):
        alive = alive or [ops.ones_like(p, "bool") for p in scores]
        scores = [self.surrogate(p) for p in scores]
        if self.scope == "layerwise":
            masks = [
                mask
                for p, a in zip(scores, alive, strict=True)
                for mask in self._largest([p], [a])
            ]
        else:
            masks = self._largest(scores, alive, places)
        return [
            straight_through(p, ops.cast(m, "float32"))
            for p, m in zip(scores, masks, strict=True)
        ]

    def surrogate(self, score):
        return ops.absolute(score) if self.magnitude else score

    def _largest(self, scores, alive, places=None):
        sizes = [math.prod(p.shape) for p in scores]
        flat = ops.concatenate([ops.reshape(p, (-1,)) for p in scores])
        alive = ops.concatenate([ops.reshape(a, (-1,)) for a in alive])
        count = round((1.0 - self.sparsity) * sum(sizes))
        if places is not None:
            places = ops.cast(places, "int32")
            count = ops.where(ops.equal(places, 0), count, places)
        mask = largest_in_graph(ops.stop_gradient(flat), count, alive)
        parts, start = [], 0
        for p, size in zip(scores, sizes, strict=True):
            parts.append(ops.reshape(mask[start : start + size], p.shape))
            start += size
        return parts


def largest_in_graph(scores, count, alive):
    """Marks the `count` largest scores that are alive, with static shapes.

    Both searches build a number from its highest bit down, keeping a bit when
    the count of entries at or beyond the candidate still allows it.
    """
    # Compare bit patterns: some processors flush denormals to zero. -0.0 must
    # equal 0.0, but its bit pattern is the lowest of all.
    lowest = -(2**31)
    bits = ops.view(scores, "int32")
    bits = ops.where(bits == lowest, 0, bits)
    keys = ops.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    keys = ops.where(alive, keys, lowest)

    def how_many(condition):
        return ops.sum(ops.cast(condition, "int32"))

    threshold = ops.where(how_many(keys >= 0) >= count, 0, lowest)
    for bit in reversed(range(31)):
        candidate = threshold + (1 << bit)
        enough = how_many(keys >= candidate) >= count
        threshold = ops.where(enough, candidate, threshold)

    tied = ops.logical_and(keys == threshold, alive)
    missing = count - how_many(keys > threshold)
    position = ops.arange(scores.shape[0], dtype="int32")
    end = ops.zeros((), "int32")
    for bit in reversed(range(int(scores.shape[0]).bit_length())):
        candidate = end + (1 << bit)
        before = ops.logical_and(tied, position < candidate)
        end = ops.where(how_many(before) <= missing, candidate, end)
    first_tied = ops.logical_and(tied, position < end)
    return ops.logical_or(keys > threshold, first_tied)
