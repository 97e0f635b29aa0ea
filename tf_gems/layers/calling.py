"""What it takes to call any layer as a pure function of its variables."""

import functools
import inspect

import keras


class RecordingScope(keras.StatelessScope):
    """A scope in which nothing is assigned, that tells what should be."""

    def __init__(self, state_mapping, collect_losses):
        super().__init__(state_mapping, collect_losses=collect_losses)
        self.updates = {}

    def add_update(self, update):
        super().add_update(update)
        variable, _ = update
        self.updates[id(variable)] = update


def with_signature_of(layer, call):
    """Returns `call` with the parameters of the layer's own, and `training`."""
    signature = inspect.signature(layer.call)
    parameters = list(signature.parameters.values())
    if "training" not in signature.parameters:
        training = inspect.Parameter(
            "training", inspect.Parameter.KEYWORD_ONLY, default=None
        )
        catches_all = parameters and parameters[-1].kind is training.VAR_KEYWORD
        parameters.insert(len(parameters) - bool(catches_all), training)

    @functools.wraps(call)
    def call_as_layer(*args, **kwargs):
        return call(*args, **kwargs)

    call_as_layer.__signature__ = signature.replace(parameters=parameters)
    return call_as_layer


def to_symbol(value):
    """Returns a symbol of a tensor's shape and dtype; other values as is."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        dtype = keras.backend.standardize_dtype(value.dtype)
        return keras.KerasTensor(value.shape, dtype)
    return value


def refuse_other_keras(layer):
    """Raises an error for what is no Keras 3 layer or model."""
    if isinstance(layer, keras.layers.Layer):
        return
    kind = layer if isinstance(layer, type) else type(layer)
    remedy = "Wrap a Keras 3 layer or model."
    if kind.__module__.startswith(("tf_keras", "tensorflow.python.keras")):
        remedy = (
            "This is a Keras 2 (`tf_keras`) object: rebuild it with "
            "`import keras`, and unset TF_USE_LEGACY_KERAS."
        )
    raise ValueError(
        "Only Keras 3 layers and models can be pruned. Received: "
        f"layer={layer!r:.100} from `{kind.__module__}`. {remedy}"
    )
