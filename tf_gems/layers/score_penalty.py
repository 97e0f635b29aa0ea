"""The penalty of scores, and what adapts it."""

import keras
from keras import ops

# An error in the logarithm of the density that has its full effect.
BAND = 0.1
# The largest part of a score that one step may take away.
MOST = 0.2


class ScorePenalty:
    """Pulls the scores of a layer to zero while too many round to one.

    `kept` is the number of weights that round to one. The penalty rests while
    `kept <= limit`: if it drove the network below its target, the weights that
    are alive in the end would not be those that were mined. It also rests for
    a tensor in which one score at most rounds to one, so that no layer is
    pulled out of the network.

    **A constant penalty** has a `gain` of 0. It is a part of the loss, and
    reaches the scores through their gradient, as in the paper:

        loss <- loss + weight * sum(p ** 2)

    **An adaptive penalty** has a `gain` above 0. Its two parts depend neither
    on the learning rate nor on how the optimizer scales a gradient `g`, see
    `pull` and `_shrink`:

        g <- g + 2 * p * mean(abs(g))           before the optimizer's step
        p <- clip(p * (1 - shrinkage), 0, 1)    after it

    The first part decides *which* scores fall: those whose gradient is small
    beside the others. Without it, an optimizer that normalizes gradients
    would move scores that matter and scores that do not by the same step. The
    second part decides *how many* fall, and works under any learning rate.
    Its rate, `weight`, is the multiplier of the constraint `kept <= limit`.
    Every step ascends it, in logarithms, while the limit falls:

        weight <- weight * exp(gain * clip(log(kept / limit) / BAND, -1, 1))
        limit  <- max(final_limit, limit * decay)

    Args:
        layer: `GemLayer` that is to own the variables.
        prunable: List of `PrunableWeight`.

    Attributes:
        weight, limit, final_limit, decay, gain: Float32 scalar
            `keras.Variable`s. They change alike on all replicas and are in
            every checkpoint.
        steps, epochs: Integer scalar `keras.Variable`s, how many steps and
            epochs the layer has been mined for.

    Reference: Platt & Barr, 1987, "Constrained differential optimization",
    for multipliers that ascend while the network descends; Loshchilov &
    Hutter, 2019, "Decoupled weight decay regularization", for decay that does
    not pass through the optimizer.
    """

    def __init__(self, layer, prunable):
        self._layer = layer
        self.prunable = prunable

        def add(name, dtype="float32"):
            return layer.add_weight(
                name=name,
                shape=(),
                dtype=dtype,
                initializer="zeros",
                trainable=False,
                autocast=False,
                aggregation="only_first_replica",
            )

        self.weight = add("regularization")
        self.limit = add("limit")
        self.final_limit = add("final_limit")
        self.decay = add("decay")
        self.gain = add("gain")
        self.steps = add("steps", "int")
        self.epochs = add("epochs", "int")

    @property
    def variables(self):
        """List of the variables that it adds to the layer."""
        own = [self.weight, self.limit, self.final_limit, self.decay, self.gain]
        shrinkages = [w.shrinkage for w in self.prunable]
        return [*own, self.steps, self.epochs, *shrinkages]

    def reset(self):
        """Takes the penalty away."""
        for variable in self.variables:
            variable.assign(0)

    def set_constant(self, weight, limit):
        """Sets a constant weight; at the limit the penalty is off."""
        for variable in (self.gain, *(w.shrinkage for w in self.prunable)):
            variable.assign(0.0)
        self.weight.assign(weight)
        self.limit.assign(limit)
        self.final_limit.assign(limit)
        self.decay.assign(1.0)

    def adapt(self, rate, gain, limit, decay):
        """Begins to adapt. Freezes set `final_limit` later.

        Args:
            rate: Float, the part of a score that the first step takes away.
            gain: Positive float.
            limit: Integer, the limit to begin with.
            decay: Float in (0, 1], the factor of the limit in a step.
        """
        self.weight.assign(min(rate, MOST))
        self.gain.assign(gain)
        self.limit.assign(limit)
        self.decay.assign(decay)

    def pull(self, masks):
        """Returns the masks; their gradient pulls scores to zero as well.

        With the gradients `g` that reach the masks, over all tensors of the
        layer, an adaptive penalty that does not rest adds

            2 * p * mean(abs(g)),

        the gradient of `sum(p ** 2)` in units of the mean gradient over what
        is alive. So it does not depend on the scale of the loss either.

        Args:
            masks: List of float tensors of zeros and ones.
        """
        pulls = self.pulls(masks)
        scores = [ops.stop_gradient(ops.copy(w.score)) for w in self.prunable]
        alive = [ops.cast(w.alive.read(), "float32") for w in self.prunable]

        @ops.custom_gradient
        def identity(*masks):
            def gradient(*args, upstream=None):
                given = args if upstream is None else upstream
                given = keras.tree.flatten(given)
                return tuple(_pulled(given, scores, alive, pulls))

            return tuple(ops.copy(mask) for mask in masks), gradient

        return list(identity(*masks))

    def pulls(self, masks):
        """Returns 1.0 where an adaptive penalty does not rest, else 0.0.

        Args:
            masks: List of float tensors of zeros and ones.
        """
        kept = sum(ops.cast(_count(mask), "float32") for mask in masks)
        pulls = ops.logical_and(kept > self.limit, self.gain > 0.0)
        return ops.cast(pulls, "float32")

    def pull_gradients(self, gradients, pulls):
        """Returns gradients of the scores with the pull of `pull` added.

        Args:
            gradients: Dict from places in `prunable` to tensors.
            pulls: What `pulls` returned.
        """
        prunable = [self.prunable[place] for place in gradients]
        scores = [ops.copy(w.score) for w in prunable]
        alive = [ops.cast(w.alive.read(), "float32") for w in prunable]
        given = [ops.convert_to_tensor(g) for g in gradients.values()]
        pulled = _pulled(given, scores, alive, pulls)
        return dict(zip(gradients, pulled, strict=True))

    def __call__(self, masks):
        """Returns the loss for these masks, and adapts for the next step.

        Args:
            masks: List of float tensors of zeros and ones.

        Returns:
            Float32 scalar tensor; zero for an adaptive penalty.
        """
        masks = [ops.stop_gradient(mask) for mask in masks]
        counts = [ops.cast(_count(mask), "float32") for mask in masks]
        # Copies, which do not see the assignments below.
        weight, limit = ops.copy(self.weight), ops.copy(self.limit)
        kept, gain = sum(counts), ops.convert_to_tensor(self.gain)
        adapts = gain > 0.0
        # Plus one: a limit of zero is that of a penalty which never rests.
        error = ops.log((kept + 1.0) / (limit + 1.0)) / BAND
        risen = weight * ops.exp(gain * ops.clip(error, -1.0, 1.0))
        risen = ops.where(adapts, ops.minimum(risen, MOST), weight)
        self.weight.assign(risen)
        self.limit.assign(ops.maximum(self.final_limit, limit * self.decay))
        self.steps.assign(self.steps + 1)
        weight = ops.where(kept > limit, weight, 0.0)
        rate = ops.where(adapts, weight, 0.0)
        carried = self._shrink(masks, counts, rate, kept - limit)
        squares = [
            ops.cast(count > 1.0, "float32") * ops.sum(ops.square(w.score))
            for count, w in zip(counts, self.prunable, strict=True)
        ]
        return carried + ops.where(adapts, 0.0, weight) * sum(squares)

    def _shrink(self, masks, counts, rate, excess):
        """Sets what the scores shrink by after the optimizer's step.

        With `fallen`, how many of the scores that round to one no longer
        would after shrinking by the whole rate,

            shrinkage = rate * min(1, excess / fallen),

        so that no step takes the density below its limit, whatever the scores
        and the rate are. Nor does it take the largest score of a tensor below
        the threshold.

        Returns:
            Float32 scalar tensor for the loss, see `PrunableWeight.shrink`.
        """
        threshold = getattr(self._layer.mask, "threshold", 0.5)
        rates, fallen = [], 0.0
        for w, mask, count in zip(self.prunable, masks, counts, strict=True):
            kept = ops.stop_gradient(ops.copy(w.score)) * mask
            largest = ops.maximum(ops.max(kept), threshold)
            # A little less, for rounding.
            room = ops.maximum(1.0 - 1.0001 * threshold / largest, 0.0)
            own = ops.where(count > 1.0, ops.minimum(rate, room), 0.0)
            stays = ops.cast(kept * (1.0 - own) > threshold, "float32")
            fallen = fallen + count - ops.cast(_count(stays), "float32")
            rates.append(own)
        share = ops.clip(excess / ops.maximum(fallen, 1.0), 0.0, 1.0)
        return sum(
            w.shrink(own * share)
            for w, own in zip(self.prunable, rates, strict=True)
        )


def _pulled(gradients, scores, alive, pulls):
    """Returns `g + 2 * p * mean(abs(g))`, the mean over what is alive."""
    total = sum(
        ops.sum(ops.abs(g) * q) for g, q in zip(gradients, alive, strict=True)
    )
    unit = 2.0 * pulls * total / sum(map(ops.sum, alive))
    return [g + unit * p for g, p in zip(gradients, scores, strict=True)]


def _count(mask):
    """Returns the sum of a mask, exactly, without a copy in other numbers."""
    # TensorFlow adds up int32 on the host, and JAX has no int64.
    tensorflow = keras.backend.backend() == "tensorflow"
    wide = "int64" if tensorflow else "int32"
    return ops.sum(ops.cast(ops.sum(mask, axis=-1), wide))
