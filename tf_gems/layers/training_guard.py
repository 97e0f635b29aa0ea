"""A model that is being mined does not train by its own `fit`."""

import gc
import weakref

import keras

from tf_gems import _keras

_HOOK = "make_train_function"


def set_guard(model, gem):
    """Makes the own `fit` of a wrapped model an error while mining.

    Its weights do not train then, so that Keras would go through the epochs
    and change nothing.

    Args:
        model: Keras model that is, or is a part of, what `gem` wraps.
        gem: `GemLayer`.
    """
    holder = weakref.ref(gem)

    def make_train_function(*args, **kwargs):
        gem = holder()
        if gem is not None and gem.phase == "mining":
            raise ValueError(
                "While a model is mined, it trains as a part of the model that "
                f"prunes it. Received: `fit` of '{model.name}'. Call `fit` "
                "of the `tf_gems.SparseModel`; or call `start_finetuning()` "
                "first; or "
                "`tf_gems.unwrap`, which gives the model back unpruned."
            )
        return getattr(type(model), _HOOK)(model, *args, **kwargs)

    # Past Keras' tracking: it is no part of the model, and not saved.
    vars(model)[_HOOK] = make_train_function
    model.train_function = None  # was traced with weights that come back


def remove_guard(model):
    """Takes back what `set_guard` did."""
    vars(model).pop(_HOOK, None)


def forget_steps(gem):
    """Makes every model that holds a `GemLayer` ask for `compile`.

    Keras would go on with the step that it traced in the phase before, with
    no word: a model of the user around a `SparseModel` would train scores that
    no longer count. A layer does not know what holds it, so all live models
    are asked.

    Args:
        gem: `GemLayer`.
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

    Keras would go on with the step it traced in the phase before, silently.
    """
    model.compiled = False
    model.train_function = None
    model.test_function = None
    model.predict_function = None
