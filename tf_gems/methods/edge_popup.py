"""Edge-popup: the weights of the largest scores, while the scores train."""

import keras
import numpy as np

from tf_gems import registry
from tf_gems import schedules
from tf_gems import training_logic
from tf_gems.filter_policies import refuse_too_few_zeros
from tf_gems.layers.top_k_mask import TopKMask
from tf_gems.layers.zeros import refuse_frozen_beyond
from tf_gems.methods.trained import Trained
from tf_gems.methods.trained import alive_masks
from tf_gems.mining_guards import read_number
from tf_gems.network import gems_of
from tf_gems.network import prunable_weights
from tf_gems.selection import distributions
from tf_gems.selection.masks import keep_largest
from tf_gems.validation import check_bool
from tf_gems.validation import check_count_or_none
from tf_gems.validation import check_positive_integer
from tf_gems.validation import check_sparsity


@keras.saving.register_keras_serializable(package="tf_gems")
class EdgePopupCallback(registry.Configurable, keras.callbacks.Callback):
    """Sets the number of weights of top-k masks while `fit` trains scores.

    The masks are computed by `tf_gems.layers.TopKMask` at every forward pass,
    so the model must be built with it. This callback sets the number of kept
    weights and the weight of the penalty on the scores. Both depend only on
    the epoch and on the model's variables, so a resumed run gives the same
    result.

    With `gradual`, `n` prunable weights and target density `d`, the masks keep
    `round(n * d ** (i / N))` weights in the `i`-th period of `freeze_period`
    epochs, where `N = epochs // freeze_period - 1`. The first period also uses
    `i = 1`, as in the authors' code. No weight is frozen.

    In a model with several `GemLayer`s, the number is divided among the layers
    at the beginning of each epoch, by ranking all scores together. Each layer
    keeps at least one weight.

    Epoch logs: `sparsity` and `density` of the masks, and `regularization`.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros in the end.
        distribution: `"global"` or `"uniform"`, see
            `tf_gems.methods.EdgePopup`. Defaults to `"uniform"`.
        gradual: Whether the number of kept weights falls. Defaults to
            `False`.
        freeze_period: Integer, epochs between reductions, if `gradual`.
            Defaults to `5`.
        regularization: Float or `tf_gems.schedules.Schedule` over the
            progress of training, the weight of the penalty
            `regularization * sum(p ** 2)`. Defaults to `0.0`.
        epochs: Integer, the length of the search. Defaults to `None`: the
            epochs of `fit`.

    Raises:
        ValueError: If an argument is out of range, or the model has other
            masks.

    Example:

    ```python
    mask = tf_gems.layers.TopKMask(0.98, scope="layerwise", magnitude=True)
    sparse = tf_gems.SparseModel(
        model, mask=mask, score_initializer=keras.initializers.VarianceScaling(
            1 / 3, "fan_in", "uniform"))
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    sparse.fit(data, epochs=150, callbacks=[
        tf_gems.methods.EdgePopupCallback(0.98, regularization=5e-4)])
    ```

    Reference: Sreenivasan et al., 2022, "Rare Gems", section 4.3, table 3.
    """

    def __init__(
        self,
        target_sparsity,
        distribution="uniform",
        gradual=False,
        freeze_period=5,
        regularization=0.0,
        epochs=None,
    ):
        super().__init__()
        self.target_sparsity = check_sparsity(target_sparsity)
        self.distribution = distributions.get(distribution)
        self.gradual = check_bool(gradual, "gradual")
        if type(self.distribution) not in _SCOPES:
            raise ValueError(
                "Edge-popup ranks the scores of all layers together or of "
                "each layer separately. Received: "
                f"distribution={_name(self.distribution)}. Use "
                '`distribution="global"` or `"uniform"`.'
            )
        if self.gradual and self.scope == "layerwise":
            raise ValueError(
                "`gradual` requires scores that are ranked over all layers "
                "together. Received: gradual=True, "
                f"distribution={_name(self.distribution)}. Use "
                '`distribution="global"`.'
            )
        self.freeze_period = check_positive_integer(
            freeze_period, "freeze_period"
        )
        self.regularization = schedules.get(regularization, "regularization")
        least = min(self.regularization(0.0), self.regularization(1.0))
        if not least >= 0:
            raise ValueError(
                "`regularization` must not be negative, or scores would grow "
                f"without bound. Received: regularization={least:g}."
            )
        self.epochs = check_count_or_none(epochs, "epochs")
        if epochs is not None:
            self._count_reductions(self.epochs)
        self._gems = []
        self._counts = []

    @property
    def scope(self):
        """The `scope` of the `TopKMask` that belongs to the distribution."""
        return _SCOPES[type(self.distribution)]

    def on_train_begin(self, logs=None):
        self._gems = gems_of(self.model)
        training_logic.require_loss(self.model)
        for gem in self._gems:
            self._refuse_other_masks(gem)
        refuse_too_few_zeros(self._gems, self.target_sparsity)
        self._epochs = self.epochs or self.params["epochs"]
        size = sum(gem.size for gem in self._gems)
        density = 1.0 - self.target_sparsity
        self._counts = schedules.geometric_counts(
            size, density, self._count_reductions(self._epochs)
        )[1:]
        if self._counts[-1] == 0:
            raise ValueError(
                "`target_sparsity` must keep at least one weight. Received: "
                f"target_sparsity={self.target_sparsity:g} for a model of "
                f"{size:,} prunable weights. Use {1 - 1 / size:g} or less."
            )
        refuse_frozen_beyond(self._gems, self.target_sparsity, self._counts[-1])
        for gem in self._gems:
            # `ticket` checks this number. A layer keeps at least one weight.
            target = self._counts[-1] + len(self._gems) - 1
            gem.target.assign(target if self.gradual else 0)

    def _refuse_other_masks(self, gem):
        mask = gem.mask
        ours = isinstance(mask, TopKMask) and mask.magnitude
        if not ours or mask.scope != self.scope or gem.phase != "mining":
            raise ValueError(
                "`EdgePopupCallback` requires the mining phase and masks of "
                f"the largest magnitudes with scope '{self.scope}'. Received: "
                f"mask={type(mask).__name__} {mask.get_config()} in phase "
                f"'{gem.phase}'. Build the model with "
                f"`mask=tf_gems.layers.TopKMask(sparsity, '{self.scope}', "
                "magnitude=True)`."
            )

    def _count_reductions(self, epochs):
        if not self.gradual:
            return 1
        return schedules.count_freezes(self.freeze_period, epochs)

    def on_epoch_begin(self, epoch, logs=None):
        weight = self.regularization(min(1.0, epoch / self._epochs))
        for gem in self._gems:
            gem.penalty.weight.assign(weight)
        if self.scope == "global":
            period = max(1, epoch // self.freeze_period)
            period = min(period, len(self._counts))
            self._share_out(self._counts[period - 1])

    def _share_out(self, count):
        """Divides the number of kept weights among the `GemLayer`s."""
        weights = [w for gem in self._gems for w in gem.prunable]
        scores = [np.abs(w.read_score()) for w in weights]
        alive = [np.asarray(w.alive) for w in weights]
        count = min(count, sum(int(np.count_nonzero(a)) for a in alive))
        kept = iter(keep_largest(scores, count, alive))
        for gem in self._gems:
            places = sum(int(next(kept).sum()) for _ in gem.prunable)
            gem.places.assign(max(1, places))  # 0 would mean: by its sparsity

    def on_epoch_end(self, epoch, logs=None):
        if logs is None:
            return
        kept = sum(sum(gem.count_kept()) for gem in self._gems)
        density = kept / sum(gem.size for gem in self._gems)
        logs["sparsity"] = 1.0 - density
        logs["density"] = density
        logs["regularization"] = read_number(self._gems[0].penalty.weight)


def _name(distribution):
    return type(distribution).__name__


_SCOPES = {distributions.Global: "global", distributions.Uniform: "layerwise"}


# Uniform in +-1 / sqrt(fan_in): Kaiming's with `a = sqrt(5)`.
SCORES = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


@keras.saving.register_keras_serializable(package="tf_gems")
class EdgePopup(Trained):
    """Trains scores, and uses only the weights with the largest scores.

    A weight is used in a forward pass if the magnitude `|p|` of its score is
    among the `k` largest. A weight that drops out comes back when its score
    grows again. The gradient of the loss passes through the mask unchanged:
    `dL / dp = sign(p) * dL / dm`. Scores start uniform in
    `+-1 / sqrt(fan_in)` and are not clipped.

    The weights do not train, so their initial values are important: the papers
    use `SparseModel(model, kernel_initializer="signed_constant")`. (The code
    of "Rare Gems" also scales them by the fraction of pruned weights, in the
    wrong direction, which is left out here.)

    The four variants of table 3 of "Rare Gems" are

    - edge-popup: `distribution="uniform"`, the largest scores of each layer;
    - Global EP: `distribution="global"`, the largest scores of all layers;
    - Global EP with `gradual=True`: the density falls geometrically, see
      `tf_gems.methods.EdgePopupCallback`;
    - the same with `regularization=1e-4`.

    The ticket keeps exactly the target number of weights with the largest
    `|p|` at the end, with the distribution and pattern. It can differ from the
    trained network: by one weight per layer if a uniform density is not a
    whole number of weights, by `Global(minimum=...)`, and by the pattern,
    because masks are unstructured while scores train.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer. Defaults to `150`.
        learning_rate: Learning rate of the scores, see
            `tf_gems.methods.Trained`. Defaults to `None`: that of the compiled
            optimizer.
        gradual: Whether the density falls gradually, with
            `distribution="global"` only. Defaults to `False`.
        freeze_period: Integer, number of epochs between reductions, if
            `gradual`. Defaults to `5`.
        regularization: Float or `tf_gems.schedules.Schedule`, the weight of
            the sum of squared scores in the loss, which is half of PyTorch's
            `weight_decay`. Defaults to `0.0`.
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
        scores = [np.abs(w.read_score()) for w in prunable_weights(model)]
        density = 1.0 - self.target_sparsity
        return self.keep(model, scores, density, alive_masks(model))
