"""What LiteRT computes in 8-bit integers for each activation."""

import functools

import keras
from keras import ops

from tf_gems.quantization import fake_quantization as fq
from tf_gems.quantization.writer import UNKNOWN
from tf_gems.quantization.writer import Refusal


def activate(writer, activation, x, call, output):
    """Adds an activation, given as a function or layer."""
    name = getattr(activation, "__name__", str(activation))
    rule = _ACTIVATIONS.get(name)
    if rule is not None and _is_from_library(activation, name):
        rule(writer, x, call, output)
        return
    writer.follow(activation, x, call, output, call.outputs)
    why = writer.refused.get(call.path)
    if why is not None:
        why = "" if why == UNKNOWN else f": {why}"
        writer.refused[call.path] = f"with the activation `{name}`{why}"


def _is_from_library(activation, name):
    """Whether a function is the one of its name of Keras or TensorFlow."""
    if activation is getattr(keras.activations, name, None):
        return True
    of_tensorflow = getattr(activation, "__module__", "").startswith(
        "tensorflow."
    )
    return of_tensorflow and name in (
        "relu",
        "relu6",
        "sigmoid",
        "tanh",
        "silu",
        "softmax",
    )


def _clip(writer, x, call, output, limit=None):
    compute = ops.relu if limit is None else ops.relu6
    writer.add("clip", lambda v: compute(v[0]), [x], call, output)


def _fixed(function, limits):
    def rule(writer, x, call, output):
        writer.add("fixed", lambda v: function(v[0]), [x], call, output, limits)

    return rule


def _own(function):
    def rule(writer, x, call, output):
        writer.add("own", lambda v: function(v[0]), [x], call, output)

    return rule


def _silu(writer, x, call, output):
    """`x * sigmoid(x)`, two operators."""
    s = writer.add(
        "fixed", lambda v: ops.sigmoid(v[0]), [x], call, None, fq.UNIT
    )
    writer.add("arithmetic", _product, [x, s], call, output)


def _hard_sigmoid(writer, x, call, output):
    """`relu6(x + 3) / 6`: a sum that is clipped, and a product."""
    y = writer.add("arithmetic", lambda v: ops.add(v[0], 3.0), [x], call)
    y = writer.add("clip", lambda v: ops.relu6(v[0]), [y], call)
    writer.add(
        "arithmetic", lambda v: ops.multiply(v[0], 1 / 6), [y], call, output
    )


def _identity(writer, x, call, output):
    writer.add("identity", lambda v: v[0], [x], call, output)


def _product(values):
    return ops.multiply(*values)


_ACTIVATIONS = {
    "linear": _identity,
    "relu": _clip,
    "relu6": functools.partial(_clip, limit=6),
    "sigmoid": _fixed(ops.sigmoid, fq.UNIT),
    "tanh": _fixed(ops.tanh, fq.SYMMETRIC_UNIT),
    "softmax": _fixed(ops.softmax, fq.UNIT),
    "silu": _silu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _own(ops.hard_silu),
    "gelu": _own(keras.activations.gelu),
    "leaky_relu": _own(keras.activations.leaky_relu),
}


def activation(writer, call, output):
    """The rule of `keras.layers.Activation`."""
    function = call.operation.activation
    if function is None:
        function = keras.activations.linear
    activate(writer, function, call.inputs[0], call, output)


def relu(writer, call, output):
    """The rule of `keras.layers.ReLU`."""
    layer, [x] = call.operation, call.inputs
    if layer.threshold or layer.max_value not in (None, 6):
        raise Refusal(
            f"with max_value={layer.max_value}, threshold={layer.threshold}"
        )
    if layer.negative_slope:
        if layer.max_value is not None:
            raise Refusal("with a slope and a maximum")
        writer.add("own", call.compute, [x], call, output)
        return
    _clip(writer, x, call, output, layer.max_value)


def softmax(writer, call, output):
    """The rule of softmax, over the last axis."""
    if call.operation.axis not in (-1, len(call.inputs[0].shape) - 1):
        raise Refusal(f"with axis={call.operation.axis}")
    writer.add("fixed", call.compute, call.inputs, call, output, fq.UNIT)


def named(name):
    """Returns the rule of an operation that is an activation function."""

    def rule(writer, call, output):
        _ACTIVATIONS[name](writer, call.inputs[0], call, output)

    return rule


def prelu(writer, call, output):
    """The rule of `keras.layers.PReLU`, one operator."""
    layer = call.operation

    def compute(values):
        # As Keras writes it, which the converter knows.
        slope = ops.convert_to_tensor(layer.alpha)
        return ops.relu(values[0]) + -slope * ops.relu(-values[0])

    writer.add("own", compute, call.inputs, call, output)
