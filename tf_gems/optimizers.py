"""An optimizer that takes a hyperbolic step after each of its own (HAM)."""

import keras
from keras import ops

from tf_gems.optimizer_copy import config_of
from tf_gems.validation import is_number


@keras.saving.register_keras_serializable(package="tf_gems")
class HyperbolicStep:
    """Base class of the optimizers that `hyperbolic_step` returns."""

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
        kind = type(self).__bases__[1]
        return {
            **super().get_config(),
            "hyperbolic": self.hyperbolic,
            "optimizer": keras.saving.get_registered_name(kind),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        name = config.pop("optimizer")
        kind = keras.saving.get_registered_object(name, custom_objects)
        kind = kind or getattr(keras.optimizers, str(name), None)
        _refuse_no_optimizer(kind)
        kind = _class_of(kind)
        return super(HyperbolicStep, kind).from_config(config, custom_objects)


def hyperbolic_step(optimizer, alpha=200.0, beta=1e-3):
    """Returns an optimizer that takes a hyperbolic step after each of its own.

    After each step of the optimizer, every weight of two or more dimensions
    is multiplied by a factor,

        w <- w * exp(learning_rate * (-alpha * sign(w) * g - beta)),

    with the gradient `g` that the optimizer was given. Weights near zero
    change sign more easily, and those that the loss does not need shrink. A
    weight of zero stays zero, so masks hold. In one step a weight changes by
    a factor of `e` at most, which the paper leaves to clipped gradients.

    Use it where weights train: to fine-tune a ticket, or while
    `tf_gems.GradualMagnitudeCallback` and other methods prune trained weights.
    Scores of mining are not such weights.

    Args:
        optimizer: `keras.optimizers.Optimizer` that is not built yet. It is
            copied. For mixed precision, wrap the result in
            `keras.optimizers.LossScaleOptimizer`.
        alpha: Float, zero or more, the strength with which gradients scale
            weights. Defaults to `200.0`, as in the authors' code.
        beta: Float, zero or more, the strength with which weights shrink.
            Defaults to `1e-3`, as in the authors' code.

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
    _refuse_no_optimizer(type(optimizer))
    if isinstance(optimizer, HyperbolicStep):
        raise ValueError(
            "An optimizer takes one hyperbolic step. Received: optimizer of "
            f"type {type(optimizer).__name__}, which takes one already."
        )
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not is_number(value) or not 0 <= value < float("inf"):
            raise ValueError(
                f"`{name}` is a number that is zero or more. "
                f"Received: {name}={value!r:.300}. The authors' code has "
                "alpha=200 and beta=1e-3."
            )
    hyperbolic = {"alpha": float(alpha), "beta": float(beta)}
    config = {**config_of(optimizer), "hyperbolic": hyperbolic}
    kind = _class_of(_without_backend(type(optimizer)))
    return super(HyperbolicStep, kind).from_config(config)


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


def _class_of(kind):
    """Returns the subclass of an optimizer's class that takes the step."""
    members = {"__module__": HyperbolicStep.__module__}
    found = type(f"Hyperbolic{kind.__name__}", (HyperbolicStep, kind), members)
    register = keras.saving.register_keras_serializable(
        "tf_gems", "HyperbolicStep"
    )
    return register(found)


def _refuse_no_optimizer(kind):
    # These compute weights from variables of their own: the step is lost.
    others = (
        keras.optimizers.LossScaleOptimizer,
        keras.optimizers.Ftrl,
        getattr(keras.optimizers, "ScheduleFreeAdamW", keras.optimizers.Ftrl),
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
            "A hyperbolic step follows that of a Keras optimizer which updates "
            "weights itself. Received: optimizer of type "
            f"{getattr(kind, '__name__', kind)!r:.300}. Pass an optimizer such "
            "as `SGD` or `Adam`; wrap the result in `LossScaleOptimizer`."
        )
