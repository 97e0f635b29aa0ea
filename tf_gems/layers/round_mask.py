"""Masks by rounding: each score decides alone."""

import keras
from keras import ops

from tf_gems.layers.mask import Mask
from tf_gems.layers.straight_through import straight_through
from tf_gems.validation import is_number


@keras.saving.register_keras_serializable(package="tf_gems")
class RoundMask(Mask):
    """Keeps a weight where its score exceeds a threshold.

    `m = 1[p > threshold]`, exactly 0 or 1, with `dm/dp := 1` (the
    straight-through estimator, also below the threshold, so that a rounded
    weight can come back). A score equal to the threshold is rounded to 0, as
    in the authors' code; `round` alone would send 0.5 to the even number.

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
                "Scores are in [0, 1], and `threshold` in [0, 1). Received: "
                f"threshold={threshold!r}. The paper rounds at 0.5."
            )
        self.threshold = float(threshold)

    def __call__(self, scores, alive=None, places=None):
        return [
            straight_through(p, ops.cast(p > self.threshold, "float32"))
            for p in scores
        ]

    def get_config(self):
        return {"threshold": self.threshold}
