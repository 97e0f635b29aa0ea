"""Helpers that call any layer as a pure function of its variables."""

import contextlib
import functools
import inspect

import keras

from tf_gems import _keras


class RecordingScope(keras.StatelessScope):
    """A scope that records assignments instead of executing them."""

    def __init__(self, state_mapping=None, collect_losses=False):
        super().__init__(state_mapping, collect_losses=collect_losses)
        self.updates = {}

    def add_update(self, update):
        super().add_update(update)
        variable, _ = update
        self.updates[id(variable)] = update


def add_state(layer, name, dtype="int", shape=(), initializer="zeros", **more):
    """Adds a variable that is set, not trained, and alike on all replicas.

    With Keras' default `aggregation`, replicas would silently diverge.
    """
    return layer.add_weight(
        name=name,
        shape=shape,
        dtype=dtype,
        initializer=initializer,
        trainable=False,
        autocast=False,
        aggregation="only_first_replica",
        **more,
    )


def with_signature_of(layer, call):
    """Returns `call` with the parameters of `layer.call`, and `training`."""
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
    """Raises an error unless `layer` is a Keras 3 layer or model."""
    if isinstance(layer, keras.layers.Layer):
        return
    kind = layer if isinstance(layer, type) else type(layer)
    remedy = "Pass a Keras 3 layer or model."
    if kind.__module__.startswith(("tf_keras", "tensorflow.python.keras")):
        remedy = (
            "This is a Keras 2 (`tf_keras`) object. Build it with `import "
            "keras`, and unset TF_USE_LEGACY_KERAS."
        )
    raise ValueError(
        "Only Keras 3 layers and models can be pruned. Received: "
        f"layer={layer!r:.100} from `{kind.__module__}`. {remedy}"
    )


def refuse_quantized(layer):
    """Raises an error for a layer with quantized kernels."""
    for part in _keras.flatten_layers(layer):
        mode = getattr(part, "quantization_mode", None)
        if mode is not None:
            raise ValueError(
                "Weights must be pruned before they are quantized. Received: "
                f"layer '{part.name}' of '{layer.name}' with "
                f"quantization_mode={mode!r}. Prune the float model, and "
                "quantize the model that `tf_gems.strip` returns."
            )


@contextlib.contextmanager
def inlined_functions(layer):
    """Runs each `tf.function` that a layer holds as the function it wraps.

    A function that was traced earlier reads the variables that it captured,
    which a scope cannot mask. One that is traced now would keep the masks of
    this step.
    """
    holders = _function_holders(layer)
    if not holders:
        yield
        return
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    except TypeError as error:
        if "symbolic `tf.Tensor`" not in str(error):
            raise
        named = ", ".join(f"`{name}` of layer '{la}'" for la, name in holders)
        raise ValueError(
            "While a model is pruned, a `tf.function` in it runs as the "
            "Python function that it wraps, without AutoGraph. Received: "
            f"{named} of '{layer.name}', with a Python `if`, `while` or `for` "
            "on a tensor. Use `keras.ops.cond`, `keras.ops.where` or "
            "`keras.ops.while_loop`."
        ) from error
    finally:
        tf.config.run_functions_eagerly(before)


def _function_holders(layer):
    """Returns the names of layers and of the `tf.function`s that they hold."""
    if keras.backend.backend() != "tensorflow":
        return []
    import tensorflow as tf

    kind = tf.types.experimental.PolymorphicFunction
    found = [
        (part.name, name)
        for part in _keras.flatten_layers(layer)
        for holder in (part, *type(part).__mro__)
        for name, value in list(vars(holder).items())
        if name not in ("train_function", "test_function", "predict_function")
        and isinstance(value, kind)
    ]
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def after(values):
    """Runs a block only after some tensors have been computed.

    In a TensorFlow graph, operations that need no data run even if the data
    has ended. A counter would then count a step that did not take place.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    flat = tf.nest.flatten(values, expand_composites=True)
    tensors = [value for value in flat if tf.is_symbolic_tensor(value)]
    with tf.control_dependencies(tensors):
        yield
