"""A functional model as a flat list of calls, nested models included."""

import collections
import dataclasses
import inspect

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
        within: Tuple of the nested models around it. Defaults to `()`.
    """

    operation: object
    args: tuple
    kwargs: dict
    outputs: list
    within: tuple = ()

    @property
    def inputs(self):
        """List of the symbolic tensors among the arguments but masks."""
        rest = {k: v for k, v in self.kwargs.items() if not _is_mask(k)}
        return tensors_of((self.args, rest))

    @property
    def masks(self):
        """List of the symbolic tensors that say what is masked."""
        return tensors_of([v for k, v in self.kwargs.items() if _is_mask(k)])

    @property
    def name(self):
        """Name of the layer or operation."""
        return self.operation.name


def tensors_of(structure):
    """Returns the symbolic tensors of a structure, in order."""
    flat = keras.tree.flatten(structure)
    return [x for x in flat if isinstance(x, keras.KerasTensor)]


def _is_mask(name):
    return name == "mask" or name.endswith("_mask")


def run(model, inputs, call, training=None, within=()):
    """Runs through the graph of a model, and of the models nested in it.

    Each operation is replaced by `call` of the operation, its positional and
    keyword arguments, and the tuple of nested models around it.
    """

    def operation_fn(operation):
        def apply(*args, **kwargs):
            if training is not None and takes_training(operation):
                kwargs["training"] = training
            if is_graph(operation):
                given = kwargs.get("training")
                flat = inputs_of(operation, args, kwargs)
                around = (*within, operation)
                return run(operation, flat, call, given, around)
            return call(operation, args, kwargs, within)

        return apply

    return _keras.run_through_graph(function_of(model), inputs, operation_fn)


def inputs_of(model, args, kwargs):
    """Returns the tensors of a call in the order of the model's own inputs."""
    given = args[0] if args else kwargs["inputs"]
    own = _keras.inputs_struct(function_of(model))
    if isinstance(given, dict) and not isinstance(own, dict):
        return [given[tensor.name] for tensor in tensors_of(own)]
    return keras.tree.flatten(given)


def takes_training(operation):
    """Whether an operation can be called with `training`."""
    return "training" in inspect.signature(operation.call).parameters


def trace(model):
    """Returns `(inputs, calls, outputs)` of a model, in the order of the calls.

    The layers themselves are not called, so that they gain no nodes.
    """
    calls = []

    def call(operation, args, kwargs, within):
        outputs = operation.compute_output_spec(*args, **kwargs)
        flat = keras.tree.flatten(outputs)
        calls.append(Call(operation, args, kwargs, flat, within))
        return outputs

    inputs = [
        keras.KerasTensor(x.shape, x.dtype, name=x.name) for x in model.inputs
    ]
    return inputs, calls, run(model, inputs, call)


def rebuilt(model, call):
    """Returns a functional model in which other operations are called.

    `call` is that of `run`. Inputs are named and nested as those of the model.
    """
    inputs = [
        keras.Input(
            batch_shape=x.shape, dtype=x.dtype, sparse=x.sparse, name=x.name
        )
        for x in model.inputs
    ]
    outputs = run(model, inputs, call)
    packed = keras.tree.pack_sequence_as(structure_of(model), inputs)
    return keras.Model(packed, outputs, name=model.name)


def structure_of(model):
    """Returns the inputs of a model in the structure that it is called with."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    return _keras.inputs_struct(model)


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


class CallGraph:
    """The calls of a model, and which of them read which.

    Only calls of this model count. Keras' own record of a layer also has the
    calls of other models that share it.
    """

    def __init__(self, model):
        self.inputs, self.calls, outputs = trace(model)
        self._outputs = {id(tensor) for tensor in tensors_of(outputs)}
        self._makers, self._readers = {}, collections.defaultdict(list)
        self._by_layer = collections.defaultdict(list)
        for call in self.calls:
            self._by_layer[id(call.operation)].append(call)
            for tensor in tensors_of((call.args, call.kwargs)):
                self._readers[id(tensor)].append(call)
            for tensor in tensors_of(call.outputs):
                self._makers.setdefault(id(tensor), call)

    def layers(self):
        """Returns a list of `(operation, its calls)`, in order."""
        return [
            (calls[0].operation, calls) for calls in self._by_layer.values()
        ]

    def readers(self, *tensors):
        """Returns the list of calls that read any of some tensors."""
        return [call for x in tensors for call in self._readers[id(x)]]

    def maker(self, tensor):
        """Returns the call that makes a tensor; `None` for an input."""
        return self._makers.get(id(tensor))

    def is_output(self, *tensors):
        """Whether a tensor among some is an output of the model."""
        return any(id(tensor) in self._outputs for tensor in tensors)

    def is_called_once(self, call):
        """Whether the model calls an operation in one place alone."""
        return len(self._by_layer[id(call.operation)]) == 1
