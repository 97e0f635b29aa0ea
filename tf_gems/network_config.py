"""The config of a network as data, which may come from an untrusted file.

A ticket file may hold the config of its network, so that whoever has the file
can build it. It is read as data: only the parts of Keras that are listed in
`tf_gems.network_parts` are built, within the bounds of
`tf_gems.network_limits`, and no weight takes memory before all of them turn
out to be the ticket's.
"""

import copy
import json
import warnings

import keras

from tf_gems._keras import global_state
from tf_gems.network_limits import check_constants
from tf_gems.network_limits import check_outputs
from tf_gems.network_limits import normalizations
from tf_gems.network_limits import sanitized
from tf_gems.network_limits import without_normalizations

LARGEST = 1 << 20
_UNINITIALIZED = "uninitialized_variables"


def config_of(model):
    """Returns the config of a network, without what its weights replace.

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
        sanitized(config)
    except (NotImplementedError, RecursionError, TypeError, ValueError):
        return None
    return config if len(json.dumps(config)) <= LARGEST else None


def network_of(config, shapes):
    """Builds the network of a config, with fresh weights.

    Raises:
        ValueError: If the config is not one of a network with these weights,
            or holds something else than data.
    """
    rule = (
        "The config of a ticket must be that of its network, with Keras "
        "layers only. "
    )
    try:
        config = sanitized(config)
        axes = normalizations(config)
        if axes:
            plain, _ = _dry_run(without_normalizations(config))
            check_constants(plain, axes)
        model, variables = _dry_run(config)
        check_outputs(model)
        found = [tuple(weight.shape) for weight in model.weights]
    except Exception as error:  # whatever a hostile config leads Keras to
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{rule}Received: another config: {reason} Build the network "
            "yourself, and pass it to `Ticket.apply`."
        ) from error
    expected = [tuple(shape) for shape in shapes]
    if found != expected:
        raise ValueError(
            f"{rule}Received: the config of a network with {len(found)} "
            f"weights, which differ from the {len(expected)} weights of the "
            "ticket."
        )
    _give_memory(model, variables)
    return model


def _dry_run(config):
    """Builds a network whose weights take no memory.

    Returns the model, and its variables, which wait for their initializers.
    """
    before = global_state.get_global_attribute(_UNINITIALIZED)
    variables = []
    global_state.set_global_attribute(_UNINITIALIZED, variables)
    try:
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(
                copy.deepcopy(config), safe_mode=True
            )
    finally:
        # Or the next scope would give them memory.
        global_state.set_global_attribute(_UNINITIALIZED, before)
    if not isinstance(model, keras.Model):
        raise ValueError(f"{type(model).__name__} is not a model.")
    return model, variables


def _give_memory(model, variables):
    """Makes the weights zeros, and draws what else there is.

    No initializer draws for weights that a ticket replaces: an orthogonal one
    takes minutes where the weight is large.
    """
    weights = {id(weight) for weight in model.weights}
    for variable in variables:
        if id(variable) in weights:
            variable._initializer = keras.initializers.Zeros()
        variable._deferred_initialize()


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
