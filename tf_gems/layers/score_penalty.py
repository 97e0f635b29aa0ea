"""The penalty of scores, and what adapts its weight."""

import keras
from keras import ops

# An error in the logarithm of the density that has its full effect.
BAND = 0.1


class ScorePenalty:
    """Pulls the scores of a layer to zero while too many round to one.

    With `kept`, the number of weights that round to one, the penalty is

        weight * sum(p ** 2) if kept > bound else 0

    The weight is the multiplier of the constraint `kept <= bound`, and every
    step ascends it, in logarithms, while the bound falls to its goal:

        weight <- weight * exp(gain * clip(log(kept / bound) / BAND, -1, 1))
        bound  <- max(goal, bound * decay)

    With a `gain` of 0 and a `decay` of 1 both are constants. The penalty rests
    at the bound, whatever its weight: were the network driven below its
    target, what is alive in the end would not be what was mined.

    The penalty of a tensor rests while one score at most rounds to one: no
    layer is pulled out of the network.

    Args:
        layer: Keras layer that is to own the variables.
        prunable: List of `PrunableWeight`.

    Attributes:
        weight, bound, goal, decay, gain: Float32 scalar `keras.Variable`s.
            They change alike on all replicas and are in every checkpoint.

    Reference: Platt & Barr, 1987, "Constrained differential optimization",
    for multipliers that ascend while the network descends.
    """

    def __init__(self, layer, prunable):
        self.prunable = prunable

        def add(name):
            return layer.add_weight(
                name=name,
                shape=(),
                dtype="float32",
                initializer="zeros",
                trainable=False,
                autocast=False,
                aggregation="only_first_replica",
            )

        self.weight = add("regularization")
        self.bound = add("bound")
        self.goal = add("goal")
        self.decay = add("decay")
        self.gain = add("gain")

    @property
    def variables(self):
        """List of the variables that it adds to the layer."""
        return [self.weight, self.bound, self.goal, self.decay, self.gain]

    def reset(self):
        """Takes the penalty away."""
        for variable in self.variables:
            variable.assign(0.0)

    def hold(self, weight, bound):
        """Sets a constant weight that rests at the bound."""
        self.reset()
        self.weight.assign(weight)
        self.bound.assign(bound)
        self.goal.assign(bound)
        self.decay.assign(1.0)

    def __call__(self, masks):
        """Returns the penalty for these masks, and adapts for the next step.

        Args:
            masks: List of float tensors of zeros and ones.

        Returns:
            Float32 scalar tensor.
        """
        counts = [ops.cast(_count(mask), "float32") for mask in masks]
        kept, bound = sum(counts), ops.convert_to_tensor(self.bound)
        weight, gain = ops.copy(self.weight), ops.convert_to_tensor(self.gain)
        # Plus one: a bound of zero is that of a penalty which never rests.
        error = ops.log((kept + 1.0) / (bound + 1.0)) / BAND
        self.weight.assign(weight * ops.exp(gain * ops.clip(error, -1.0, 1.0)))
        self.bound.assign(ops.maximum(self.goal, bound * self.decay))
        pulls = ops.cast(kept > bound, "float32")
        squares = [
            ops.cast(count > 1.0, "float32") * ops.sum(ops.square(w.score))
            for count, w in zip(counts, self.prunable, strict=True)
        ]
        return pulls * weight * sum(squares)


def _count(mask):
    """Returns the sum of a mask, exactly, without a copy in other numbers."""
    # TensorFlow adds up int32 on the host, and JAX has no int64.
    tensorflow = keras.backend.backend() == "tensorflow"
    wide = "int64" if tensorflow else "int32"
    return ops.sum(ops.cast(ops.sum(mask, axis=-1), wide))
