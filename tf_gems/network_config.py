"""The config of a network as data that can be sent to strangers.

A ticket file may hold the config of its network, so that whoever has the file
can build it. It is read as data: only layers, operations, regularizers and
constraints of Keras itself are built, none of those that run code, load files
or look up words, and nothing at all before the weights that it describes turn
out to be those of the ticket.
"""

import copy
import json
import warnings

import keras
from keras.src.backend.common import global_state

LARGEST = 1 << 19
# What holds code, or opens files.
_REFUSED = {
    "FlaxLayer",
    "Hashing",
    "IntegerLookup",
    "JaxLayer",
    "Lambda",
    "StringLookup",
    "TFSMLayer",
    "TextVectorization",
    "TorchModuleWrapper",
}
_MODULES = (
    "keras",
    "keras.layers",
    "keras.ops",
    "keras.regularizers",
    "keras.constraints",
    "keras.src.layers.",
    "keras.src.models.functional",
    "keras.src.models.sequential",
    "keras.src.ops.",
)
_CLASSES_OF_KERAS = ("DTypePolicy", "Sequential", "InputSpec")
_UNINITIALIZED = "uninitialized_variables"


def config_of(model):
    """Returns the config of a network, without what its weights replace.

    Args:
        model: Built Keras model.

    Returns:
        Dict of JSON values, or `None` if the network has parts that are no
        plain layers of Keras, or is longer than `LARGEST` bytes of JSON.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> network_of(config_of(model), [(2, 3), (3,)]).output_shape
    (None, 3)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lambdas: they are left out
            config = keras.saving.serialize_keras_object(model)
        config = json.loads(json.dumps(_slim(config)))
        _check(config)
    except (NotImplementedError, RecursionError, TypeError, ValueError):
        return None
    return config if len(json.dumps(config)) <= LARGEST else None


def network_of(config, shapes):
    """Builds the network of a config, with fresh weights.

    Args:
        config: What `config_of` returned; or anything at all, from a file.
        shapes: List of the shapes of its weights, in the network's order.

    Returns:
        Keras model.

    Raises:
        ValueError: If the config is not one of a network with these weights,
            or holds something else than data.
    """
    rule = "A ticket's config is one of its network, of layers of Keras. "
    try:
        _check(config)
        dry = _dry_run(config)
        found = [tuple(weight.shape) for weight in dry.weights]
    except Exception as error:  # whatever a hostile config leads Keras to
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{rule}Received: one that is not: {reason}"
        ) from error
    expected = [tuple(shape) for shape in shapes]
    if found != expected:
        raise ValueError(
            f"{rule}Received: one of a network with {len(found)} weights, "
            f"which are not the ticket's {len(expected)}."
        )
    return _build(config)


def _build(config):
    # A copy, as Keras takes it apart.
    return keras.saving.deserialize_keras_object(
        copy.deepcopy(config), safe_mode=True
    )


def _dry_run(config):
    """Builds a network whose weights take no memory."""
    before = global_state.get_global_attribute(_UNINITIALIZED)
    global_state.set_global_attribute(_UNINITIALIZED, [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            return _build(config)
    finally:
        # Or the next scope would give them memory.
        global_state.set_global_attribute(_UNINITIALIZED, before)


def _slim(config):
    """Returns a config without what is known from the weights or not used."""
    if isinstance(config, list | tuple):
        return [_slim(value) for value in config]
    if not isinstance(config, dict):
        return config
    of_layer = str(config.get("module")).startswith("keras")
    return {
        key: _slim(value)
        for key, value in config.items()
        if key not in ("build_config", "compile_config")
        and not key.endswith("_initializer")
        and not (of_layer and key == "registered_name" and value is None)
    }


def _check(config):
    """Raises an error unless a config is that of data alone."""
    if isinstance(config, list):
        for value in config:
            _check(value)
    if not isinstance(config, dict):
        return
    if not all(isinstance(key, str) for key in config):
        raise ValueError("its keys are no strings.")
    if "class_name" in config and "config" in config:
        name, module = config["class_name"], config.get("module")
        if name not in ("__keras_tensor__", "__tuple__", "__dtype__"):
            _check_class(name, module, config.get("registered_name"))
    for key, value in config.items():
        if key.endswith("activation") and isinstance(value, dict):
            _check_class(
                value.get("class_name"),
                value.get("module"),
                value.get("registered_name"),
            )
        _check(value)


def _check_class(name, module, registered):
    described = f"'{name}' of `{module}`"
    if not (isinstance(name, str) and isinstance(module, str)):
        raise ValueError(f"{described} is no class of Keras.")
    of_keras = module in _MODULES or module.startswith(
        tuple(part for part in _MODULES if part.endswith("."))
    )
    if registered not in (None, name) or name in _REFUSED or not of_keras:
        raise ValueError(f"{described} is none of the layers that are data.")
    if module == "keras" and name not in _CLASSES_OF_KERAS:
        raise ValueError(f"{described} is none of the layers that are data.")
    if name in ("function", "builtin_function_or_method"):
        raise ValueError(f"{described} is a function.")
