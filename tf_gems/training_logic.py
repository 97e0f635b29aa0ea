"""Which training methods of a model a user has overridden."""

import types
import warnings

import keras

from tf_gems import _keras
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.layers.pruning_scope import optimizers_of

# Methods that run on the user's own model, masked, if they are overridden.
STEPS = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
    "compile",
    "metrics",
    "get_metrics_result",
    "reset_metrics",
    "evaluate",
)
# Methods that drive the steps, which cannot be run for another model.
_LOOPS = (
    "fit",
    "train_on_batch",
    "test_on_batch",
    "predict_on_batch",
    "make_train_function",
    "make_test_function",
    "make_predict_function",
)
# What KerasHub overrides to prepare data, where there is a preprocessor.
_PREPARING = (*_LOOPS, "evaluate", "predict")
_GUIDE = (
    "Put `tf_gems.GemLayer`s or a `tf_gems.SparseModel` inside the model "
    "with the custom training logic, see docs/guides/training_loops.py."
)


def overridden(model, names=STEPS):
    """Returns which methods of a Keras model a user has written."""
    if not isinstance(model, keras.Model):
        return []
    return [name for name in names if not _is_of_keras(model, name)]


def _is_of_keras(model, name):
    for kind in type(model).__mro__:
        if name in vars(kind):
            package = kind.__module__.partition(".")[0]
            # Its loops preprocess, if there is a preprocessor.
            ready = getattr(model, "preprocessor", None) is None
            hub = package == "keras_hub" and name in _PREPARING and ready
            return package == "keras" or hub
    return True


def refuse_loops(model):
    """Raises an error for a model whose loops a user has written."""
    loops = overridden(model, _LOOPS)
    if loops:
        raise ValueError(
            "A pruned model is trained by the loops of Keras, such as `fit`, "
            "which call the `train_step` of the model. Received: "
            f"'{model.name}' of type {type(model).__name__}, which overrides "
            f"{_listed(loops)}. If this prepares the data, prepare it "
            "beforehand (a KerasHub model: `preprocessor=None`). " + _GUIDE
        )


def refuse_other_backends(model, names):
    """Raises an error for overridden steps on other backends."""
    backend = keras.backend.backend()
    names = [name for name in names if name != "compile"]
    if names and backend != "tensorflow":
        raise ValueError(
            "Custom training methods of a model require the TensorFlow "
            f"backend. Received: '{model.name}' of type "
            f"{type(model).__name__}, which overrides {_listed(names)}, on "
            f"backend={backend!r}. Set KERAS_BACKEND=tensorflow. Or: " + _GUIDE
        )


def refuse_other_optimizers(model):
    """Raises an error unless one optimizer, the compiled one, trains."""
    if getattr(model, "optimizer", None) is None or not model.compiled:
        raise ValueError(
            "Scores train with the optimizer of `compile`. Received: "
            f"`compile` of '{model.name}', which set none. Pass the optimizer "
            "to `super().compile(optimizer=...)`. Or: " + _GUIDE
        )
    others = [
        name
        for name, optimizer in optimizers_of(model).items()
        if optimizer is not model.optimizer
        and optimizer is not getattr(model.optimizer, "inner_optimizer", None)
    ]
    if others:
        raise ValueError(
            "Scores train with a single optimizer, that of `compile`. "
            f"Received: '{model.name}' of type {type(model).__name__}, which "
            f"has several optimizers: {_listed(['optimizer', *others])}. "
            f"{_GUIDE}"
        )


def refuse_unapplied(model):
    """Raises an error for a step that did not train the scores."""
    raise ValueError(
        "Scores train with the optimizer of `compile`. Received: "
        f"`train_step` of '{model.name}' of type {type(model).__name__}, "
        "which did not pass any score to the compiled optimizer. Update "
        "`self.trainable_variables`, or those of parts of the model, with "
        "`self.optimizer.apply_gradients`. Or: " + _GUIDE
    )


def warn_of_untrained(model, weights):
    """Warns of weights that are pruned, but not trained by a user's step.

    Args:
        model: The user's Keras model.
        weights: List of `PrunableWeight`.
    """
    if weights:
        paths = [weight.path for weight in weights]
        warnings.warn(
            "What is pruned has to train. Received: `train_step` of "
            f"'{model.name}' of type {type(model).__name__}, which did not "
            "update these weights, whose masks change all the same: "
            f"{', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''}. If "
            "they are of a teacher, or another part that is only read, set its "
            "`trainable=False` before the model is wrapped, or exclude it by "
            "`filters`.",
            stacklevel=2,
        )


def refuse_penalty_alone(model):
    """Raises an error, within a training step, if there is no loss."""
    if model._compile_loss is not None:
        return
    gems = find_gem_layers(model)
    wrapped = {id(part) for gem in gems for part in _keras.flatten_layers(gem)}
    if any(gem.adds_losses for gem in gems) or any(
        part._get_own_losses()
        for part in _keras.flatten_layers(model)
        if id(part) not in wrapped
    ):
        return
    raise ValueError(
        "Mining requires a loss, because the penalty alone would prune at "
        f"random. Received: '{model.name}', which is compiled without a loss, "
        "and no part of which adds one. Pass `loss` to `compile`."
    )


def require_loss(model):
    """Makes steps of a model without a loss an error, see above.

    Keras itself refuses to train without a loss, but takes the penalty of the
    scores for one.
    """
    own = overridden(model, ("train_step", "compute_loss"))
    if own or model._compile_loss is not None:
        return

    def compute_loss(self, *args, training=True, **kwargs):
        if training:
            refuse_penalty_alone(self)
        kind = type(self)
        return kind.compute_loss(self, *args, training=training, **kwargs)

    vars(model)["compute_loss"] = types.MethodType(compute_loss, model)


def _listed(names):
    return ", ".join(f"`{name}`" for name in names)
