"""The calls that a model of any kind makes, as a flat list."""

import contextlib
import dataclasses
import re

import keras
from keras import ops

from tf_gems import _keras
from tf_gems.compaction.comparing import leaves
from tf_gems.compaction.graph import function_of
from tf_gems.compaction.graph import inputs_of
from tf_gems.compaction.graph import is_graph
from tf_gems.compaction.graph import takes_training
from tf_gems.compaction.graph import tensors_of

# Attributes in which Keras lists the weights of a layer.
_OF_KERAS = {"_trainable_variables", "_non_trainable_variables"}


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer or operation.

    Args:
        operation: Keras layer or operation.
        args: Positional arguments, with symbolic tensors in their places.
        kwargs: Keyword arguments, `training` among them where the operation
            takes it.
        outputs: Structure of symbolic tensors.
        path: String, the names of the models that it is in, and its own.
        rests: Whether it is a user's layer that returns its input unless it
            trains. Defaults to `False`.
    """

    operation: object
    args: tuple
    kwargs: dict
    outputs: object
    path: str
    rests: bool = False

    @property
    def inputs(self):
        """List of the symbolic tensors among the arguments."""
        return tensors_of((self.args, self.kwargs))

    def compute(self, values):
        """Calls the operation on values in the places of its inputs."""
        args, kwargs = self.filled(values)
        if self.activity_regularizer is None:
            return self.operation(*args, **kwargs)
        with replaced(self.operation, "activity_regularizer", None):
            return self.operation(*args, **kwargs)

    @property
    def activity_regularizer(self):
        """Of the layer, which `compute` leaves out; `None` without one."""
        return getattr(self.operation, "activity_regularizer", None)

    def add_penalty(self, values):
        """Adds the activity penalty of an output; returns the output."""
        [x] = values
        count = ops.cast(ops.shape(x)[0], x.dtype)
        self.operation.add_loss(self.activity_regularizer(x) / count)
        return x

    def filled(self, values):
        """Returns the arguments, with values for the symbolic tensors."""
        values = iter(values)

        def fill(x):
            return next(values) if isinstance(x, keras.KerasTensor) else x

        return keras.tree.map_structure(fill, (self.args, self.kwargs))


@contextlib.contextmanager
def replaced(layer, name, value):
    """Changes an attribute of a layer within the block."""
    before = vars(layer)[name]
    vars(layer)[name] = value
    try:
        yield
    finally:
        vars(layer)[name] = before


def trace(model, inputs, training, is_known):
    """Returns the calls of a model in the order in which they are made.

    Models within and layers that hold others are followed: graphs as they
    stand, others by calling their `call` on symbolic tensors. Their own
    weights are symbolic tensors, too, so that what is computed from weights
    alone is computed again in each step. No layer of the model keeps a trace
    of it.

    Args:
        model: Built Keras model.
        inputs: Structure of symbolic tensors that the model takes.
        training: Bool.
        is_known: Function that says whether an operation is a call of its
            own, and is not to be followed.

    Returns:
        `(calls, outputs, weights)`: list of `Call`, structure of symbolic
        tensors, and dict from symbolic tensors to the weights that they stand
        for.
    """
    walk = _Walk(is_known)
    outputs = walk.through(model, (inputs,), {}, training, "")
    weights = {symbol: weight for weight, symbol in walk.weights.values()}
    return walk.calls, outputs, weights


class _Walk:
    def __init__(self, is_known):
        self.is_known = is_known
        self.calls = []
        self.weights = {}  # from ids to weights and their symbols

    def through(self, layer, args, kwargs, training, path):
        """Returns the outputs of a model or layer that is followed."""
        in_graph = is_graph(layer)

        def operation_fn(operation):
            def apply(*args, **kwargs):
                own = kwargs.get("training")
                own = training if own is None else bool(own)
                if in_graph:  # as Keras: nothing trains in `predict`
                    own = own and training
                return self._call(operation, args, kwargs, own, path)

            return apply

        if in_graph:
            function = function_of(layer)
            flat = inputs_of(layer, args, kwargs)
            return _keras.run_through_graph(function, flat, operation_fn)
        record = _Record(layer, args, kwargs, training)
        flat = tensors_of((args, kwargs))
        flat += [self._symbol_of(weight) for weight in record.weights]
        return record.run(flat, operation_fn)

    def _symbol_of(self, weight):
        _, symbol = self.weights.setdefault(
            id(weight), (weight, _symbol(weight))
        )
        return symbol

    def _call(self, operation, args, kwargs, training, path):
        name = type(operation).__name__.lower()  # of operations: not numbered
        if isinstance(operation, keras.layers.Layer):
            name = operation.name
        path = f"{path}/{name}" if path else name
        rests = False
        if not self.is_known(operation) and _can_be_followed(operation):
            rests = _rests(operation, args, kwargs)
            if not rests:
                return self.through(operation, args, kwargs, training, path)
        kwargs = {k: v for k, v in kwargs.items() if k != "training"}
        outputs = operation.compute_output_spec(*args, **kwargs)
        if takes_training(operation):
            kwargs["training"] = training
        self.calls.append(Call(operation, args, kwargs, outputs, path, rests))
        return outputs


def trace_function(function, x, path):
    """Returns the calls of a function of one tensor, and its output.

    Args:
        function: Function, or Keras layer.
        x: Symbolic tensor.
        path: String, see `Call`.

    Raises:
        Exception: If it cannot be called with a symbolic tensor.
    """
    calls = []

    def operation_fn(operation):
        def apply(*args, **kwargs):
            outputs = operation.compute_output_spec(*args, **kwargs)
            calls.append(Call(operation, args, kwargs, outputs, path))
            return outputs

        return apply

    if isinstance(function, keras.layers.Layer):
        return calls, operation_fn(function)(x)
    inside = _symbol(x)
    with _LiveReads():
        outputs = function(inside)
    if outputs is inside:
        return calls, x
    graph = keras.Function([inside], outputs)
    return calls, _keras.run_through_graph(graph, [x], operation_fn)


def _can_be_followed(operation):
    if isinstance(operation, keras.Model):
        return True
    of_keras = type(operation).__module__.startswith("keras.src.")
    return isinstance(operation, keras.layers.Layer) and not of_keras


def _rests(layer, args, kwargs):
    """Whether a layer returns its only input unless it trains.

    Layers of stochastic depth do so. What they draw in training cannot be
    traced, and need not be.
    """
    if isinstance(layer, keras.Model) or not takes_training(layer):
        return False
    if len(tensors_of((args, kwargs))) != 1:
        return False
    try:
        record = _Record(layer, args, kwargs, False)
    except ValueError:
        return False  # `through` raises it
    return record.outputs is record.inputs[0]


class _Record:
    """What a layer that is followed computes.

    Args:
        layer: Keras layer.
        args, kwargs: Arguments of its call, with symbolic tensors.
        training: Bool.

    Attributes:
        inputs: List of symbolic tensors: one for each tensor among the
            arguments, and then one for each weight.
        weights: List of the weights that `call` may read.
        outputs: Structure of symbolic tensors.
    """

    def __init__(self, layer, args, kwargs, training):
        def fresh(x):
            return _symbol(x) if isinstance(x, keras.KerasTensor) else x

        kwargs = {k: v for k, v in kwargs.items() if k != "training"}
        args, kwargs = keras.tree.map_structure(fresh, (args, kwargs))
        self.inputs = tensors_of((args, kwargs))
        if takes_training(layer):
            kwargs["training"] = training
        with _nodes_removed(layer), _symbolic_weights(layer) as weights:
            try:
                with _LiveReads() as scope:
                    self.outputs = layer.call(*args, **kwargs)
                self.inputs += [symbol for _, symbol in weights]
                self._trace()
            except Exception as error:
                reason = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras is bold
                reason = " ".join(reason.split())[:250]
                raise ValueError(
                    "The operations of a layer must be known to quantize it, "
                    "so `call` is traced with symbolic tensors. Received: "
                    f"'{layer.name}' of type {type(layer).__name__}, for "
                    f"which this fails: {reason} Write it with layers and "
                    "`keras.ops`, without conditions on values of tensors."
                ) from error
            own = getattr(layer, "activity_regularizer", None) is not None
            if own or scope.losses:
                what = "activity_regularizer" if own else "add_loss"
                raise ValueError(
                    "A model must not add its own losses to be traced for "
                    f"quantization. Received: '{layer.name}', which uses "
                    f"`{what}`. Compute this loss in the loss of `compile`."
                )
            self.weights = [weight for weight, _ in weights]

    def _trace(self):
        """Finds the graph of the outputs that are no inputs."""
        given = set(map(id, self.inputs))
        flat = keras.tree.flatten(self.outputs)
        self._computed = [x for x in flat if id(x) not in given]
        for x in self._computed:
            if not isinstance(x, keras.KerasTensor):
                raise ValueError(
                    f"it returns {x!r:.80}, which is not one of its tensors."
                )
        if self._computed:
            self._function = keras.Function(self.inputs, self._computed)

    def run(self, tensors, operation_fn):
        """Returns the outputs, see `_keras.run_through_graph`."""
        values = dict(zip(map(id, self.inputs), tensors, strict=True))
        if self._computed:
            found = _keras.run_through_graph(
                self._function, tensors, operation_fn
            )
            values |= zip(map(id, self._computed), found, strict=True)
        return keras.tree.map_structure(lambda x: values[id(x)], self.outputs)


def _symbol(x):
    name = x.name if isinstance(x, keras.KerasTensor) else x.path
    return keras.KerasTensor(x.shape, x.dtype, name=name)


@contextlib.contextmanager
def _symbolic_weights(layer):
    """Puts symbolic tensors in the places of a layer's own weights.

    `1 + self.gain` would otherwise be a tensor that no longer follows the
    weight, and `self.gain * x` an error of the backend.

    Yields:
        List of `(weight, symbolic tensor)`.
    """
    found, copies = {}, {}

    def replaced_in(value):
        if isinstance(value, keras.Variable):
            pair = found.setdefault(id(value), (value, _symbol(value)))
            return pair[1]
        if id(value) in copies:  # it may hold itself
            return copies[id(value)]
        if isinstance(value, list | tuple):
            copies[id(value)] = copy = []
            copy += map(replaced_in, value)
            return copy
        if isinstance(value, dict):
            copies[id(value)] = copy = {}
            copy.update((key, replaced_in(x)) for key, x in value.items())
            return copy
        return value

    with contextlib.ExitStack() as stack:
        for name, value in list(vars(layer).items()):
            weights = (isinstance(x, keras.Variable) for x in leaves([value]))
            if name not in _OF_KERAS and any(weights):
                stack.enter_context(replaced(layer, name, replaced_in(value)))
        yield found.values()


class _LiveReads(keras.StatelessScope):
    """Refuses values of weights that would be constants in a trace."""

    def __init__(self):
        super().__init__(collect_losses=True)

    def get_current_value(self, variable):
        raise ValueError(
            f"it reads the value of '{variable.path}', which can change. Keep "
            "weights as attributes of the layer that reads them, and draw "
            "random numbers in layers such as `GaussianNoise`."
        )


@contextlib.contextmanager
def _nodes_removed(layer):
    """Forgets what layers note of symbolic calls within the block."""
    before = [
        (nodes, len(nodes))
        for part in _keras.flatten_layers(layer)
        for nodes in (part._inbound_nodes, part._outbound_nodes)
    ]
    try:
        yield
    finally:
        for nodes, count in before:
            del nodes[count:]
