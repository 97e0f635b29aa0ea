"""Copies of layers and operations, with the functions of users in them."""

import contextlib

import keras

from tf_gems import _keras

# Endings of the attributes that hold functions.
_FUNCTIONS = ("activation", "constraint", "initializer", "regularizer")


def copy_of(operation, **changes):
    """Returns a copy of a layer or operation, without its weights.

    Functions of the user's own, such as an activation or a regularizer, are
    passed on as they are: not all of them can be serialized.
    """
    own = _own_functions(operation)
    with _without(operation, own):
        config = operation.get_config()
    return type(operation).from_config({**config, **own, **changes})


def is_copied(operation):
    """Whether a config and weights are all that an operation consists of.

    Layers of users may hold more, and so do those of Keras that adapt to data,
    call a function or keep a state from batch to batch.
    """
    parts = [operation]
    if isinstance(operation, keras.Layer):
        parts = _keras.flatten_layers(operation)
    return all(
        type(part).__module__.startswith("keras.src.")
        and not hasattr(part, "adapt")
        and not getattr(part, "stateful", False)
        and not isinstance(part, keras.layers.Lambda)
        and (part is operation or not _own_functions(part))
        for part in parts
    )


def is_rewritable(layer):
    """Whether a layer is one of Keras' own, with nothing of a user's in it."""
    return (
        is_copied(layer)
        and not _own_functions(layer)
        and not getattr(layer, "quantization_mode", None)
        and not getattr(layer, "lora_enabled", False)
    )


def _own_functions(operation):
    """Returns the attributes that are functions of the user's own."""
    return {
        name: value
        for name, value in vars(operation).items()
        if name.endswith(_FUNCTIONS) and not _is_of_keras(value)
    }


def _is_of_keras(value):
    module = getattr(value, "__module__", "") or ""
    if not isinstance(value, type) and not hasattr(value, "__name__"):
        module = type(value).__module__
    return value is None or module.startswith("keras.src.")


@contextlib.contextmanager
def _without(operation, names):
    before = {name: vars(operation)[name] for name in names}
    for name in names:
        is_activation = name.endswith("activation")
        linear = keras.activations.linear if is_activation else None
        vars(operation)[name] = linear
    try:
        yield
    finally:
        vars(operation).update(before)


class Names:
    """Names for the operations of one graph, each of its own.

    Models within a model may hold layers of the same names, and a layer that is
    called twice becomes two layers. Layers of the model itself keep their
    names, and so do shared ones; those of a model within it get its name as a
    prefix then.
    """

    def __init__(self, calls, shared=()):
        self._outer = {call.name for call in calls if not call.within}
        self._operations = {}
        for operation in shared:
            other = self._operations.setdefault(operation.name, operation)
            if other is not operation:
                raise ValueError(
                    "Layers that both models share must have different "
                    f"names. Received: two layers named '{operation.name}' in "
                    "nested models. Rename one of them."
                )

    def give(self, operation, within=()):
        """Renames an operation that has the name of another."""
        name, count = operation.name, 0
        if self._operations.get(name) is operation:
            return
        taken = self._outer if within else ()
        if within and (name in self._outer or name in self._operations):
            name = f"{within[-1].name}_{name}"
        base = name
        while name in taken or name in self._operations:
            count += 1
            name = f"{base}_{count}"
        self._operations[name] = operation
        operation.name = name
