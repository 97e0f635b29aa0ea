"""Iterative magnitude pruning: rounds of training, with rewound weights."""

import keras
import numpy as np
from keras import ops

from tf_gems.methods.learning_rate_rewinding import LearningRateRewinding
from tf_gems.network import network_weights
from tf_gems.network import prunable_weights
from tf_gems.targets import check_path
from tf_gems.ticket import Ticket
from tf_gems.validation import check_integer


@keras.saving.register_keras_serializable(package="tf_gems")
class IterativeMagnitude(LearningRateRewinding):
    """Iterative magnitude pruning (IMP): trains, prunes, and rewinds weights.

    The rounds are those of `tf_gems.methods.LearningRateRewinding`. After each
    round, all weights, including biases and normalization, are reset to their
    values at step `rewind_steps` of the first round; only the masks stay. The
    ticket holds these values. In `directory` they are saved as `rewind.gem`.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer, of each round. Defaults to `150`.
        learning_rate: In each round, see `tf_gems.methods.Trained`. Defaults
            to `None`: that of the compiled optimizer.
        rewind_steps: Integer, a step of the first round. Defaults to `0`: the
            initial values. For deep networks, which have no accurate tickets
            at initialization, the number of steps of about two epochs is
            common.
        rate: Float in (0, 1), the approximate fraction of the alive weights
            that a round prunes. The number of rounds is `log(d) / log(1 -
            rate)`, rounded, with the target density `d`. Defaults to `0.2`.
        rounds: Positive integer, the number of rounds, instead of `rate`.
            Defaults to `None`: computed from `rate`.
        distribution: See `tf_gems.distributions.get`. Defaults to `"global"`,
            as in the papers, whose tickets start from an initialization.
            `"global"` can empty layers of small weights, such as depthwise
            convolutions; `"lamp"` does not.
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


class RewindPoint(keras.callbacks.Callback):
    """Saves all weights of the network at an early step of training.

    They are saved in the first `fit`. With `steps_per_execution`, they are
    saved at the end of the execution that contains the step. A training that
    is resumed later reads them from the file.

    Args:
        steps: Integer of at least zero, the number of optimizer steps.
        path: Path of the file, a `tf_gems.Ticket` that prunes nothing.
            Defaults to `None`: the weights are kept in memory.

    Raises:
        FileExistsError: If the file at `path` is not such a ticket. It is not
            replaced.
        ValueError: If `steps` is out of range, or training is shorter.

    Example:

    ```python
    point = tf_gems.methods.RewindPoint(1000)
    sparse.fit(data, epochs=150, callbacks=[point])
    point.rewind(sparse)
    ```

    Reference: Frankle et al., 2020, "Linear Mode Connectivity and the Lottery
    Ticket Hypothesis", section 4.
    """

    def __init__(self, steps, path=None):
        super().__init__()
        self.steps = check_integer(steps, "rewind_steps")
        self.path = None if path is None else check_path(path, "path")
        self.ticket = None

    def rewind(self, model):
        """Resets the weights of a model to that step, and keeps its masks."""
        if self.ticket is None:
            self.ticket = Ticket.load(self.path)
        for variable, value in zip(
            network_weights(model), self.ticket.weights.values(), strict=True
        ):
            variable.assign(value)

    def on_train_begin(self, logs=None):
        self._refuse_other_file()
        steps = self.params.get("steps")
        if steps:
            self._refuse_later_than(steps * self.params["epochs"])

    def on_epoch_begin(self, epoch, logs=None):
        # Here, not when training begins: a backup is restored after that.
        if self.ticket is None and self._step() == self.steps:
            self._take()
        elif self.ticket is None and self._step() > self.steps:
            self.ticket = Ticket.load(self.path)

    def on_train_batch_end(self, batch, logs=None):
        if self.ticket is not None:
            return
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        if self._step() >= self.steps:
            self._take()

    def on_train_end(self, logs=None):
        if self.ticket is None and not (self.path and self.path.exists()):
            self._refuse_later_than(self._step())

    def _step(self):
        return int(ops.convert_to_numpy(self.model.optimizer.iterations))

    def _take(self):
        shapes = [w.weight.shape for w in prunable_weights(self.model)]
        whole = [np.ones(shape, bool) for shape in shapes]
        self.ticket = Ticket.from_masks(self.model, whole)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.ticket.save(self.path)

    def _refuse_other_file(self):
        """Refuses a file that prunes something: it is not a rewind point."""
        if self.ticket is not None or not self.path or not self.path.exists():
            return
        try:
            masks = Ticket.load(self.path).masks.values()
        except (OSError, ValueError):
            masks = None
        if masks is None or not all(mask.all() for mask in masks):
            raise FileExistsError(
                "The weights to rewind to must be in a separate file. "
                f"Received: path='{self.path}', which contains something "
                "else. Choose another directory, or move the file."
            )

    def _refuse_later_than(self, length):
        if self.steps > length:
            raise ValueError(
                "Weights can only be rewound to a step of the first "
                f"training. Received: rewind_steps={self.steps}, for a "
                f"training of {length} steps. Reduce it, or train for more "
                "epochs."
            )
