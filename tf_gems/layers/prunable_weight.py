"""A weight with what pruning adds to it."""

import dataclasses

import keras
import numpy as np
from keras import ops

from tf_gems.layers.flags import Flags


class UnitInterval(keras.constraints.Constraint):
    """Projects scores to [0, 1] after every update."""

    def __call__(self, value):
        return ops.clip(value, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class PrunableWeight:
    """A weight `w` with its score `p` and its flags `q` (`True`: alive).

    Args:
        path: String that is unique in the network.
        weight: `keras.Variable` of the wrapped layer.
        score: Float32 `keras.Variable` of the weight's shape.
        alive: `Flags` of the weight's shape.
    """

    path: str
    weight: keras.Variable
    score: keras.Variable
    alive: Flags

    @classmethod
    def add_to(cls, layer, path, weight, initializer, projected):
        """Adds the score and the flags of a weight to a layer.

        Args:
            layer: Keras layer that is to own them.
            path: String that is unique in the network.
            weight: `keras.Variable`.
            initializer: Keras initializer of the score.
            projected: Whether updates of the score are projected to [0, 1].

        Returns:
            `PrunableWeight`.
        """
        name = path.replace("/", "_")  # torch takes no dots
        score = layer.add_weight(
            name=f"{name}_score",
            shape=weight.shape,
            dtype="float32",
            initializer=initializer,
            autocast=False,
        )
        alive = Flags(layer, f"{name}_alive", weight.shape)
        prunable = cls(path, weight, score, alive)
        prunable.project(projected)
        return prunable

    def read_score(self):
        """Returns the score as a NumPy array that is only to be read.

        Where the backend allows it, it is the memory of the score itself.
        """
        score = ops.convert_to_tensor(self.score)
        if keras.backend.backend() in ("tensorflow", "jax"):
            return np.asarray(score)
        return ops.convert_to_numpy(score)

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
        """Returns whether no number of the score is infinite or NaN."""
        if self.on_accelerator:
            return bool(ops.all(ops.isfinite(self.score)))
        # No array of as many bools: a NaN is its own minimum.
        score = self.read_score()
        return bool(np.isfinite(np.min(score)) and np.isfinite(np.max(score)))

    def project(self, projected):
        """Says whether updates of the score are projected to [0, 1]."""
        self.score.constraint = UnitInterval() if projected else None
