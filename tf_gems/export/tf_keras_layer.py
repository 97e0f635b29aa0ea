"""Layers of Keras 3 as layers of `tf_keras`."""

import inspect

import keras

# Functions of TensorFlow for operations of `keras.ops` in a graph.
_OPERATIONS = {
    "Absolute": "abs",
    "Add": "add",
    "Divide": "divide",
    "Multiply": "multiply",
    "Pad": None,
    "Relu": "nn.relu",
    "Sigmoid": "sigmoid",
    "Subtract": "subtract",
    "Tanh": "tanh",
    "TrueDivide": "divide",
}
_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}
_OF_WRAPPERS = ("quant_", "prune_low_magnitude_")


def convert(operation):
    """Returns the equivalent of a Keras 3 layer or operation in `tf_keras`.

    A layer has no weights yet. For an operation it is a function. A
    `ValueError` says why there is none.
    """
    kind = type(operation)
    if not kind.__module__.startswith("keras."):
        raise ValueError(
            f"{kind.__name__} from `{kind.__module__}` is not a Keras layer"
        )
    if not isinstance(operation, keras.layers.Layer):
        return _function(operation)
    import tf_keras

    twin = getattr(tf_keras.layers, kind.__name__, None)
    if twin is None:
        raise ValueError(f"`tf_keras` has no {kind.__name__}")
    known, config = _parameters(twin), {}
    for key, value in operation.get_config().items():
        key = _RENAMED.get((kind.__name__, key), key)
        if key.endswith("_initializer"):
            continue  # weights are copied
        if key not in known:
            if value in (None, False):
                continue  # a feature of Keras 3 that is not used
            raise ValueError(
                f"{kind.__name__} of `tf_keras` has no argument "
                f"{key}={value!r:.60}"
            )
        config[key] = _value(kind.__name__, key, value)
    return twin.from_config(config)


def name_of(layer):
    """Returns the name of a layer of `tf_keras`, or of what it wraps."""
    return layer.layer.name if _is_wrapper(layer) else layer.name


def weights_like(ours, theirs):
    """Returns the weights of a twin of a layer, also in a wrapper of tfmot.

    They are arrays in the order of our layer, or `None` if one is missing.
    """
    if not _is_wrapper(theirs):
        return theirs.get_weights()
    # A wrapper lists weights of its own among those of the layer.
    found = {v.name.split("/")[-1].split(":")[0]: v for v in theirs.weights}
    names = [weight.path.rsplit("/", 1)[-1] for weight in ours.weights]
    names = [n if n in found else f"depthwise_{n}" for n in names]
    if not all(name in found for name in names):
        return None
    return [found[name].numpy() for name in names]


def _is_wrapper(layer):
    return layer.name.startswith(_OF_WRAPPERS) and hasattr(layer, "layer")


def _function(operation):
    import tensorflow as tf

    name = type(operation).__name__
    if name not in _OPERATIONS:
        raise ValueError(f"the operation {name} has no counterpart")
    if name == "Pad":
        return lambda x, constant_values=None: tf.pad(
            x,
            operation.pad_width,
            operation.mode.upper(),
            constant_values=constant_values or 0,
        )
    function = tf
    for part in _OPERATIONS[name].split("."):
        function = getattr(function, part)
    return function


def _parameters(kind):
    """Returns the names that a layer's constructor knows."""
    found = {"name", "trainable", "dtype"}
    for base in kind.__mro__:
        if "__init__" in vars(base):
            found |= set(inspect.signature(base.__init__).parameters)
    return found - {"self", "kwargs", "args"}


def _value(layer, key, value):
    """Returns a value of a Keras 3 config as `tf_keras` takes it."""
    if not isinstance(value, dict):
        return value
    import tf_keras

    name, config = value.get("class_name"), value.get("config")
    if key == "dtype":
        return config["name"]
    for ending, module in (
        ("_regularizer", tf_keras.regularizers),
        ("_constraint", tf_keras.constraints),
    ):
        if key.endswith(ending) and hasattr(module, str(name)):
            return getattr(module, name)(**config)
    raise ValueError(f"{layer} has {key}={name!r}, which has no counterpart")
