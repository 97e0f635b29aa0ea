"""Replaces the `GemLayer`s of a model by the layers that they wrap."""

import contextlib
import functools

import keras

from tf_gems import _keras
from tf_gems._keras import DotNotTrackScope
from tf_gems._keras import KerasHistory
from tf_gems._keras import make_node_key
from tf_gems.layers.gem_layer import GemLayer

_SPARSE_MODELS = ("tf_gems>SparseModel", "tf_gems>QuantizationAwareModel")


def wrapped_by(layer):
    """Returns what a `GemLayer` or `SparseModel` wraps, or the layer itself."""
    if isinstance(layer, GemLayer):
        return layer.layer
    if keras.saving.get_registered_name(type(layer)) in _SPARSE_MODELS:
        return layer.gem.layer
    return layer


def remove_wrappers(model):
    """Replaces the `GemLayer`s within a model by the layers that they wrap.

    No layer is copied or called: attributes, lists, tuples and dicts that
    Keras tracks, and the graphs of functional models, get the wrapped layer
    where they had the wrapper. It works on Keras 3.15, whose graphs it edits.

    Returns:
        `(plain, undo)`: the plain model, which is the given one unless that is
        a wrapper itself, and a function that puts the wrappers back.
    """
    plain = wrapped_by(model)
    edits = contextlib.ExitStack()
    try:
        parts = list(_parts(plain))
        wrappers = {
            id(child): child
            for part in parts
            for child in _children(part)
            if wrapped_by(child) is not child
        }
        for wrapper in wrappers.values():
            _replace_nodes(wrapper, parts, edits)
        for part in parts:
            _replace_in(part, wrappers, edits)
        for part in parts:
            _rename(part, wrappers, edits)
        _refuse_remaining(plain)
    except BaseException:
        edits.close()
        raise
    return plain, edits.pop_all().close


def _parts(model):
    """Yields a model and all layers within, down to the wrappers."""
    seen, stack = set(), [model]
    while stack:
        part = stack.pop()
        if id(part) in seen or wrapped_by(part) is not part:
            continue
        seen.add(id(part))
        yield part
        stack.extend(_children(part))


def _children(part):
    sequential = isinstance(part, keras.Sequential)
    functional = _keras.functional_of(part) if sequential else None
    operations = getattr(part, "_operations", [])
    layers = [op for op in operations if isinstance(op, keras.layers.Layer)]
    return [*part._layers, *layers, *([functional] if functional else [])]


def _set_item(container, key, value, edits):
    """Sets an entry past Keras' tracking, and notes how to undo it."""
    _edit(container.__setitem__, key, container[key], value, edits)


def _set(owner, name, value, edits):
    """Sets an attribute past Keras' tracking, and notes how to undo it."""
    assign = functools.partial(setattr, owner)
    _edit(assign, name, getattr(owner, name), value, edits)


def _edit(assign, key, old, new, edits):
    def untracked(value):
        with DotNotTrackScope():
            assign(key, value)

    edits.callback(untracked, old)
    untracked(new)


