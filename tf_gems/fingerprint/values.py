"""Identifies a value by JSON that is the same in every process.

A cell of a comparison is found again by everything it depends on. `describe`
identifies a value by its contents: a function by its qualified name, its
source, its defaults, and what it uses from outside; an object by its class and
its state; an array by a digest. Nothing is identified by its memory address. An
error names what cannot be identified by its contents.
"""

import enum
import functools
import hashlib
import inspect
import json
import pathlib
import sys
import sysconfig
import types

import keras
import numpy as np

from tf_gems.optimizer_copy import config_of

_PLAIN = (bool, int, float, str, type(None))
_PATHS = tuple(
    str(pathlib.Path(sysconfig.get_paths()[name]))
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def digest(value):
    """Returns a short digest of a JSON value, equal for equal values."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(value, above=()):
    """Returns JSON that identifies a value by its contents.

    Args:
        value: Function, class, Keras object, array, or structure of these.
        above: Tuple of the values that this one is a part of.

    Returns:
        JSON value, the same in every process.
    """
    if isinstance(value, enum.Enum):
        return [_name(type(value)), value.name]
    if isinstance(value, _PLAIN):
        # JSON cannot represent NaN and infinity.
        return repr(value) if isinstance(value, float) else value
    if any(value is other for other in above):
        return f"<part {len(above)}>"  # of itself
    above = (*above, value)
    if isinstance(value, list | tuple):
        return [describe(part, above) for part in value]
    if isinstance(value, set | frozenset):
        parts = [describe(part, above) for part in value]
        return sorted(parts, key=lambda part: json.dumps(part, sort_keys=True))
    if isinstance(value, dict):
        return [
            [describe(key, above), describe(part, above)]
            for key, part in value.items()
        ]
    if isinstance(value, bytes | np.dtype | range | slice | complex):
        return repr(value)
    if isinstance(value, pathlib.PurePath | types.ModuleType):
        return getattr(value, "__name__", str(value))
    if _is_array(value):
        return describe_array(keras.ops.convert_to_numpy(value))
    if isinstance(value, type):
        return describe_class(value, above)
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return ["partial", *(describe(part, above) for part in parts)]
    if isinstance(value, types.MethodType):
        parts = (value.__func__, value.__self__)
        return ["method", *(describe(part, above) for part in parts)]
    if isinstance(value, types.FunctionType):
        return _describe_function(value, above)
    if callable(value) and hasattr(value, "__wrapped__"):  # `tf.function`
        return describe(value.__wrapped__, above)
    if hasattr(value, "python_function"):
        return describe(value.python_function, above)
    if isinstance(value, types.BuiltinFunctionType) or (
        callable(value) and hasattr(value, "__qualname__")
    ):
        return _name(value)
    if isinstance(value, keras.layers.Layer):
        from tf_gems.fingerprint.network import describe_network

        return describe_network(value)
    return _describe_object(value, above)


def describe_array(value):
    """Returns the dtype, the shape and a digest of the contents."""
    value = np.asarray(value)
    if value.dtype.kind == "O":
        content = json.dumps([str(v) for v in value.ravel()]).encode()
    else:
        content = np.ascontiguousarray(value)
    return {
        "dtype": value.dtype.str,
        "shape": list(value.shape),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _describe_function(function, above):
    """Describes a function by its source and by what it uses."""
    found = {"function": _name(function)}
    if is_library(function):
        return found
    found["source"] = _source(function)
    if "<lambda>" in function.__qualname__:  # of which a line can hold two
        found["code"] = _code(function.__code__)
    found["defaults"] = describe(
        [function.__defaults__, function.__kwdefaults__], above
    )
    cells = function.__closure__ or ()
    found["closure"] = [
        [name, describe(cell.cell_contents, above)]
        for name, cell in zip(function.__code__.co_freevars, cells, strict=True)
        if _is_set(cell)
    ]
    found["globals"] = [
        [name, describe(function.__globals__[name], above)]
        for name in sorted(_names(function.__code__))
        if name in function.__globals__
    ]
    return found


def describe_class(kind, above=()):
    """Describes a class by the source of all that is not a library's."""
    users = [base for base in kind.__mro__ if not is_library(base)]
    found = {"class": _name(kind)}
    if users:
        found["source"] = [_source(base) for base in users]
        # What its methods use from their module.
        functions = [
            part
            for base in users
            for part in vars(base).values()
            if isinstance(part, types.FunctionType)
        ]
        found["globals"] = [
            _describe_function(part, (*above, kind))["globals"]
            for part in functions
            if not is_library(part)
        ]
    return found


def _describe_object(value, above):
    """Describes an object by its class, its config and its state."""
    found = {"class": describe_class(type(value), above)}
    config = _config(value)
    if config is not None:
        found["config"] = describe(config, above)
    # A config has only the names of functions, and the config of a custom
    # class may be incomplete.
    state = _state(value)
    if state is None and config is None:
        state = _reduced(value)
    if config is not None and is_library(type(value)):
        # Their config is complete, except for functions and random seeds.
        state = {k: v for k, v in (state or {}).items() if is_of_user(v)}
    found["state"] = describe(state, above)
    return found


def _config(value):
    """Returns the config of an object, or `None`."""
    if isinstance(value, keras.optimizers.LossScaleOptimizer):
        return {"inner_optimizer": value.inner_optimizer}
    try:
        if isinstance(value, keras.optimizers.Optimizer):
            config = config_of(value)
        else:
            config = dict(value.get_config())
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None
    if isinstance(value, (keras.optimizers.Optimizer, keras.losses.Loss)):
        config.pop("name", None)  # which Keras numbers
    return config


def _state(value):
    """Returns the attributes of an object, `None` if it has none to see."""
    found = {}
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name) and name not in ("__weakref__", "__dict__"):
                found[name] = getattr(value, name)
    attributes = getattr(value, "__dict__", None)
    if attributes is None and not found:
        return None
    hidden = bookkeeping(value)
    for name, part in (attributes or {}).items():
        # Variables are what training makes of the object.
        trained = hidden and any(
            isinstance(leaf, keras.Variable)
            for leaf in keras.tree.flatten(part)
        )
        if name not in hidden and not trained:
            found[name] = part
    return found


