"""The user's network inside a model that is being pruned."""

import collections
import inspect

import keras
from keras import ops

from tf_gems.layers.gem_layer import GemLayer
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.layers.zeros import is_untouched

_GEM_LAYER = "tf_gems>GemLayer"
_SPARSE_MODEL = "tf_gems>SparseModel"
_SIGNED_CONSTANT = "tf_gems>SignedConstant"


def gems_of(model):
    """Returns every `GemLayer` of a model, or raises if there is none."""
    gems = find_gem_layers(model)
    if gems:
        return gems
    raise ValueError(
        "A ticket is found in a `tf_gems.SparseModel`, or in a model that "
        f"holds `tf_gems.GemLayer`s. Received: '{model.name}' of type "
        f"{type(model).__name__}. Wrap it first."
    )


def prunable_weights(model):
    """Returns every `PrunableWeight` of a model that is being pruned."""
    return [weight for gem in gems_of(model) for weight in gem.prunable]


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
        ValueError: If the model is not a pruned one, or cannot be copied
            through its config.

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
    refuse_before_mining(gems, model)
    masks = {
        id(prunable.weight): mask
        for gem in gems
        for prunable, mask in zip(gem.prunable, gem.masks(), strict=True)
    }
    weights = network_weights(model)
    names = collections.Counter(part.name for part in model._flatten_layers())
    copy = _plain_copy(unwrap(model), names)
    copy.compiled = False
    _refuse_unlike(model, copy, weights)
    for variable, target in zip(weights, copy.weights, strict=True):
        # A copy of its own: on JAX a training step may delete the original.
        value = ops.copy(variable)
        if id(variable) in masks:
            value = value * ops.cast(masks[id(variable)], variable.dtype)
        target.assign(value)
    return copy


def refuse_before_mining(gems, model):
    """Raises an error if no weight of the network has been pruned yet."""
    if not int(ops.convert_to_numpy(gems[0].target)) and all(
        gem.phase == "mining" and is_untouched(prunable, mask)
        for gem in gems
        for prunable, mask in zip(gem.prunable, gem.ticket_masks(), strict=True)
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


def _refuse_unlike(model, copy, weights):
    """Raises an error if a copy is not the network that it is a copy of."""
    ours = [tuple(v.shape) for v in weights]
    theirs = [tuple(v.shape) for v in copy.weights]
    if ours != theirs or find_gem_layers(copy):
        raise ValueError(
            "A model is copied through its config, which must give back the "
            f"same network, without `GemLayer`s. Received: '{model.name}' "
            f"with {len(ours)} weights, of which the copy has {len(theirs)}, "
            f"and {len(find_gem_layers(copy))} `GemLayer`s. A subclassed "
            "model must build its weights in `build` and take its layers as "
            "arguments; one that makes `GemLayer`s itself cannot be stripped: "
            "wrap the plain one in `tf_gems.SparseModel`."
        )


def unwrap(layer):
    """Returns what a `GemLayer` or `SparseModel` wraps, or the layer itself."""
    if isinstance(layer, GemLayer):
        return layer.layer
    if keras.saving.get_registered_name(type(layer)) == _SPARSE_MODEL:
        return layer.gem.layer
    return layer


def _plain_copy(layer, names):
    """Returns an untrained copy of a layer or model, without `GemLayer`s."""
    inner = unwrap(layer)
    if inner is not layer:
        copy = _plain_copy(inner, names)
        if names[inner.name] > 1:
            copy.name = layer.name  # Keras wants the names to differ
        return copy
    if isinstance(layer, keras.Sequential | keras.src.models.Functional):
        return keras.models.clone_model(
            layer,
            clone_function=lambda part: _plain_copy(part, names),
            recursive=True,
        )
    try:
        config = _plain_config(keras.saving.serialize_keras_object(layer))
        return keras.saving.deserialize_keras_object(
            config, custom_objects=custom_objects(layer), safe_mode=False
        )
    except Exception as error:
        raise ValueError(
            "A model is copied through its config. Received: "
            f"'{layer.name}' of type {type(layer).__name__}, for which this "
            f"fails: {error} Give it `get_config` and `from_config`."
        ) from error


def custom_objects(layer):
    """The user's classes and functions, which need not be registered."""
    found = {}
    parts = layer._flatten_layers() if isinstance(layer, keras.Layer) else []
    for part in parts:
        for value in (part, *vars(part).values()):
            named = value if inspect.isfunction(value) else type(value)
            if not named.__module__.startswith(("keras", "builtins")):
                found[named.__name__] = named
    return found


def _plain_config(config):
    """Returns a layer's config with `GemLayer`s replaced by what they wrap."""
    if isinstance(config, list | tuple):
        return type(config)(_plain_config(value) for value in config)
    if not isinstance(config, dict):
        return config
    name = config.get("registered_name")
    if name == _GEM_LAYER:
        return _plain_config(config["config"]["layer"])
    if name == _SPARSE_MODEL:
        return _plain_config(config["config"]["model"])
    if name == _SIGNED_CONSTANT:
        return keras.initializers.serialize(keras.initializers.HeNormal())
    # A copy need not be compiled.
    return {
        key: _plain_config(value)
        for key, value in config.items()
        if key != "compile_config"
    }