def _replace_in(part, wrappers, edits):
    """Replaces wrappers in the attributes of one layer."""

    def new(value):
        return wrapped_by(value) if id(value) in wrappers else value

    seen = set()  # what a user keeps may hold itself

    def replace(value):
        """Returns a value, in which lists and dicts are edited in place."""
        if isinstance(value, keras.layers.Layer):
            return new(value)
        if id(value) in seen:
            return value
        if isinstance(value, list | dict | set | tuple):
            seen.add(id(value))
        if isinstance(value, list):
            for index, entry in enumerate(value):
                other = replace(entry)
                if other is not entry:
                    _set_item(value, index, other, edits)
        elif isinstance(value, dict):
            for key, entry in value.items():
                other = replace(entry)
                if other is not entry:
                    _set_item(value, key, other, edits)
        elif isinstance(value, set):
            for entry in [v for v in value if id(v) in wrappers]:
                edits.callback(set.add, value, entry)
                edits.callback(set.discard, value, new(entry))
                set.discard(value, entry)
                set.add(value, new(entry))
        elif isinstance(value, tuple):
            others = [replace(entry) for entry in value]
            if any(a is not b for a, b in zip(others, value, strict=True)):
                named = hasattr(value, "_fields")
                return type(value)(*others) if named else type(value)(others)
        return value

    for name, value in list(vars(part).items()):
        if name not in _keras.GRAPH_ATTRIBUTES and not name.startswith(
            "_self_"
        ):
            other = replace(value)
            if other is not value:
                _set(part, name, other, edits)
    tracked = part._tracker.stored_ids["layers"]
    for child in [c for c in part._layers if id(c) in wrappers]:
        before = set(tracked)
        edits.callback(tracked.update, before)
        edits.callback(tracked.clear)
        tracked.discard(id(child))
        tracked.add(id(new(child)))
    for layers in (part._layers, part._tracker.config["layers"][1]):
        replace(layers)
    if isinstance(part, _keras.Functional):
        replace(part._operations)
        replace(part._operations_by_depth)


def _replace_nodes(wrapper, parts, edits):
    """Gives the wrapped layer the nodes of its wrapper in all graphs."""
    inner = wrapped_by(wrapper)
    graphs = [p for p in parts if isinstance(p, _keras.Functional)]
    before = inner._inbound_nodes
    in_use = any(
        make_node_key(inner, index) in graph._nodes
        for graph in graphs
        for index in range(len(before))
    )
    # Nodes of the call that built it are in no graph, and would hide the one
    # that `layer.output` tells of.
    first = len(before) if in_use else 0
    nodes = [*before[:first], *wrapper._inbound_nodes]
    vars_of = vars(inner)
    for name, value in (
        ("_inbound_nodes", nodes),
        ("_outbound_nodes", list(wrapper._outbound_nodes)),
    ):
        edits.callback(vars_of.__setitem__, name, vars_of[name])
        vars_of[name] = value
    for graph in graphs:
        keys = {
            make_node_key(wrapper, index): make_node_key(inner, first + index)
            for index in range(len(wrapper._inbound_nodes))
        }
        renamed = type(graph._nodes)(keys.get(k, k) for k in graph._nodes)
        _set(graph, "_nodes", renamed, edits)
    for index, node in enumerate(wrapper._inbound_nodes):
        edits.callback(setattr, node, "operation", wrapper)
        node.operation = inner
        for tensor in node.outputs:
            history = getattr(tensor, "_keras_history", None)
            if history is not None and history.operation is wrapper:
                edits.callback(setattr, tensor, "_keras_history", history)
                tensor._keras_history = KerasHistory(
                    inner, first + index, history.tensor_index
                )


def _rename(part, wrappers, edits):
    """Keeps the names within a model apart, and those of its outputs right."""
    if not isinstance(part, keras.Model):
        return
    inner = {id(wrapped_by(w)): w for w in wrappers.values()}
    named = getattr(part, "_operations", None) or part._layers
    names = [operation.name for operation in named]
    for operation in named:
        if id(operation) in inner and names.count(operation.name) > 1:
            # Keras wants the names to differ.
            _set(operation, "name", inner[id(operation)].name, edits)
    if isinstance(part, _keras.Functional):
        layers = [tensor._keras_history.operation for tensor in part.outputs]
        _set(part, "output_names", [la.name for la in layers], edits)


def _refuse_remaining(model):
    remaining = [
        layer
        for layer in _keras.flatten_layers(model)
        if wrapped_by(layer) is not layer
    ]
    if remaining:
        raise ValueError(
            "The `GemLayer`s of a model must be attributes, or in lists or "
            "dicts that are attributes, to be stripped. Received: "
            f"'{model.name}', in which '{remaining[0].name}' is not. Build "
            "the plain model, and wrap it in `tf_gems.SparseModel`."
        )
