"""Gem-Miner as a method beside others."""

import keras

from tf_gems.gem_miner import GemMinerCallback
from tf_gems.gem_miner import get_regularization
from tf_gems.layers.mask import RoundMask
from tf_gems.methods.trained import Trained
from tf_gems.network import gems_of
from tf_gems.validation import check_bool


@keras.saving.register_keras_serializable(package="tf_gems")
class GemMiner(Trained):
    """Trains scores, and freezes the weights with the smallest scores.

    Runs `fit` with `tf_gems.GemMinerCallback`. The ablations of the paper are
    arguments: `regularization=0.0` leaves out the penalty,
    `freeze_period=epochs // 2` freezes once instead of gradually, and
    `distribution="uniform"` ranks scores layer by layer.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer. Defaults to `150`.
        learning_rate: Learning rate of the scores. With `"auto"` they train
            with `tf_gems.optimizers.ScoreOptimizer`, and the compiled
            optimizer, which is for weights, is restored afterwards. Otherwise
            they train with a copy of the compiled optimizer, see
            `tf_gems.methods.Trained`. Defaults to `"auto"`.
        freeze_period: Integer, epochs between freezes. Defaults to `5`.
        regularization: The weight of the penalty, see
            `tf_gems.GemMinerCallback`. Defaults to `"auto"`.
        stop_at_target: Whether a constant penalty is off while the density is
            at the target. Defaults to `True`.
        saturate_scores: Whether the last freeze sets the scores of alive
            weights to 1. Defaults to `True`.
        inverted: Whether to freeze the weights with the largest scores, see
            `tf_gems.sanity`. Defaults to `False`.
        **kwargs: `distribution` and `pattern`, see `tf_gems.methods.Method`.

    Example:

    ```python
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    miner = tf_gems.methods.GemMiner(0.9856)
    ticket = miner.find(sparse, data, directory="mining")
    ```

    Reference: Sreenivasan et al., 2022, "Rare Gems: Finding Lottery Tickets
    at Initialization", Algorithm 1.
    """

    kernel_initializer = "signed_constant"
    warns_at_minimum = False

    def __init__(
        self,
        target_sparsity,
        epochs=150,
        learning_rate="auto",
        freeze_period=5,
        regularization="auto",
        stop_at_target=True,
        saturate_scores=True,
        inverted=False,
        **kwargs,
    ):
        is_auto = isinstance(learning_rate, str) and learning_rate == "auto"
        rate = None if is_auto else learning_rate
        super().__init__(target_sparsity, epochs, rate, **kwargs)
        self.learning_rate = learning_rate if is_auto else self.learning_rate
        self.freeze_period = freeze_period
        self.regularization = get_regularization(regularization)
        self.stop_at_target = check_bool(stop_at_target, "stop_at_target")
        self.saturate_scores = check_bool(saturate_scores, "saturate_scores")
        self.inverted = check_bool(inverted, "inverted")
        self.callback()  # refuses what is out of range

    def prepare(self, model):
        for gem in gems_of(model):
            if not isinstance(gem.mask, RoundMask):
                uniform = keras.initializers.RandomUniform(0.0, 1.0)
                gem.set_mask(RoundMask(), uniform)
        super().prepare(model)

    def find_ticket(self, model, *args):
        compiled = model.optimizer
        try:
            return super().find_ticket(model, *args)
        finally:
            if self.learning_rate == "auto":
                model.optimizer = compiled

    def callback(self):
        return GemMinerCallback(
            self.target_sparsity,
            self.freeze_period,
            self.regularization,
            self.stop_at_target,
            self.saturate_scores,
            epochs=self.epochs,
            distribution=self.distribution,
            pattern=self.pattern,
            inverted=self.inverted,
        )
