"""Identifies a network by its layers, their classes, and its weights."""

import types
import warnings

import keras
import numpy as np

from tf_gems import _keras
from tf_gems.fingerprint.values import bookkeeping
from tf_gems.fingerprint.values import describe
from tf_gems.fingerprint.values import describe_array
from tf_gems.fingerprint.values import describe_class
from tf_gems.fingerprint.values import is_library
from tf_gems.fingerprint.values import is_of_user

_TELLING = (bool, int, float, str, type(None), np.ndarray, types.FunctionType)


def describe_network(model):
    """Returns JSON that identifies a network.

    A layer is identified by the source of a custom class, by its config if it
    has one, and by attributes that are plain values, functions or objects with
    a config. So classes without a config are supported.
    """
    return {
        "layers": _describe(model, ()),
        "weights": [
            [v.name, describe_array(keras.ops.convert_to_numpy(v))]
            for v in model.weights
        ],
    }


def _describe(layer, above):
    found = {"class": describe_class(type(layer))}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lambdas: nothing is saved
            found["config"] = describe(layer.get_config())
    except Exception as error:  # whatever a user's config runs into
        if isinstance(layer, _keras.Functional):
            raise ValueError(
                "A cell is identified by its network. Received: model "
                f"'{layer.name}', which has no config: {error} Implement "
                "`get_config` in its layers."
            ) from error
    hidden = bookkeeping(layer)
    own = not is_library(type(layer))
    above = (*above, layer)
    found["attributes"] = [
        [name, describe(_telling(part), above)]
        for name, part in vars(layer).items()
        if name not in hidden
        and _is_telling(part)
        and (own or is_of_user(part))
    ]
    parts = _keras.flatten_layers(layer, include_self=False, recursive=False)
    found["parts"] = [
        _describe(part, above)
        for part in parts
        if not any(part is other for other in above)
    ]
    return found


def _is_telling(part):
    if isinstance(part, (keras.layers.Layer, keras.Variable)):
        return False  # described separately
    if isinstance(part, (*_TELLING, list, tuple, dict)):
        return True
    return hasattr(part, "get_config")


def _telling(part):
    """Returns a structure without what is described elsewhere."""
    if isinstance(part, dict):
        return {k: _telling(v) for k, v in part.items() if _is_telling(v)}
    if isinstance(part, list | tuple):
        return [_telling(v) for v in part if _is_telling(v)]
    return part
