"""A prunable weight, with its score and its flags."""

import dataclasses

import keras
import numpy as np
from keras import ops

from tf_gems.layers.calling import add_state
from tf_gems.layers.flags import Flags
from tf_gems.layers.wrapped_variable import wrap_score


class UnitInterval(keras.constraints.Constraint):
    """Shrinks scores, and projects them to [0, 1], after every update.

    p <- clip(p * (1 - shrinkage), 0, 1)
    """

    def __init__(self, shrinkage):
        self.shrinkage = shrinkage

    def __call__(self, value):
        return ops.clip(value * (1.0 - self.shrinkage), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class PrunableWeight:
    """A weight `w` with its score `p` and its flags `q` (`True`: alive).

    Args:
        path: String that is unique in the network.
        weight: `keras.Variable` of the wrapped layer.
        score: Float32 `keras.Variable` of the weight's shape.
        alive: `Flags` of the weight's shape.
        shrinkage: Float32 scalar `keras.Variable`, the part of the score that
            is taken away after the optimizer's next step.
    """

    path: str
    weight: keras.Variable
    score: keras.Variable
    alive: Flags
    shrinkage: keras.Variable

    @classmethod
    def add_to(cls, layer, path, weight, initializer, projected):
        """Adds the score and the flags of a weight to a layer."""
        name = path.replace("/", "_")  # torch takes no dots
        score = layer.add_weight(
            name=f"{name}_score",
            shape=weight.shape,
            dtype="float32",
            initializer=initializer,
            autocast=False,
        )
        wrap_score(score, weight)
        alive = Flags(layer, f"{name}_alive", weight.shape)
        shrinkage = add_state(
            *(layer, f"{name}_shrinkage", "float32"),
            overwrite_with_gradient=_stateless(),
        )
        prunable = cls(path, weight, score, alive, shrinkage)
        prunable.project(projected)
        return prunable

    def read_score(self):
        """Returns the score as a read-only NumPy array, without a copy if the
        backend allows it.
        """
        score = ops.convert_to_tensor(self.score)
        if keras.backend.backend() in ("tensorflow", "jax"):
            return np.asarray(score)
        return ops.convert_to_numpy(score)

    def read_weight(self):
        """Returns the weight as a float32 NumPy array, unmasked."""
        return ops.convert_to_numpy(ops.cast(self.weight, "float32"))

    def shrink(self, shrinkage):
        """Sets by how much the score shrinks after the optimizer's next step.

        On JAX, only gradients pass from the network to the optimizer within a
        step. So the value is returned as the gradient of a loss of zero, with
        which Keras overwrites the variable (`overwrite_with_gradient`).
        """
        if _stateless():
            return _with_gradient(ops.copy(self.shrinkage), shrinkage)
        self.shrinkage.assign(shrinkage)
        return 0.0

    def set_trainable(self, trainable):
        """Sets whether the score trains."""
        self.score.trainable = trainable
        self.shrinkage.trainable = trainable and _stateless()

    def raise_score(self):
        """Raises the score to one wherever it is alive."""
        alive, score = self.alive.read(), ops.copy(self.score)
        self.score.assign(ops.where(alive, 1.0, score))

    @property
    def on_accelerator(self):
        """Whether the score is in the memory of a GPU or TPU."""
        score = self.score.value
        if keras.backend.backend() == "tensorflow":
            return "CPU" not in score.device
        if keras.backend.backend() == "jax":
            return all(d.platform != "cpu" for d in score.devices())
        return False

    def has_finite_score(self):
        """Returns whether all numbers of the score are finite."""
        if self.on_accelerator:
            return bool(ops.all(ops.isfinite(self.score)))
        # Without an array of bools: the minimum of NaN and others is NaN.
        score = self.read_score()
        return bool(np.isfinite(np.min(score)) and np.isfinite(np.max(score)))

    def project(self, projected):
        """Sets whether updates of the score are projected to [0, 1]."""
        self.score.constraint = (
            UnitInterval(self.shrinkage) if projected else None
        )


def set_alive(weights, masks):
    """Sets which entries of `PrunableWeight`s are alive, by bool arrays."""
    for weight, mask in zip(weights, masks, strict=True):
        weight.alive.assign(mask)


def density_of(weights):
    """Returns the fraction of the entries of weights that is alive."""
    alive = sum(weight.alive.count() for weight in weights)
    return alive / sum(weight.alive.size for weight in weights)


def _stateless():
    return keras.backend.backend() == "jax"


@ops.custom_gradient
def _with_gradient(variable, value):
    """Returns zero, whose gradient to the variable is the value."""

    def gradient(*args, upstream=None):
        return value, ops.zeros_like(value)

    return ops.zeros_like(variable), gradient
