"""A Keras model as a TensorFlow function of its inputs."""

import dataclasses
import errno
import os

from tf_gems import _keras
from tf_gems.compaction.comparing import attributes
from tf_gems.export.signature import as_dense
from tf_gems.export.signature import name_outputs
from tf_gems.layers.calling import RecordingScope


@dataclasses.dataclass(frozen=True)
class Traced:
    """A traced network.

    Args:
        function: `tf.types.experimental.ConcreteFunction` from named inputs
            to a dict of named outputs.
        state: List of names of the variables that it writes and its outputs
            depend on: recurrent state, counters. Empty for most networks.
        model: The Keras model, which owns what the function captures.
        left_out: List of names of variables that the model writes when it
            is called, but this function does not, as they change no output.
    """

    function: object
    state: list
    model: object
    left_out: list = dataclasses.field(default_factory=list)

    def notes(self):
        """Returns sentences on what the network writes."""
        if self.state:
            return [
                "The network writes variables during prediction, and its "
                f"outputs depend on them: {', '.join(self.state)}. The file "
                "starts with their current values."
            ]
        if self.left_out:
            return [
                "Variables that the network writes during prediction, but "
                "that do not affect its outputs, are left out: "
                f"{', '.join(self.left_out)}."
            ]
        return []

    def writes(self, variable):
        """Whether the function may write a `tf.Variable`."""
        if not self.state:
            return False
        path = getattr(variable, "name", "").partition(":")[0]
        return not variable.trainable or path in self.state

    def tables(self):
        """Returns the look-up tables of the model, if the function reads any.

        Only the model knows them: the function captures their handles.
        """
        import tensorflow as tf

        handles = {id(v.handle) for v in self.function.variables}
        if not any(
            id(captured) not in handles
            and captured.dtype in (tf.resource, tf.variant)
            for captured, _ in self.function.graph.captures
        ):
            return []
        mutable = tf.lookup.experimental.MutableHashTable
        return [
            value
            for layer in _keras.flatten_layers(self.model)
            for value in attributes(layer)
            if isinstance(value, mutable)
            or hasattr(value, "resource_handle")
            and hasattr(value, "_initialize")
        ]

    def save(self, directory):
        """Writes a SavedModel with the variables that the function reads.

        Keras' own export stores each weight twice, and fails for variables
        that Keras does not know; this one stores what the function reads.
        """
        import tensorflow as tf

        module = tf.Module()
        module.variables_read = list(self.function.variables)
        if tables := self.tables():
            module.tables = tables
        options = tf.saved_model.SaveOptions(
            experimental_custom_gradients=False
        )
        save_module(module, directory, self.function, options)


def save_module(module, directory, signature, options=None):
    """Writes a SavedModel of a `tf.Module` and a concrete function.

    A disk that is full is an `OSError`.
    """
    import tensorflow as tf

    numbers = {
        tf.errors.ResourceExhaustedError: errno.ENOSPC,
        tf.errors.PermissionDeniedError: errno.EACCES,
    }
    try:
        tf.saved_model.save(module, directory, signature, options)
    except tuple(numbers) as error:
        number = numbers[type(error)]
        raise OSError(
            number,
            f"'{directory}' could not be written: {os.strerror(number)}. "
            "Nothing was written, and existing files were not changed. Free "
            "some space, or choose another directory.",
        ) from error


def trace(model, signature):
    """Returns a masked Keras model, traced with `training=False`."""
    function = _function(model, signature)
    if not _writes(function.graph):
        return Traced(function, [], model)
    # Layers with dropout draw new seeds even where they drop nothing. What
    # is written, but changes no output, is left out.
    scope = RecordingScope()
    try:
        with scope:
            pure = _function(model, signature)
    except Exception:
        return Traced(function, ["its variables"], model)
    written = {id(v.value.handle): v.path for v, _ in scope.updates.values()}
    state = [
        written[id(captured)]
        for captured in _captures_read(pure)
        if id(captured) in written
    ]
    if _writes(pure.graph):
        state.append("variables of TensorFlow itself")
    state = list(dict.fromkeys(state))
    if state:
        return Traced(function, state, model)
    left_out = [
        name
        for name in written.values()
        if not name.endswith("seed_generator_state")  # as nothing is drawn
    ]
    return Traced(pure, [], model, left_out)


def _function(model, signature):
    import tensorflow as tf

    def call(*tensors):
        arguments = signature.pack(tensors)
        outputs = name_outputs(model(*arguments, training=False))
        return {
            name: tf.convert_to_tensor(as_dense(value))
            for name, value in outputs.items()
        }

    specs = [
        tf.TensorSpec(spec.shape, spec.dtype, spec.name)
        for spec in signature.specs
    ]
    return tf.function(call, autograph=False).get_concrete_function(*specs)


def nodes(graph_def):
    """Returns the nodes of a graph and of the functions in its library."""
    found = list(graph_def.node)
    for function in graph_def.library.function:
        found += function.node_def
    return found


def _writes(graph):
    return any(
        node.op.startswith(("Assign", "ResourceScatter"))
        for node in nodes(graph.as_graph_def())
    )


def _captures_read(function):
    """Returns what a function captures and its outputs depend on."""
    inside = {
        id(placeholder.op): captured
        for captured, placeholder in function.graph.captures
    }
    seen, todo = {}, [tensor.op for tensor in function.outputs]
    while todo:
        op = todo.pop()
        if id(op) not in seen:
            seen[id(op)] = op
            todo += [tensor.op for tensor in op.inputs]
    return [captured for op, captured in inside.items() if op in seen]
