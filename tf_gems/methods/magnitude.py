"""Pruning by magnitude, in one shot."""

import keras
import numpy as np

from tf_gems.methods.method import Method
from tf_gems.methods.method import present_weights


@keras.saving.register_keras_serializable(package="tf_gems")
class Magnitude(Method):
    """Keeps the weights of largest magnitude: the score is `|w|`.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        allocation: See `tf_gems.allocation.get`. Defaults to `"global"`.

    Example:

    ```python
    ticket = tf_gems.methods.Magnitude(0.9, "uniform").find(sparse)
    ```

    Reference: Han et al., 2015, "Learning both Weights and Connections for
    Efficient Neural Networks", section 3.
    """

    def scores(self, model, data):
        return [np.abs(w) for w in present_weights(model)]
