"""Models within a model, replaced by their layers."""

import keras

from tf_gems import _keras
from tf_gems.compaction.graph import function_of
from tf_gems.compaction.graph import is_graph
from tf_gems.compaction.graph import run


def flat_copy(model):
    """Returns a copy of a model in which nested models are flattened.

    The copy has the same weights and outputs. If the name of a nested layer is
    already used, it gets the name of its model as a prefix.

    Args:
        model: Functional or Sequential Keras model.

    Returns:
        `(copy, names)`: a functional Keras model, and the names of the models
        that were flattened. Without any, the model itself.
    """
    graph = function_of(model)
    if graph is model and not any(map(is_graph, graph.operations)):
        return model, []
    outer = {id(operation) for operation in graph.operations}
    taken = {operation.name for operation in graph.operations}
    copies, names = {}, {}

    def call(operation, args, kwargs, within):
        names.update((nested.name, None) for nested in within)
        if id(operation) not in copies:
            config = operation.get_config()
            if id(operation) not in outer:
                while config["name"] in taken:
                    config["name"] = f"{within[-1].name}_{config['name']}"
            taken.add(config["name"])
            copy = type(operation).from_config(config)
            copies[id(operation)] = operation, copy
        return copies[id(operation)][1](*args, **kwargs)

    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name),
        graph.input,
    )
    outputs = run(model, inputs, call)
    copy = _keras.Functional(inputs, outputs, name=model.name)
    for old, new in copies.values():
        carry_weights(old, new)
    return copy, list(names)


def carry_weights(old, new):
    """Gives a new layer the weights of another; operations have none."""
    if not isinstance(old, keras.Layer):
        return
    for a, b in zip(old.weights, new.weights, strict=True):
        # A 1x1 kernel may lose its two axes of size one.
        b.assign(keras.ops.reshape(a, b.shape))
    if hasattr(new, "finalize_state"):
        new.finalize_state()  # of preprocessing layers
