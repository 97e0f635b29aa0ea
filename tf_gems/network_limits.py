"""Bounds for a network from a file, checked before anything is built.

A file of a few hundred bytes can describe a network of any size: a model that
calls another twice, which calls another twice, and so on, has twice the layers
for each level. So they are counted as often as they are called.
"""

import math

from tf_gems import _keras
from tf_gems import network_parts

LARGEST_CALLS = 2048  # EfficientNetV2-L has 1,028 layers, NASNet-Large 1,041
DEEPEST = 12  # parts within parts: a model, a wrapper, a cell
_DEEPEST_JSON = 100
_LONGEST_TEXT = 1024
_LARGEST_NUMBER = 1 << 40
_MOST_SPLITS = 1024
_LARGEST_OUTPUT = 1 << 30
_LARGEST_CONSTANT = 1 << 20
_REFUSED_KEYS = ("build_config", "compile_config", "quantization_config")
_LITERALS = ("__ellipsis__", "__slice__", "__tuple__", "__dtype__")
_ARRAYS = ("__numpy__", "__tensor__")


def sanitized(config):
    """Returns a config that holds nothing but known parts, within bounds.

    Raises:
        ValueError: If a part is not on the list of `network_parts`, or a
            bound is exceeded.
    """
    if not isinstance(config, dict):
        raise ValueError(f"{config!r:.100} is not a model.")
    module, name = config.get("module"), config.get("class_name")
    network_parts.find(module, name)
    if not network_parts.is_model(module, name):
        raise ValueError(f"{name!r} is a single layer, not a model.")
    found, _ = _Reader().part(config, 0, 0)
    return found


class _Reader:
    """Copies a config, and counts calls of layers meanwhile."""

    def __init__(self):
        self.total = 0

    def part(self, config, depth, nesting):
        """Returns a copy of a serialized class, and the layers a call runs."""
        module, name = config.get("module"), config.get("class_name")
        network_parts.find(module, name)
        if config.get("registered_name") not in (None, name):
            raise ValueError(
                f"{config['registered_name']!r:.100} is not one of the "
                "supported layers."
            )
        if depth >= DEEPEST:
            raise ValueError(f"its parts are nested more than {DEEPEST} deep.")
        inner = config.get("config")
        if not isinstance(inner, dict):
            raise ValueError(f"{name} has {inner!r:.100} for its config.")
        copy = {
            key: self.value(value, key, depth, nesting + 1)[0]
            for key, value in config.items()
            if key not in ("config", "registered_name", "shared_object_id")
        }
        if network_parts.is_model(module, name):
            layers, calls = self._layers(inner, depth, nesting + 2)
            rest = {k: v for k, v in inner.items() if k != "layers"}
            copied, _ = self.value(rest, "", depth, nesting + 1)
            copy["config"] = {**copied, "layers": layers}
            self._count(calls)
        else:
            self._refuse_many(name, config)
            copy["config"], calls = self.value(inner, "", depth, nesting + 1)
            calls = 1 + calls * (2 if name == "Bidirectional" else 1)
        return {**copy, "registered_name": None}, calls

    def _layers(self, config, depth, nesting):
        """Returns the copies of a model's layers, and how many a call runs."""
        layers = config.get("layers")
        if not isinstance(layers, list):
            raise ValueError("a model has no list of layers.")
        copies, calls = [], 0
        for layer in layers:
            if not isinstance(layer, dict):
                raise ValueError(f"{layer!r:.100} is no layer.")
            copy, once = self.part(layer, depth + 1, nesting)
            nodes = layer.get("inbound_nodes", [None])
            if not isinstance(nodes, list):
                raise ValueError(f"{nodes!r:.100} are not calls of a layer.")
            copies.append(copy)
            calls += once * max(1, len(nodes))
            self._check(calls)
        return copies, calls

    def value(self, value, key, depth, nesting):
        """Returns the copy of a value, and the calls of parts that it holds."""
        if nesting > _DEEPEST_JSON:
            raise ValueError(
                f"its JSON is nested more than {_DEEPEST_JSON} deep."
            )
        if key in _REFUSED_KEYS and value is not None:
            raise ValueError(f"it contains a {key}.")
        if not _fits_its_key(value, key):
            raise ValueError(
                f"{key} is {value!r:.100}, which Keras does not have."
            )
        if isinstance(value, str):
            _check_text(value, key)
        elif isinstance(value, int | float):
            if not abs(value) <= _LARGEST_NUMBER:  # also NaN
                raise ValueError(f"{key or 'it'} holds {value}.")
        elif isinstance(value, list):
            pairs = [self.value(v, key, depth, nesting + 1) for v in value]
            return [v for v, _ in pairs], sum(calls for _, calls in pairs)
        elif isinstance(value, dict):
            return self._dict(value, depth, nesting)
        elif value is not None:
            raise ValueError(f"{key or 'it'} is {value!r:.100}.")
        return value, 0

    def _dict(self, value, depth, nesting):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a key is not a string.")
        for key in value:
            if len(key) > _LONGEST_TEXT:
                raise ValueError(f"a key has {len(key)} characters.")
        name = value.get("class_name")
        if name is None:
            pairs = {
                key: self.value(item, key, depth, nesting + 1)
                for key, item in value.items()
                if not key.endswith("_initializer")
            }
            return (
                {key: item for key, (item, _) in pairs.items()},
                sum(calls for _, calls in pairs.values()),
            )
        inner = value.get("config")
        if name == "DTypePolicy" and value.get("module") == "keras":
            if not isinstance(inner, dict) or (
                inner.get("name") not in network_parts.POLICIES
            ):
                raise ValueError(f"{inner!r:.100} is not a dtype policy.")
            network_parts.refuse_registered(name)
            policy = {"name": inner["name"]}
            return {**_literal(name, policy), "module": "keras"}, 0
        if name == "__keras_tensor__" or name in _LITERALS:
            copied, calls = self.value(inner, "", depth, nesting + 1)
            return _literal(name, copied), calls
        if name in _ARRAYS:
            if not isinstance(inner, dict) or (
                inner.get("dtype") not in network_parts.DTYPES
            ):
                raise ValueError(f"{inner!r:.100} is no array.")
            copied, _ = self.value(inner, "", depth, nesting + 1)
            return _literal(name, copied), 0
        return self.part(value, depth + 1, nesting)

    def _refuse_many(self, name, config):
        """Raises an error if a call makes very many outputs."""
        if name != "Split":
            return
        numbers = list(_numbers(config))
        if max(numbers, default=0) > _MOST_SPLITS or len(numbers) > 4096:
            raise ValueError(f"a split has more than {_MOST_SPLITS} parts.")

    def _count(self, calls):
        self.total += calls
        self._check(self.total)

    def _check(self, calls):
        if calls > LARGEST_CALLS:
            raise ValueError(
                f"its layers are called more than {LARGEST_CALLS:,} times."
            )