def bookkeeping(value):
    """Returns the attributes that Keras itself gives objects of this kind."""
    for kind, make in _BASES.items():
        if isinstance(value, kind):
            return {*vars(make()), "built"}
    return ()


_BASES = {
    keras.layers.Layer: lambda: keras.layers.Layer(name="any"),
    keras.metrics.Metric: lambda: keras.metrics.Metric(name="any"),
    keras.optimizers.Optimizer: lambda: keras.optimizers.Optimizer(0.1),
    keras.losses.Loss: keras.losses.Loss,
}


def is_of_user(part):
    """Whether a config may have only the name of an attribute."""
    return callable(part) or not is_library(type(part))


def _reduced(value):
    """Returns what `pickle` would store of an object, or refuses it."""
    try:
        return list(value.__reduce_ex__(4))
    except TypeError as error:
        raise ValueError(
            "Everything that a cell depends on must be identified by its "
            f"contents. Received: an object of type '{_name(type(value))}', "
            f"which has neither `get_config` nor attributes: {error}. "
            "Implement `get_config`, or remove the object from the loss, the "
            "metric or the method."
        ) from error


def _is_array(value):
    if isinstance(value, np.ndarray | np.generic | keras.Variable):
        return True
    module = type(value).__module__.split(".")[0]
    typed = hasattr(value, "dtype") and hasattr(value, "shape")
    return typed and module in ("tensorflow", "jax", "jaxlib", "torch")


def _names(code):
    """Returns the names that a function and those within it look up."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def _source(value):
    """Returns the source; the code itself where there is no file of it."""
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        functions = [value]
        if isinstance(value, type):
            functions = [
                part
                for part in vars(value).values()
                if isinstance(part, types.FunctionType)
            ]
        return [_code(part.__code__) for part in functions]


def _code(code):
    constants = [
        _code(c)
        if isinstance(c, types.CodeType)
        else sorted(map(repr, c))
        if isinstance(c, frozenset)
        else repr(c)
        for c in code.co_consts
    ]
    return [code.co_code.hex(), list(code.co_names), constants]


def _name(value):
    module = getattr(value, "__module__", None)
    if module == "__main__":  # the script's name, or that of a worker of it
        module = ""
    qualified = getattr(value, "__qualname__", None) or repr(type(value))
    return f"{module}.{qualified}"


def is_library(value):
    """Whether a class or function belongs to an installed package."""
    name = getattr(value, "__module__", None) or "builtins"
    module = sys.modules.get(name)
    if name.split(".")[0] in ("keras", "tf_gems", "builtins"):
        return True
    file = getattr(module, "__file__", None)
    if file is None:
        return name in sys.builtin_module_names
    return file.startswith(_PATHS)


def _is_set(cell):
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a name that is not bound yet
        return False
    return True
