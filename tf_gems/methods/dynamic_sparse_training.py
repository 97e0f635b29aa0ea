"""Dynamic sparse training: masks that move while the weights train."""

import keras
import numpy as np
from keras import ops

from tf_gems import schedules
from tf_gems import training_data
from tf_gems.layers.prunable_weight import density_of
from tf_gems.layers.prunable_weight import set_alive
from tf_gems.methods.random_pruning import RandomPruning
from tf_gems.methods.trained import Trained
from tf_gems.methods.trained import alive_masks
from tf_gems.methods.trained import log_sparsity
from tf_gems.methods.trained import weights_in_training
from tf_gems.network import prunable_weights
from tf_gems.selection.masks import keep_largest
from tf_gems.selection.patterns import Unstructured
from tf_gems.validation import check_integer
from tf_gems.validation import check_positive_integer
from tf_gems.validation import is_function
from tf_gems.validation import is_number


class RewiringCallback(keras.callbacks.Callback):
    """Changes the masks of a sparse network while `fit` trains its weights.

    Every `update_period` steps, in each weight, the fraction `f(t)` of the
    smallest `|w|` that are alive is dropped, and as many others grow. The
    number of nonzero entries of each weight never changes. Until step `T`,

        f(t) = fraction / 2 * (1 + cos(pi * t / T)),  T = end * all steps.

    As in Algorithm 1 of the paper, all weights that are not alive after the
    drop can grow. A weight that was just dropped and grows again keeps its
    value, as in the authors' code. All other weights grow from zero, and
    dropped weights are set to zero.

    With `steps_per_execution`, an update takes place at the end of the
    execution that contains its step. Updates depend only on the step and on
    the model's variables, so a run that is resumed at an epoch gives the same
    result.

    Epoch logs: `sparsity` and `density`.

    Args:
        growth: Function of the model, the list of masked weights (float32
            arrays) and the number of the update (1, 2, ...). It returns a list
            of scores, and the weights with the largest scores grow. Methods
            create it: `tf_gems.methods.RigL(0.9).callback(data)`.
        update_period: Positive integer, steps between updates. Defaults to
            `100`.
        fraction: Float in (0, 1], see above; or a
            `tf_gems.schedules.Schedule` of `f` over the progress `t / T`.
            Defaults to `0.3`.
        end: Float in (0, 1], the fraction of training at which updates end.
            Defaults to `0.75`.

    Raises:
        ValueError: If an argument is out of range, the model is in the mining
            phase or not sparse yet, or the number of steps is unknown.

    Reference: Evci et al., 2020, "Rigging the Lottery: Making All Tickets
    Winners", algorithm 1.
    """

    def __init__(self, growth, update_period=100, fraction=0.3, end=0.75):
        super().__init__()
        if growth is not None and not is_function(growth):
            raise ValueError(
                "`growth` must be a function that scores the weights that "
                f"can grow. Received: growth={growth!r:.300}. See "
                "`tf_gems.methods.RigL`."
            )
        self.growth = growth
        self.update_period = check_positive_integer(
            update_period, "update_period"
        )
        if is_number(fraction):
            if not 0 < fraction <= 1:
                raise ValueError(
                    "`fraction` must be the fraction of the alive weights to "
                    f"replace, in (0, 1]. Received: fraction={fraction!r}. "
                    "The paper uses 0.3."
                )
            fraction = schedules.Cosine(fraction)
        self.fraction = schedules.get(fraction, "fraction")
        ends = self.fraction(0.0), self.fraction(1.0)
        if not all(0 <= end <= 1 for end in ends):
            raise ValueError(
                "`fraction` must be a fraction of the weights, in [0, 1]. "
                f"Received: fraction={fraction!r:.300}, from {ends[0]:g} to "
                f"{ends[1]:g}. The paper uses 0.3."
            )
        if not is_number(end) or not 0 < end <= 1:
            raise ValueError(
                "`end` must be a fraction of training, in (0, 1]. Received: "
                f"end={end!r}. The paper uses 0.75."
            )
        self.end = float(end)
        self._weights = []
        self._epoch = 0
        self._step = 0

    def on_train_begin(self, logs=None):
        self._weights = weights_in_training(self.model, type(self).__name__)
        if self.params.get("steps") is None:
            raise ValueError(
                "Updates depend on the step, so the number of steps must be "
                "known. Received: data of unknown length. Pass "
                "`steps_per_epoch` to `fit`, or data with a length: "
                "`dataset.apply(tf.data.experimental.assert_cardinality(n))`."
            )

    def on_epoch_begin(self, epoch, logs=None):
        if density_of(self._weights) == 1:
            raise ValueError(
                f"`{type(self).__name__}` changes the masks of a sparse "
                f"network. Received: '{self.model.name}', in which all "
                "weights are alive. Call `prepare(model)` of the method, or "
                "`start_finetuning(ticket)`, and `compile`, before `fit`."
            )
        self._epoch = epoch
        self._step = epoch * self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        # `batch` is the last of an execution, which may have been cut short.
        self._reach(min(batch + 1, self.params["steps"]))

    def on_epoch_end(self, epoch, logs=None):
        # After an execution that was cut short Keras calls no batch hook.
        self._reach(self.params["steps"])
        log_sparsity(self._weights, logs)

    def _reach(self, step):
        """Updates if an update is due at a step since the last one."""
        step += self._epoch * self.params["steps"]
        before, self._step = self._step, step
        update = step // self.update_period
        last = self.end * self.params["epochs"] * self.params["steps"]
        if update > before // self.update_period and step < last:
            self._update(update, self.fraction(step / last))

    def _update(self, update, fraction):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        alive = [np.asarray(w.alive) for w in self._weights]
        values = [w.read_weight() for w in self._weights]
        masked = [value * a for value, a in zip(values, alive, strict=True)]
        scores = self.growth(self.model, masked, update)
        for weight, value, before, score in zip(
            self._weights, masked, alive, scores, strict=True
        ):
            mask = rewire(value, before, score, fraction)
            # What grew is zero: it was masked before.
            kept = ops.cast(value * mask, weight.weight.dtype)
            weight.weight.assign(kept)
            weight.alive.assign(mask)


