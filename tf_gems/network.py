"""The user's network inside a model that is being pruned."""

import keras
from keras import ops

from tf_gems.layers.gem_layer import GemLayer
from tf_gems.layers.gem_layer import find_gem_layers


def network_weights(model):
    """Returns the weights of the network itself, without scores and flags."""
    added = {
        id(v) for gem in find_gem_layers(model) for v in gem.own_variables()
    }
    return [v for v in model.weights if id(v) not in added]


def forget_compilation(model):
    """Makes `fit` and `evaluate` ask for `compile` after a phase switch.

    Keras would go on with the step it traced in the phase before, silently.
    """
    model.compiled = False
    model.train_function = None
    model.test_function = None
    model.predict_function = None


def strip(model):
    """Returns a plain Keras copy of a pruned model, with exact zeros.

    The copy computes what the model computes in its present phase: every
    prunable weight is multiplied by its mask. It holds nothing of `tf_gems`
    and is not compiled. The pruned model stays as it is.

    Args:
        model: `SparseModel`, or Keras model that holds `GemLayer`s.

    Returns:
        Keras model of the user's own class.

    Raises:
        RuntimeError: If nothing has been pruned yet.
        ValueError: If the model is not a pruned one, or its class cannot be
            copied from its config.

    Example:

    ```python
    plain = tf_gems.strip(sparse)
    plain.save("plain.keras")
    ```
    """
    gems = find_gem_layers(model)
    if not gems:
        raise ValueError(
            "Only a pruned model can be stripped. Received: "
            f"'{model.name}' of type {type(model).__name__}, which holds no "
            "`tf_gems.GemLayer`."
        )
    masks = {}
    for gem in gems:
        refuse_before_mining(gem, model)
        for prunable, mask in zip(gem.prunable, gem.masks(), strict=True):
            masks[id(prunable.weight)] = mask
    whole = gems[0].layer if getattr(model, "gem", None) is gems[0] else model
    copy = _plain_copy(whole)
    for variable, target in zip(
        network_weights(model), copy.weights, strict=True
    ):
        # A copy of its own: on JAX a training step may delete the original.
        value = ops.copy(variable)
        if id(variable) in masks:
            value = value * ops.cast(masks[id(variable)], variable.dtype)
        target.assign(value)
    return copy


def refuse_before_mining(gem, model):
    """Raises an error if no weight of the layer has been pruned yet."""
    if gem.phase == "mining" and all(
        bool(ops.all(mask)) for mask in gem.ticket_masks()
    ):
        raise RuntimeError(
            "There is no ticket before mining: no weight of "
            f"'{model.name}' is frozen. Call `fit` with a "
            "`tf_gems.GemMinerCallback` first."
        )


def refuse_unfinished_mining(gems, model):
    """Raises an error if more weights are alive than mining aims at."""
    kept = sum(
        int(ops.count_nonzero(mask))
        for gem in gems
        for mask in gem.ticket_masks()
    )
    target = int(ops.convert_to_numpy(gems[0].target))
    if target and kept > target:
        raise RuntimeError(
            f"A ticket of this mining keeps {target:,} weights. Received: "
            f"'{model.name}', of which {kept:,} are alive. Mining was stopped "
            "before its last freeze, or brought back the weights of an "
            "earlier epoch, as `EarlyStopping(restore_best_weights=True)` "
            "does. Mine to the last epoch without it; until then, "
            '`ticket(masks="rounded")` is what the network computes with.'
        )


def _plain_copy(model):
    """Returns an untrained copy of a model, without `GemLayer`s."""
    if isinstance(model, keras.Sequential | keras.src.models.Functional):
        return keras.models.clone_model(
            model, clone_function=_plain_layer, recursive=True
        )
    try:
        copy = type(model).from_config(model.get_config())
        copy.build_from_config(model.get_build_config())
    except Exception as error:
        raise ValueError(
            "A subclassed model is copied through its config. Received: "
            f"'{model.name}' of type {type(model).__name__}, for which this "
            f"fails: {error} Give it `get_config` and `from_config`."
        ) from error
    return copy


def _plain_layer(layer):
    if isinstance(layer, GemLayer):
        layer = layer.layer
    return type(layer).from_config(layer.get_config())
