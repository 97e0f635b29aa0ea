"""Edge-popup: the weights of the largest scores, while the scores train."""

import keras
import numpy as np
from keras import ops

from tf_gems import schedules
from tf_gems.callbacks.edge_popup_callback import EdgePopupCallback
from tf_gems.layers.top_k_mask import TopKMask
from tf_gems.methods.trained import Trained
from tf_gems.methods.trained import alive_masks
from tf_gems.network import gems_of
from tf_gems.network import prunable_weights
from tf_gems.validation import check_bool

# Uniform in +-1 / sqrt(fan_in): Kaiming's with `a = sqrt(5)`.
SCORES = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


@keras.saving.register_keras_serializable(package="tf_gems")
class EdgePopup(Trained):
    """Trains scores, and computes with the weights of the largest ones.

    At every forward pass a weight counts if the magnitude `|p|` of its score
    is among the `k` largest; a weight that drops out comes back as soon as
    its score has grown again. The gradient of the loss goes through the mask
    unchanged: `dL / dp = sign(p) * dL / dm`. Scores start uniform in
    `+-1 / sqrt(fan_in)` and are not clipped.

    Weights stay what they are, so they should be worth choosing from: the
    papers start from `SparseModel(model, kernel_initializer=
    "signed_constant")`. (The code of "Rare Gems" scales these by the fraction
    of pruned weights, in the wrong direction; that is not repeated here.)

    The four variants of table 3 of "Rare Gems" are

    - edge-popup: `distribution="uniform"`, the largest of each weight;
    - Global EP: `distribution="global"`, the largest of all layers together;
    - the same with `gradual=True`: the density falls geometrically, see
      `tf_gems.callbacks.EdgePopupCallback`;
    - the same with `regularization=1e-4`.

    The ticket keeps exactly the target number of weights of the largest
    `|p|` in the end, in distribution and pattern. It can differ from the
    network that was trained: where a uniform density leaves fractions of a
    weight, by one weight a layer; by a `Global(minimum=...)`; and by the
    pattern, since masks are unstructured while scores train.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer. Defaults to `150`.
        learning_rate: Of the scores, see `tf_gems.methods.Trained`. Defaults
            to `None`: that of the compiled optimizer.
        gradual: Whether the density falls by and by, with
            `distribution="global"` only. Defaults to `False`.
        freeze_period: Integer, epochs of equal density, if `gradual`.
            Defaults to `5`.
        regularization: Float or `tf_gems.schedules.Schedule`, the weight of
            the sum of squared scores in the loss. Defaults to `0.0`; half of
            PyTorch's `weight_decay`.
        distribution: `"uniform"` or `"global"`. Defaults to `"uniform"`.
        **kwargs: `pattern`, see `tf_gems.methods.Method`.

    Example:

    ```python
    sparse = tf_gems.SparseModel(model, kernel_initializer="signed_constant")
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    popup = tf_gems.methods.EdgePopup(0.9, epochs=150, learning_rate=0.1)
    ticket = popup.find(sparse, data)
    ```

    Reference: Ramanujan et al., 2020, "What's Hidden in a Randomly Weighted
    Neural Network?", section 3; Sreenivasan et al., 2022, "Rare Gems: Finding
    Lottery Tickets at Initialization", section 4.3 (global, gradual).
    """

    kernel_initializer = "signed_constant"

    def __init__(
        self,
        target_sparsity,
        epochs=150,
        learning_rate=None,
        gradual=False,
        freeze_period=5,
        regularization=0.0,
        distribution="uniform",
        **kwargs,
    ):
        super().__init__(
            target_sparsity,
            epochs,
            learning_rate,
            distribution=distribution,
            **kwargs,
        )
        self.gradual = check_bool(gradual, "gradual")
        self.freeze_period = freeze_period
        self.regularization = schedules.get(regularization, "regularization")
        self.callback()  # refuses what is out of range

    def prepare(self, model):
        mask = TopKMask(
            self.target_sparsity, self.callback().scope, magnitude=True
        )
        for gem in gems_of(model):
            gem.set_mask(mask, SCORES)
        super().prepare(model)

    def callback(self):
        return EdgePopupCallback(
            self.target_sparsity,
            self.distribution,
            self.gradual,
            self.freeze_period,
            self.regularization,
            self.epochs,
        )

    def masks(self, model):
        scores = [
            np.abs(ops.convert_to_numpy(w.score))
            for w in prunable_weights(model)
        ]
        density = 1.0 - self.target_sparsity
        return self.keep(model, scores, density, alive_masks(model))

    def get_config(self):
        return {
            **super().get_config(),
            "gradual": self.gradual,
            "freeze_period": self.freeze_period,
            "regularization": keras.saving.serialize_keras_object(
                self.regularization
            ),
        }