def rewire(value, alive, score, fraction):
    """Returns the mask after an update, with as many ones as before.

    Args:
        value: Float array, a weight.
        alive: Bool array, its mask before.
        score: Float array; of those not alive the largest grow.
        fraction: Float in [0, 1], how much of what is alive is dropped,
            rounded down to whole entries.

    Example:

    >>> rewire(
    ...     np.array([3., 1., 0., 0.]), np.array([True, True, False, False]),
    ...     np.array([0., 0., 1., 2.]), 0.5).tolist()
    [True, False, False, True]
    """
    count = np.count_nonzero(alive)
    dropped = int(fraction * count)
    [kept] = keep_largest([np.abs(value)], count - dropped, [alive])
    [grown] = keep_largest([score], dropped, [~kept])
    return kept | grown


class DynamicSparseTraining(Trained):
    """Base class of methods that drop and grow weights during training.

    The network is always sparse. It starts with random masks, and the number
    of nonzero entries of each weight never changes. A subclass defines which
    weights grow. See `tf_gems.methods.RewiringCallback` for the rule. The
    ticket contains the trained weights and is accurate without further
    training.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer. Defaults to `100`.
        learning_rate: See `tf_gems.methods.Trained`. Defaults to `None`: that
            of the compiled optimizer.
        update_period: Positive integer, steps between updates. Defaults to
            `100`.
        fraction: Float in (0, 1], the initial fraction of replaced weights,
            which falls to zero as a cosine; or a `tf_gems.schedules.Schedule`.
            Defaults to `0.3`.
        end: Float in (0, 1], the fraction of training at which updates end.
            Defaults to `0.75`.
        seed: Integer, the seed of all random choices. Defaults to `0`.
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
        """Returns the argument `growth` of `RewiringCallback`."""
        raise NotImplementedError

    def callback(self, x=None, y=None, **arguments):
        """Returns a new callback that changes the masks during `fit`.

        Args:
            x: The data, for methods that require it, as for `find`. Defaults
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
        """Sets random masks, and the phase in which weights train."""
        super().prepare(model)
        random = RandomPruning(
            self.target_sparsity, self.seed, distribution=self.distribution
        )
        scores = random.scores(model, None)
        density = 1.0 - self.target_sparsity
        masks = random.keep(model, scores, density, alive_masks(model))
        set_alive(prunable_weights(model), masks)
