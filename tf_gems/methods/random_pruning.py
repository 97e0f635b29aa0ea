"""Random tickets: the baseline of any other."""

import math

import keras
import numpy as np

from tf_gems.methods.method import Method
from tf_gems.network import prunable_weights
from tf_gems.validation import check_integer


@keras.saving.register_keras_serializable(package="tf_gems")
class RandomPruning(Method):
    """Keeps random weights: the scores are a random permutation.

    With the distribution `"global"`, all subsets with the target number of
    weights are equally likely. With any other distribution, all subsets with
    the given number of entries of each weight are equally likely.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        seed: Integer. Defaults to `0`.
        **kwargs: `distribution` and `pattern`, see `tf_gems.methods.Method`.

    Example:

    ```python
    method = tf_gems.methods.RandomPruning(0.98, distribution="erk")
    ticket = method.find(sparse)
    ```

    Reference: Liu et al., 2022, "The Unreasonable Effectiveness of Random
    Pruning".
    """

    def __init__(self, target_sparsity, seed=0, **kwargs):
        super().__init__(target_sparsity, **kwargs)
        self.seed = check_integer(seed, "seed")

    def scores(self, model, data):
        shapes = [tuple(w.weight.shape) for w in prunable_weights(model)]
        sizes = [math.prod(shape) for shape in shapes]
        ranks = np.arange(sum(sizes), 0, -1, "float32")
        np.random.default_rng(self.seed).shuffle(ranks)
        parts = np.split(ranks, np.cumsum(sizes)[:-1])
        return [p.reshape(s) for p, s in zip(parts, shapes, strict=True)]
