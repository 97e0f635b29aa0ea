"""Freezes on the accelerator; only one number a tensor goes to the host."""

import functools
import math

import keras
import numpy as np
from keras import ops

from tf_gems.layers.flags import pack
from tf_gems.layers.flags import unpack
from tf_gems.layers.top_k_mask import largest_in_graph


def freeze_in_place(weights, count, minimum, inverted):
    """Keeps the `count` alive weights of the largest scores alive.

    Nothing changes if a weight would keep fewer than `minimum`. Returns whether
    it froze.
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
    # XLA, because TensorFlow alone computes int32 arithmetic on the host.
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
