"""Methods that a wrapped model must not run on its own."""

import gc
import weakref

import keras

from tf_gems import _keras

_TRAINS = "make_train_function"


def set_guards(layer, gem):
    """Makes methods an error that change wrapped weights behind the masks.

    `fit` of a wrapped model is refused while mining: its weights do not train
    then, so Keras would run all epochs and change nothing. `enable_lora` is
    refused while mining as well, since only scores train. `quantize` is always
    refused: it replaces the weights.
    """
    if isinstance(layer, keras.Model):
        _guard(layer, gem, _TRAINS, _refuse_fit)
        layer.train_function = None  # was traced with weights that come back
        _guard(layer, gem, "quantize", _refuse_quantize)
    if hasattr(type(layer), "enable_lora"):
        _guard(layer, gem, "enable_lora", _refuse_adapter)
        _guard(layer, gem, "quantize", _refuse_quantize)


def remove_guards(layer):
    """Undoes `set_guards`."""
    for name in (_TRAINS, "quantize", "enable_lora"):
        guard = vars(layer).get(name)
        if hasattr(guard, "guards"):
            del vars(layer)[name]
            if guard.guards is not None:
                vars(layer)[name] = guard.guards


def _guard(layer, gem, name, refuse):
    """Calls `refuse` with the name and the phase before a method."""
    holder = weakref.ref(gem)
    # Keras itself sets `quantize` of each layer that is built from a class.
    former = vars(layer).get(name)
    former = getattr(former, "guards", former)

    def method(*args, **kwargs):
        gem = holder()
        if gem is not None:
            refuse(layer.name, gem.phase)
        if former is not None:
            return former(*args, **kwargs)
        return getattr(type(layer), name)(layer, *args, **kwargs)

    method.guards = former
    # Past Keras' tracking: it is no part of the layer, and not saved.
    vars(layer)[name] = method


def _refuse_fit(name, phase):
    if phase == "mining":
        raise ValueError(
            "A model that is being mined must be trained through the model "
            f"that prunes it. Received: `fit` of '{name}'. Call `fit` of the "
            "`tf_gems.SparseModel`; or call `start_finetuning()` first; or "
            "call `tf_gems.unwrap`, which returns the model without pruning."
        )


def _refuse_adapter(name, phase):
    if phase == "mining":
        raise ValueError(
            "Mining trains scores and no other weights. Received: "
            f"`enable_lora` of '{name}', which is being mined. Call it after "
            "`start_finetuning()`, or on the model that `tf_gems.strip` "
            "returns."
        )


def _refuse_quantize(name, phase):
    raise ValueError(
        "Weights must be pruned before they are quantized. Received: "
        f"`quantize` of '{name}', which is wrapped for pruning. Quantize the "
        "stripped model: `tf_gems.strip(sparse).quantize(...)`."
    )


def forget_steps(gem):
    """Makes every model that holds a `GemLayer` ask for `compile`.

    Keras would silently continue with the step that it traced in the previous
    phase: a user's model around a `SparseModel` would train scores that no
    longer have an effect. A layer does not know which models hold it, so all
    live models are searched.
    """
    for value in gc.get_objects():
        if issubclass(type(value), keras.Model) and any(
            part is gem for part in _keras.flatten_layers(value)
        ):
            forget_compilation(value)
    for part in _keras.flatten_layers(gem.layer):
        if isinstance(part, keras.Model):
            part.train_function = None


def forget_compilation(model):
    """Makes `fit` and `evaluate` ask for `compile` after a phase switch.

    Keras would silently continue with the step of the previous phase.
    """
    model.compiled = False
    model.train_function = None
    model.test_function = None
    model.predict_function = None
