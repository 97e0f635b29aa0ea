"""Optimizers for scores and for sparse weights, based on those of Keras."""

import functools
import math

import keras
from keras import ops

from tf_gems._keras import learning_rate_of
from tf_gems.layers.wrapped_variable import ScoreVariable
from tf_gems.optimizer_copy import config_of
from tf_gems.validation import is_number


class Step:
    """Base class of the optimizers that this module makes from others."""

    def get_config(self):
        kind = type(self).__bases__[1]
        return {
            **super().get_config(),
            "optimizer": keras.saving.get_registered_name(kind),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        name = config.pop("optimizer")
        kind = keras.saving.get_registered_object(name, custom_objects)
        kind = kind or getattr(keras.optimizers, str(name), None)
        # Keras finds the subclass that was made last by the registered name.
        step = next(c for c in cls.__mro__ if "WHAT" in vars(c))
        return step.of(kind, config, custom_objects)

    @classmethod
    def of(cls, kind, config, custom_objects=None):
        """Returns an optimizer of a subclass of `kind` that takes the step."""
        cls.refuse(kind)
        made = super(Step, _class_of(cls, _without_backend(kind)))
        return made.from_config(config, custom_objects)

    @classmethod
    def refuse(cls, kind):
        # These compute weights from variables of their own: the step is lost.
        others = (
            Step,
            keras.optimizers.LossScaleOptimizer,
            keras.optimizers.Ftrl,
            getattr(
                keras.optimizers, "ScheduleFreeAdamW", keras.optimizers.Ftrl
            ),
        )
        is_one = isinstance(kind, type) and issubclass(
            kind, keras.optimizers.Optimizer
        )
        if (
            not is_one
            or issubclass(kind, others)
            or kind.update_step is keras.optimizers.Optimizer.update_step
        ):
            raise ValueError(
                f"{cls.WHAT} requires a Keras optimizer that updates weights "
                "itself and is not one of `tf_gems.optimizers`. Received: "
                f"optimizer of type {getattr(kind, '__name__', kind)!r:.300}. "
                "Pass an optimizer such as `SGD` or `Adam`; wrap the result "
                "in `LossScaleOptimizer`."
            )


def _without_backend(kind):
    """Returns the class that updates weights one by one.

    On torch, Keras makes optimizers of other classes, which update all
    weights at once and never call `update_step`.
    """
    return next(
        base
        for base in kind.__mro__
        if not base.__module__.startswith("keras.src.backend.")
    )


@functools.cache
def _class_of(step, kind):
    """Returns the subclass of an optimizer's class that takes a step."""
    name = step.__name__
    members = {"__module__": step.__module__}
    found = type(f"{name}{kind.__name__}", (step, kind), members)
    return keras.saving.register_keras_serializable("tf_gems", name)(found)


@keras.saving.register_keras_serializable(package="tf_gems")
class HyperbolicStep(Step):
    """Base class of the optimizers that `hyperbolic_step` returns."""

    WHAT = "A hyperbolic step"

    def __init__(self, *args, hyperbolic, **kwargs):
        super().__init__(*args, **kwargs)
        self.hyperbolic = dict(hyperbolic)

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate)
        if len(variable.shape) < 2:  # a bias, or a scale of normalization
            return
        alpha, beta = self.hyperbolic["alpha"], self.hyperbolic["beta"]
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype)
        # w <- w * exp(rate * (-alpha * sign(w) * g - beta))
        step = -alpha * ops.sign(variable) * gradient - beta
        # A factor of e at most, whatever a single gradient is.
        step = ops.clip(rate * step, -1.0, 1.0)
        variable.assign(variable * ops.exp(step))

    def get_config(self):
        return {**super().get_config(), "hyperbolic": self.hyperbolic}