def check_outputs(model):
    """Raises an error if a network computes very large arrays."""
    for operation, shapes in _outputs(model):
        for shape in shapes:
            if math.prod(n for n in shape if n is not None) > _LARGEST_OUTPUT:
                raise ValueError(
                    f"'{operation.name}' computes arrays of shape {shape}."
                )


def normalizations(config):
    """Returns dict from the names of `Normalization` layers to their axes.

    Keras makes constants of their size when it builds them. Within something
    else than a model they are refused.
    """
    found = {}

    def visit(value, in_model):
        if isinstance(value, list):
            for item in value:
                visit(item, in_model)
        elif isinstance(value, dict):
            if value.get("class_name") == "Normalization":
                if not in_model:
                    raise ValueError("a Normalization is inside of a layer.")
                name = value["config"].get("name")
                if not isinstance(name, str):
                    raise ValueError("a Normalization has no name.")
                axes = value["config"].get("axis", -1)
                found.setdefault(name, []).append(axes)
                return
            for key, item in value.items():
                visit(item, key == "layers")

    visit(config, False)
    return found


def without_normalizations(config):
    """Returns a config with layers in place of them that compute nothing."""
    if isinstance(config, list):
        return [without_normalizations(value) for value in config]
    if not isinstance(config, dict):
        return config
    copy = {key: without_normalizations(item) for key, item in config.items()}
    if copy.get("class_name") == "Normalization":
        copy["class_name"] = "Identity"
        copy["config"] = {"name": copy["config"]["name"]}
    return copy


def check_constants(model, axes):
    """Raises an error if `Normalization` layers would hold very much."""
    for operation, shapes in _outputs(model):
        for axis in axes.get(operation.name, ()):
            for shape in shapes:
                kept = axis if isinstance(axis, list) else [axis]
                sizes = [shape[n] or 1 for n in kept if n is not None]
                if math.prod(sizes) > _LARGEST_CONSTANT:
                    raise ValueError(
                        f"'{operation.name}' normalizes by constants of "
                        f"shape {tuple(sizes)}."
                    )


def _outputs(model):
    """Yields each operation with the shapes of all that it computes."""
    for operation in _operations(model):
        nodes = _keras.calls_of(operation)
        yield (
            operation,
            [tuple(t.shape) for node in nodes for t in node.output_tensors],
        )


def _operations(model):
    """Yields all layers and operations, also those of models within."""
    waiting, seen = [model], set()
    while waiting:
        operation = waiting.pop()
        if id(operation) in seen:
            continue
        seen.add(id(operation))
        yield operation
        waiting += _keras.operations_within(operation)


def _fits_its_key(value, key):
    """Whether an activation, regularizer or constraint is one of Keras."""
    for kind, names in network_parts.NAMED.items():
        if key.endswith(kind) and value is not None:
            if isinstance(value, dict):
                return isinstance(value.get("class_name"), str)
            return isinstance(value, str) and value in names
    return True


def _check_text(value, key):
    if len(value) > _LONGEST_TEXT:
        raise ValueError(f"{key or 'a text'} has {len(value)} characters.")
    # Null characters and lone surrogates, which HDF5 and UTF-8 do not have.
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(
            f"{key or 'a text'} contains a character that a file cannot "
            "contain."
        )
    if key == "dtype" and value not in network_parts.POLICIES:
        raise ValueError(f"{value!r} is not a dtype.")
    if key not in ("class_name", "module", "name"):
        network_parts.refuse_registered(value)


def _numbers(value):
    """Yields the integers of a config that are no shapes of tensors."""
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, dict):
        if value.get("class_name") != "__keras_tensor__":
            for item in value.values():
                yield from _numbers(item)
    elif isinstance(value, int):
        yield value


def _literal(name, config):
    return {"class_name": name, "config": config, "registered_name": None}
