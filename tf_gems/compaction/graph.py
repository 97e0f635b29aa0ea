"""A functional model as a flat list of calls, nested models included."""

import dataclasses

import keras

from tf_gems import _keras


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer or operation in the graph of a model.

    Args:
        operation: Keras layer or operation.
        args: Positional arguments, with symbolic tensors in their places.
        kwargs: Keyword arguments.
        outputs: List of symbolic tensors.
    """

    operation: object
    args: tuple
    kwargs: dict
    outputs: list

    @property
    def inputs(self):
        """List of the symbolic tensors among the arguments."""
        return tensors_of((self.args, self.kwargs))

    @property
    def name(self):
        """Name of the layer or operation."""
        return self.operation.name


def tensors_of(structure):
    """Returns the symbolic tensors of a structure, in order."""
    flat = keras.tree.flatten(structure)
    return [x for x in flat if isinstance(x, keras.KerasTensor)]


def run(model, inputs, call, within=()):
    """Runs through the graph of a model, and of the models nested in it.

    Args:
        model: `keras.Sequential` or functional model.
        inputs: Structure of symbolic tensors that the model is called with.
        call: Function of an operation, its positional arguments, its keyword
            arguments, and a tuple of the nested models around it, each with
            the keyword arguments of its call. It returns the outputs.
        within: That tuple for `model` itself. Defaults to `()`.

    Returns:
        Structure of the outputs.
    """

    def operation_fn(operation):
        def apply(*args, **kwargs):
            if is_graph(operation):
                around = (*within, (operation, kwargs))
                return run(operation, args[0], call, around)
            return call(operation, args, kwargs, within)

        return apply

    return _keras.run_through_graph(function_of(model), inputs, operation_fn)


def trace(model):
    """Returns the calls of a model in the order in which they are made.

    The layers themselves are not called, so that they gain no nodes.

    Args:
        model: `keras.Sequential` or functional model.

    Returns:
        `(inputs, calls, outputs)`: list of symbolic tensors, list of `Call`,
        and structure of symbolic tensors.
    """
    calls = []

    def call(operation, args, kwargs, _):
        outputs = operation.compute_output_spec(*args, **kwargs)
        calls.append(Call(operation, args, kwargs, keras.tree.flatten(outputs)))
        return outputs

    inputs = [
        keras.KerasTensor(x.shape, x.dtype, name=x.name) for x in model.inputs
    ]
    return inputs, calls, run(model, inputs, call)


def is_graph(layer):
    """Whether a layer is a built model whose graph can be followed."""
    if isinstance(layer, keras.Sequential):
        unchanged = type(layer).call is keras.Sequential.call
        return unchanged and function_of(layer) is not None
    functional = _keras.Functional
    if not isinstance(layer, functional):
        return False
    return type(layer).call is functional.call


def function_of(model):
    """Returns the `keras.Function` of a model, `None` if it has none."""
    if isinstance(model, keras.Sequential):
        return _keras.functional_of(model) if model.built else None
    return model
