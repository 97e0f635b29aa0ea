"""What methods share that move masks while the weights train."""

import keras

from tf_gems import training_data
from tf_gems.callbacks.rewiring_callback import RewiringCallback
from tf_gems.methods.random_pruning import RandomPruning
from tf_gems.methods.trained import Trained
from tf_gems.methods.trained import alive_masks
from tf_gems.network import prunable_weights
from tf_gems.selection.patterns import Unstructured
from tf_gems.validation import check_integer


class DynamicSparseTraining(Trained):
    """Base class of methods that drop weights, and grow others, in training.

    The network is sparse from the beginning to the end: it starts from random
    masks, and the counts of every weight never change. A subclass says what
    grows. See `tf_gems.callbacks.RewiringCallback` for the rule. The ticket
    holds the trained weights: it is accurate as it is.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer. Defaults to `100`.
        learning_rate: See `tf_gems.methods.Trained`. Defaults to `None`: that
            of the compiled optimizer.
        update_period: Positive integer, steps between updates. Defaults to
            `100`.
        fraction: Float in (0, 1], the fraction replaced at first, falling to
            zero as a cosine; or a `tf_gems.schedules.Schedule`. Defaults to
            `0.3`.
        end: Float in (0, 1], the fraction of training at which updates end.
            Defaults to `0.75`.
        seed: Integer, of all that is random. Defaults to `0`.
        distribution: See `tf_gems.distributions.get`. Defaults to `"erk"`.
        **kwargs: `pattern`, which must be `"unstructured"`.
    """

    phase = "finetuning"

    def __init__(
        self,
        target_sparsity,
        epochs=100,
        learning_rate=None,
        update_period=100,
        fraction=0.3,
        end=0.75,
        seed=0,
        distribution="erk",
        **kwargs,
    ):
        kwargs["distribution"] = distribution
        super().__init__(target_sparsity, epochs, learning_rate, **kwargs)
        if not isinstance(self.pattern, Unstructured):
            raise ValueError(
                f"{type(self).__name__} drops and grows single weights. "
                f"Received: pattern={type(self.pattern).__name__} "
                f"{self.pattern.get_config()}. Use pattern='unstructured', or "
                "another method, such as 'gradual_magnitude'."
            )
        settings = RewiringCallback(None, update_period, fraction, end)
        self.update_period = settings.update_period
        self.fraction = settings.fraction
        self.end = settings.end
        self.seed = check_integer(seed, "seed")

    def growth(self, data):
        """Returns what `RewiringCallback` needs to know of what grows."""
        raise NotImplementedError

    def callback(self, x=None, y=None, **arguments):
        """Returns a new callback that moves the masks during `fit`.

        Args:
            x: The data, for methods that look at it, as for `find`. Defaults
                to `None`.
            y: As for `find`. Defaults to `None`.
            **arguments: Those of `find` for its data.
        """
        data = training_data.read(x, y, **arguments)
        return RewiringCallback(
            self.growth(data), self.update_period, self.fraction, self.end
        )

    def callbacks_for(self, data):
        return [self.callback(data)]

    def prepare(self, model):
        """Gives a model random masks, and the phase in which weights train."""
        super().prepare(model)
        random = RandomPruning(
            self.target_sparsity, self.seed, distribution=self.distribution
        )
        scores = random.scores(model, None)
        density = 1.0 - self.target_sparsity
        masks = random.keep(model, scores, density, alive_masks(model))
        for weight, mask in zip(prunable_weights(model), masks, strict=True):
            weight.alive.assign(mask)

    def get_config(self):
        return {
            **super().get_config(),
            "update_period": self.update_period,
            "fraction": keras.saving.serialize_keras_object(self.fraction),
            "end": self.end,
            "seed": self.seed,
        }
