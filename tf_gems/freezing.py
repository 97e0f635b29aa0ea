"""A freeze: which of the weights that are alive stay alive."""

import functools
import math

import keras
import numpy as np
from keras import ops

from tf_gems.layers.flags import pack
from tf_gems.layers.flags import unpack
from tf_gems.layers.top_k_mask import largest_in_graph
from tf_gems.selection.distributions import Global
from tf_gems.selection.patterns import Unstructured


def freeze(weights, count, distribution, pattern, inverted=False):
    """Leaves the `count` alive weights of the largest scores alive.

    Scores on an accelerator stay there if all of them are ranked together:
    they are counted in place, and one number a tensor comes to the host. Else
    NumPy selects, from a copy of them or, on a CPU, from their own memory.
    Both find the same flags, bit for bit.

    Weights that are zero already are frozen first: the network computes the
    same without them, and a ticket keeps weights that are not zero.

    Args:
        weights: List of `PrunableWeight`, of the whole network.
        count: Positive integer, less than are alive.
        distribution: `tf_gems.distributions.Distribution`.
        pattern: `tf_gems.patterns.Pattern`.
        inverted: Whether the smallest scores stay instead.
    """
    least = max(1, getattr(distribution, "minimum", 1))
    if _freeze_zeros(weights, count, least) <= count:
        return
    together = type(distribution) is Global and type(pattern) is Unstructured
    if together and weights[0].on_accelerator:
        if _freeze_in_place(weights, count, distribution.minimum, inverted):
            return
    alive = [np.asarray(w.alive) for w in weights]
    scores = [w.read_score() for w in weights]
    if inverted:
        scores = [-score for score in scores]
    density = count / sum(score.size for score in scores)
    paths = [w.path for w in weights]
    kept = distribution.keep(scores, density, paths, pattern, alive)
    for weight, mask in zip(weights, kept, strict=True):
        weight.alive.assign(mask)


def _freeze_zeros(weights, count, least):
    """Freezes weights that are zero, and returns how many stay alive.

    A tensor of which fewer than `least` are not zero stays as it is, and so
    does one that is needed for the count.
    """
    alive = [weight.alive.count() for weight in weights]
    for index, weight in enumerate(weights):
        value = ops.convert_to_tensor(weight.weight)
        if int(ops.count_nonzero(value)) == weight.alive.size:
            continue
        nonzero = ops.convert_to_numpy(ops.not_equal(value, 0))
        kept = np.asarray(weight.alive) & nonzero
        number = int(np.count_nonzero(kept))
        rest = sum(alive) - alive[index] + number
        if number >= least and rest >= count:
            weight.alive.assign(kept)
            alive[index] = number
    return sum(alive)


def _freeze_in_place(weights, count, minimum, inverted):
    """Freezes, unless a weight would keep less than the minimum.

    Returns:
        Whether it did.
    """
    # A copy is a tensor; `convert_to_tensor` leaves variables as they are.
    scores = [ops.copy(w.score) for w in weights]
    words = [ops.copy(w.alive.packed) for w in weights]
    if inverted:
        scores = [-score for score in scores]
    count = ops.convert_to_tensor(count, "int32")
    words, kept = _compiled_select()(scores, words, count)
    if any(ops.convert_to_numpy(kept) < minimum):
        return False
    for weight, word in zip(weights, words, strict=True):
        weight.alive.packed.assign(word)
    return True


@functools.cache
def _compiled_select():
    # By XLA: without it TensorFlow does all arithmetic of int32 on the host.
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(_select, autograph=False, jit_compile=True)
    import jax

    return jax.jit(_select)


def _select(scores, words, count):
    """Returns the words of the flags that stay, and how many in each."""
    alive = [
        unpack(word, tuple(score.shape))
        for score, word in zip(scores, words, strict=True)
    ]
    kept = largest_in_graph(
        ops.concatenate([ops.reshape(p, (-1,)) for p in scores]),
        count,
        ops.concatenate([ops.reshape(q, (-1,)) for q in alive]),
    )
    ends = np.cumsum([math.prod(score.shape) for score in scores])
    parts = ops.split(kept, ends[:-1].tolist())
    counts = [ops.sum(ops.cast(part, "int32")) for part in parts]
    return [pack(part) for part in parts], ops.stack(counts)
