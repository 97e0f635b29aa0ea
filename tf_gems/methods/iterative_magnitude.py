"""Iterative magnitude pruning, with rewound weights."""

import keras

from tf_gems.callbacks.rewind_point import RewindPoint
from tf_gems.methods.learning_rate_rewinding import LearningRateRewinding


@keras.saving.register_keras_serializable(package="tf_gems")
class IterativeMagnitude(LearningRateRewinding):
    """Trains, prunes, and takes the weights back to an early step: IMP.

    The rounds are those of `tf_gems.methods.LearningRateRewinding`. After
    each one all that the network has, biases and normalisation included,
    returns to its values of step `rewind_steps` of the first round; only the
    masks stay. The ticket holds these values.

    In `directory` they are kept as `rewind.gem`, a ticket that prunes nothing.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer, of each round. Defaults to `150`.
        learning_rate: In each round, see `tf_gems.methods.Trained`. Defaults
            to `None`: that of the compiled optimizer.
        rewind_steps: Integer, within the first round. Defaults to `0`: to the
            initial values. The steps of about two epochs are usual for deep
            networks, which find no accurate tickets at initialization.
        rate: Float in (0, 1), about the part of the alive weights that a
            round prunes: there are `log(d) / log(1 - rate)` rounds, rounded,
            with the target density `d`. Defaults to `0.2`.
        rounds: Positive integer, the number of rounds, whatever `rate` is.
            Defaults to `None`: given by `rate`.
        distribution: See `tf_gems.distributions.get`. Defaults to
            `"global"`, as in the papers, whose tickets start from an
            initialization. It can empty layers of small weights, such as
            depthwise convolutions; `"lamp"` does not.
        **kwargs: `pattern`, see `tf_gems.methods.Method`.

    Example:

    ```python
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    imp = tf_gems.methods.IterativeMagnitude(0.9856, rewind_steps=1000)
    ticket = imp.find(sparse, data, directory="imp")
    ```

    Reference: Frankle & Carbin, 2019, "The Lottery Ticket Hypothesis",
    section 2; Frankle et al., 2020, "Linear Mode Connectivity and the Lottery
    Ticket Hypothesis", for `rewind_steps`.
    """

    def __init__(
        self,
        target_sparsity,
        epochs=150,
        learning_rate=None,
        rewind_steps=0,
        rate=0.2,
        rounds=None,
        distribution="global",
        **kwargs,
    ):
        super().__init__(
            target_sparsity,
            epochs,
            learning_rate,
            rate,
            rounds,
            distribution,
            **kwargs,
        )
        self.rewind_steps = RewindPoint(rewind_steps).steps  # after a check

    def rewind_point(self, directory):
        return RewindPoint(
            self.rewind_steps, directory and directory / "rewind.gem"
        )

    def get_config(self):
        return {**super().get_config(), "rewind_steps": self.rewind_steps}
