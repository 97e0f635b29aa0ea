"""Models within a model, replaced by their layers."""

import keras

from tf_gems import _keras
from tf_gems.compaction.graph import function_of
from tf_gems.compaction.graph import is_graph


def graph_of(layer):
    """Returns the graph of layers that a model is, or `None`."""
    return function_of(layer) if is_graph(layer) else None


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
    graph = graph_of(model)
    within = [
        layer for layer in graph.operations if graph_of(layer) is not None
    ]
    if graph is model and not within:
        return model, []
    walk = _Walk(graph)
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name),
        graph.input,
    )
    outputs = walk.through(graph, inputs, model.name, {})
    copy = _keras.Functional(inputs, outputs, name=model.name)
    for old, new in walk.copies.values():
        carry_weights(old, new)
    return copy, walk.names


def carry_weights(old, new):
    """Gives a new layer the weights of another; operations have none.

    Args:
        old: Keras layer or operation.
        new: One of weights of the same sizes, in the same order.
    """
    if not isinstance(old, keras.Layer):
        return
    for a, b in zip(old.weights, new.weights, strict=True):
        # A 1x1 kernel may lose its two axes of size one.
        b.assign(keras.ops.reshape(a, b.shape))
    if hasattr(new, "finalize_state"):
        new.finalize_state()  # of preprocessing layers


class _Walk:
    """A walk through the layers of a model and of those within it.

    Attributes:
        copies: Dict from ids to pairs of an operation and its copy.
        names: Names of the models that were flattened.
    """

    def __init__(self, graph):
        self.copies = {}
        self.names = []
        self._outer = {id(operation) for operation in graph.operations}
        self._taken = {operation.name for operation in graph.operations}

    def through(self, graph, inputs, name, context):
        """Returns the outputs of copies of all layers of a graph.

        Args:
            graph: Functional Keras model.
            inputs: Symbolic tensors in the structure of its inputs.
            name: String, what the model is called.
            context: Dict with `training`, if the model is called with it.
        """

        def bind(operation):
            def call(*args, **kwargs):
                if "training" in getattr(operation, "_call_context_args", ()):
                    kwargs = {**kwargs, **context}
                return self._call(operation, name, args, kwargs)

            return call

        return _keras.run_through_graph(graph, inputs, bind)

    def _call(self, operation, name, args, kwargs):
        graph = graph_of(operation)
        if graph is None:
            return self._copy(operation, name)(*args, **kwargs)
        if operation.name not in self.names:
            self.names.append(operation.name)
        training = kwargs.get("training")
        context = {} if training is None else {"training": training}
        return self.through(graph, args[0], operation.name, context)

    def _copy(self, operation, name):
        if id(operation) not in self.copies:
            config = operation.get_config()
            if id(operation) not in self._outer:
                while config["name"] in self._taken:
                    config["name"] = f"{name}_{config['name']}"
            self._taken.add(config["name"])
            copy = type(operation).from_config(config)
            self.copies[id(operation)] = operation, copy
        return self.copies[id(operation)][1]