@keras.saving.register_keras_serializable(package="tf_gems")
class DensityScaling(Step):
    """Base class of the optimizers that `density_scaling` returns."""

    WHAT = "Scaling by density"

    def update_step(self, gradient, variable, learning_rate):
        if len(variable.shape) > 1:
            kept = ops.cast(ops.not_equal(variable, 0), variable.dtype)
            # 1 - s of every neuron i, and its mean over the layer.
            inputs = tuple(range(len(variable.shape) - 1))
            density = ops.mean(kept, inputs)
            mean = ops.maximum(ops.mean(density), keras.config.epsilon())
            rate = ops.cast(learning_rate, variable.dtype)
            learning_rate = rate * ops.sqrt(density / mean)
        super().update_step(gradient, variable, learning_rate)


@keras.saving.register_keras_serializable(package="tf_gems")
class ScoreOptimizer(keras.optimizers.Adam):
    """Adam for scores, with a learning rate derived from the length of mining.

    Scores lie in [0, 1], and a step of Adam moves a score by about the
    learning rate, independently of the network, the loss and the batch size.
    The sum of all learning rates therefore bounds how far a score can move, so
    no learning rate has to be tuned. In epoch `e` of mining,

        learning_rate = travel / steps * (1 + cos(pi * (e + 0.5) / epochs)) / 2

    where `steps` is the number of steps of all epochs. `GemMinerCallback` sets
    it when an epoch begins. `SparseModel.compile("auto")` uses this optimizer.

    Args:
        travel: Positive float, twice the sum of all learning rates, which is
            the distance that a score can move at a constant learning rate.
            Defaults to `20.0`.
        learning_rate: Float, or a Keras schedule, which is then used instead.
            Defaults to `0.01`, which is used until the number of steps is
            known, that is, in the first epoch of data of unknown length.
        **kwargs: As for `keras.optimizers.Adam`.

    Example:

    ```python
    optimizer = tf_gems.optimizers.ScoreOptimizer()
    sparse.compile(optimizer, loss, metrics=["accuracy"])
    sparse.fit(data, epochs=20, callbacks=[tf_gems.GemMinerCallback(0.95)])
    ```

    Reference: Kingma & Ba, 2015, "Adam: A Method for Stochastic Optimization",
    section 2.1, on the length of its steps.
    """

    def __init__(self, travel=20.0, learning_rate=0.01, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        if not is_number(travel) or not 0 < travel < math.inf:
            raise ValueError(
                "`travel` must be a positive number, the distance that a "
                f"score can move. Received: travel={travel!r:.100}. Leave it "
                "out, or pass 20."
            )
        self.travel = float(travel)

    def build(self, variables):
        others = [
            v.path
            for v in variables
            # On JAX also what scores shrink by, which is overwritten.
            if not isinstance(v, ScoreVariable)
            and not v.overwrite_with_gradient
        ]
        if others:
            raise ValueError(
                "`ScoreOptimizer` trains scores during mining. Received: "
                f"variables {', '.join(others[:3])}, which are weights. "
                "Compile with an optimizer for weights, such as "
                "`keras.optimizers.SGD(0.1, momentum=0.9)`."
            )
        super().build(variables)

    def begin_epoch(self, epoch, epochs, steps):
        """Sets the learning rate of an epoch.

        Args:
            epoch: Integer, from 0.
            epochs: Integer, the length of mining.
            steps: Float, the number of steps of all epochs.
        """
        falling = (1 + math.cos(math.pi * min(1, (epoch + 0.5) / epochs))) / 2
        self.learning_rate = self.travel / steps * falling

    def get_config(self):
        return {**super().get_config(), "travel": self.travel}


def score_optimizers(optimizer):
    """Returns the parts of an optimizer that set their learning rate."""
    return [
        part
        for part in optimizer_parts(optimizer)
        if isinstance(part, ScoreOptimizer)
        and isinstance(learning_rate_of(part), keras.Variable)
    ]


def optimizer_parts(optimizer):
    """Returns what an optimizer is made of.

    A scaled loss has one optimizer within, a `MultiOptimizer` several.
    """
    inner = getattr(optimizer, "inner_optimizer", None)
    return [inner] if inner else getattr(optimizer, "optimizers", [optimizer])


def hyperbolic_step(optimizer, alpha=200.0, beta=1e-3):
    """Returns an optimizer with a hyperbolic step after each of its steps.

    After each step of the optimizer, every weight of two or more dimensions
    is multiplied by a factor,

        w <- w * exp(learning_rate * (-alpha * sign(w) * g - beta)),

    with the gradient `g` that the optimizer receives. Weights near zero change
    their sign more easily, and weights that the loss does not depend on
    shrink. A weight of zero stays zero, so masks are preserved. In one step a
    weight changes at most by a factor of `e`; the paper clips gradients
    instead.

    Use it when weights train: to fine-tune a ticket, or while
    `tf_gems.GradualMagnitudeCallback` and other methods prune trained weights.
    Do not use it for mining, which trains scores.

    Args:
        optimizer: `keras.optimizers.Optimizer` that is not built yet. It is
            copied. For mixed precision, wrap the result in
            `keras.optimizers.LossScaleOptimizer`.
        alpha: Float of at least zero, the effect of gradients on the factor.
            It acts times the learning rate: 200 suits a learning rate of
            0.001, as is usual for Adam. With SGD and a learning rate of 0.1,
            pass about 2; 200 makes weights of a sparse network grow without
            bound. Defaults to `200.0`, as in the authors' code.
        beta: Float of at least zero, the strength of the shrinkage. Defaults
            to `1e-3`, as in the authors' code.

    Returns:
        Optimizer of a subclass of the type of `optimizer`.

    Raises:
        ValueError: If the optimizer cannot be copied, or a number is out of
            range.

    Example:

    >>> optimizer = hyperbolic_step(keras.optimizers.SGD(0.1), alpha=1.0)
    >>> weight = keras.Variable([[1.0, -1.0]])
    >>> optimizer.apply([ops.array([[0.5, 0.5]])], [weight])
    >>> [round(float(w), 3) for w in weight[0]]
    [0.904, -1.104]

    Reference: Jacobs et al., 2026, "Hyperbolic Aware Minimization: Implicit
    Bias for Sparsity", equation 3.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not is_number(value) or not 0 <= value < float("inf"):
            raise ValueError(
                f"`{name}` must be a number of at least zero. Received: "
                f"{name}={value!r:.300}. The authors' code uses alpha=200 and "
                "beta=1e-3."
            )
    hyperbolic = {"alpha": float(alpha), "beta": float(beta)}
    HyperbolicStep.refuse(type(optimizer))
    config = {**config_of(optimizer), "hyperbolic": hyperbolic}
    return HyperbolicStep.of(type(optimizer), config)


def density_scaling(optimizer):
    """Returns an optimizer that scales the step of each neuron by its density.

    With batch normalization, the gradient of a neuron grows as its number of
    weights falls, so that the sparsest neurons take the largest steps. If the
    fraction `s_i` of the inputs of neuron `i` is pruned, the learning rate of
    its weights is

        learning_rate * sqrt((1 - s_i) / (1 - s_mean)),

    where `1 - s_mean` is the mean over the neurons of the layer. Weights that
    are exactly zero count as pruned. Neurons are the last axis of a weight of
    two or more dimensions. Other weights, and layers without zeros, are not
    affected.

    Args:
        optimizer: `keras.optimizers.Optimizer` that is not built yet. It is
            copied. For mixed precision, wrap the result in
            `keras.optimizers.LossScaleOptimizer`.

    Returns:
        Optimizer of a subclass of the type of `optimizer`.

    Raises:
        ValueError: If the optimizer cannot be copied.

    Example:

    >>> optimizer = density_scaling(keras.optimizers.SGD(1.0))
    >>> weight = keras.Variable([[5.0, 5.0], [5.0, 0.0]])
    >>> optimizer.apply([ops.array([[1.0, 1.0], [1.0, 0.0]])], [weight])
    >>> [round(float(w), 3) for w in weight[0]]
    [3.845, 4.184]

    Reference: Adnan et al., 2026, "SparseOpt: Addressing
    Normalization-induced Gradient Skew in Sparse Training".
    """
    DensityScaling.refuse(type(optimizer))
    return DensityScaling.of(type(optimizer), config_of(optimizer))
