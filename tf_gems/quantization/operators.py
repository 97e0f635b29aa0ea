"""What LiteRT computes in 8-bit integers for each layer and operation.

Every layer is written as operators between which LiteRT rounds to 8 bits. The
kind of an operator says how its output is rounded:

| kind | its output |
| --- | --- |
| `"linear"` | A convolution or matrix product. A normalization or clipping that alone reads it is computed before rounding. |
| `"transposed"` | A transposed convolution. A normalization that alone reads it is computed before rounding. |
| `"normalization"` | Folded into a linear operator, or a product and a sum. |
| `"arithmetic"` | A sum, difference or product. A clipping that alone reads it is computed before rounding. |
| `"clip"` | ReLU or ReLU6, rounded to a range of its own. |
| `"own"` | Rounded to a range of its own. |
| `"concatenation"` | Rounded to a range of its own, and so is what it alone reads. |
| `"fixed"` | Rounded to a range that LiteRT prescribes. |
| `"same"` | Values of its input, not rounded again. |
| `"rounded"` | Rounded to the range of its input. |
| `"averaged"` | Likewise, of average pooling. |
| `"identity"` | No operator at all in LiteRT. |
"""  # noqa: E501

import dataclasses
import functools

import keras
from keras import layers
from keras import ops

from tf_gems.quantization import fake_quantization as fq
from tf_gems.quantization.calls import replaced


@dataclasses.dataclass(eq=False)
class Operator:
    """One operator.

    Args:
        kind: String, see above.
        compute: Function of a list of tensors, which returns a tensor.
        inputs: List of keys, the tensors that it reads.
        output: Key of its output.
        name: String, the path of its layer.
        range: `(low, high)` of a `"fixed"` one. Defaults to `None`.
        call: `Call` of a `"normalization"`. Defaults to `None`.
    """

    kind: str
    compute: object
    inputs: list
    output: object
    name: str
    range: tuple | None = None
    call: object = None


class Writer:
    """Writes calls as operators.

    Attributes:
        operators: List of `Operator`.
        kernels: List of `(variable, axes)`, the kernels to quantize, with the
            axes of their output channels.
        refused: Dict from the paths of calls to why they have no operator.
    """

    def __init__(self):
        self.operators = []
        self.kernels = []
        self.refused = {}

    def write(self, call):
        """Adds the operators of a call."""
        rule = _rule_of(call.operation)
        outputs = keras.tree.flatten(call.outputs)
        try:
            if rule is None:
                raise _Refusal(_what(call.operation))
            if len(outputs) != 1:
                raise _Refusal("with several outputs")
            if call.activity_regularizer is None:
                rule(self, call, outputs[0])
                return
            between = _Between()
            rule(self, call, between)
            self.add("identity", call.add_penalty, [between], call, outputs[0])
        except _Refusal as refusal:
            self.refused[call.path] = str(refusal)

    def add(self, kind, compute, inputs, call, output=None, fixed=None):
        """Adds an operator, and returns the key of its output.

        Args:
            kind, compute: See `Operator`.
            inputs: List of symbolic tensors or keys.
            call: `Call`.
            output: Symbolic tensor or key. Defaults to `None`: a new key.
            fixed: See `Operator`. Defaults to `None`.
        """
        output = _Between() if output is None else output
        self.operators.append(
            Operator(kind, compute, inputs, output, call.path, fixed, call)
        )
        return output

    def add_kernel(self, variable, axes=(-1,)):
        if not isinstance(variable, keras.Variable):
            raise _Refusal("whose kernel is a sum, of a low-rank adapter")
        if all(variable is not known for known, _ in self.kernels):
            self.kernels.append((variable, axes))

    def activate(self, activation, x, call, output):
        """Adds an activation function, given as a function of Keras."""
        name = getattr(activation, "__name__", str(activation))
        rule = _ACTIVATIONS.get(name)
        of_keras = activation is getattr(keras.activations, name, None)
        if rule is None or not of_keras:
            raise _Refusal(f"with the activation `{name}`")
        rule(self, x, call, output)


class _Refusal(Exception):
    """Raised for what LiteRT does not compute in 8-bit integers."""


class _Between:
    """Key of a tensor that is inside a layer."""


def is_known(operation):
    """Whether a layer or operation has a rule."""
    return _rule_of(operation) is not None


def _what(operation):
    kind = type(operation)
    if isinstance(operation, layers.Layer):
        return f"of type {kind.__name__}"
    return f"the operation `{kind.__name__.lower()}`"


def _rule_of(operation):
    if not isinstance(operation, layers.Layer):
        if type(operation).__module__.startswith("keras.src.ops."):
            return _OPERATIONS.get(type(operation).__name__)
        return None
    changed = set()
    for kind in type(operation).__mro__:
        if kind in _LAYERS:
            # A user's subclass must compute what its base computes.
            return None if changed & _METHODS else _LAYERS[kind]
        changed |= set(vars(kind))
    kind = type(operation)
    if kind.__name__.startswith("Random") and kind.__module__.startswith(
        "keras.src."
    ):
        return _simple("identity")  # augmentation, in training only
    return None


_METHODS = {"call", "__call__", "convolution_op", "_merge_function", "kernel"}


def _simple(kind, fixed=None):
    """Returns the rule of a call that is one operator."""

    def rule(writer, call, output):
        writer.add(kind, call.compute, call.inputs, call, output, fixed)

    return rule


# Layers with kernels.


def _linear(axes=(-1,), kind="linear"):
    def rule(writer, call, output):
        writer.add_kernel(call.operation.kernel, axes)
        _activated(writer, call, call.inputs, call.compute, output, kind)

    return rule


def _activated(writer, call, inputs, compute, output, kind="linear"):
    """Adds a linear operator and the activation of its layer."""
    layer = call.operation

    def without_activation(values):
        with replaced(layer, "activation", keras.activations.linear):
            return compute(values)

    if layer.activation in (None, keras.activations.linear):
        writer.add(kind, compute, inputs, call, output)
        return
    between = writer.add(kind, without_activation, inputs, call)
    writer.activate(layer.activation, between, call, output)


def _separable(writer, call, output):
    """A depthwise convolution, rounded, and then one of size one."""
    layer = call.operation
    writer.add_kernel(layer.depthwise_kernel, (-2, -1))
    writer.add_kernel(layer.pointwise_kernel)
    last = layer.data_format == "channels_last"

    def depthwise(values):
        return ops.depthwise_conv(
            values[0],
            layer.depthwise_kernel,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )

    def pointwise(values):
        y = ops.conv(
            values[0],
            layer.pointwise_kernel,
            strides=1,
            padding="valid",
            data_format=layer.data_format,
        )
        if layer.use_bias:
            shape = [1] * len(y.shape)
            shape[-1 if last else 1] = -1
            y = ops.add(y, ops.reshape(layer.bias, shape))
        return layer.activation(y) if layer.activation else y

    if layer.padding == "causal":
        raise _Refusal("with padding='causal'")
    between = writer.add("linear", depthwise, call.inputs, call)
    _activated(writer, call, [between], pointwise, output)


def _normalization(writer, call, output):
    layer = call.operation
    if layer.axis not in (-1, len(call.inputs[0].shape) - 1):
        raise _Refusal(f"with axis={layer.axis}")
    writer.add("normalization", call.compute, call.inputs, call, output)


def split_normalization(operator, training):
    """Returns a normalization as two operators, a product and a sum.

        y = x * a + (beta - mean * a),  a = gamma / sqrt(variance + epsilon)

    LiteRT computes this where it cannot be folded into a kernel. While
    training, the output is that of the layer, with the statistics of the
    batch; the product only tells its range.

    Args:
        operator: `Operator` of kind `"normalization"`.
        training: Bool.
    """
    layer = operator.call.operation
    between = _Between()

    def factor():
        gamma = layer.gamma if layer.scale else 1.0
        variance = ops.convert_to_tensor(layer.moving_variance)
        return gamma * ops.rsqrt(variance + layer.epsilon)

    def product(values):
        return ops.multiply(values[0], fq.quantize_constant(factor()))

    def sum_(values):
        if training:
            return operator.compute(values[1:])
        offset = -layer.moving_mean * factor()
        offset = layer.beta + offset if layer.center else offset
        return ops.add(values[0], fq.quantize_constant(offset))

    name, [x] = operator.name, operator.inputs
    return [
        Operator("own", product, [x], between, name),
        Operator("arithmetic", sum_, [between, x], operator.output, name),
    ]


# Activations.


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


def _activation(writer, call, output):
    activation = call.operation.activation
    if activation is None:
        activation = keras.activations.linear
    writer.activate(activation, call.inputs[0], call, output)


def _relu(writer, call, output):
    layer, [x] = call.operation, call.inputs
    if layer.threshold or layer.max_value not in (None, 6):
        raise _Refusal(
            f"with max_value={layer.max_value}, threshold={layer.threshold}"
        )
    if layer.negative_slope:
        if layer.max_value is not None:
            raise _Refusal("with a slope and a maximum")
        writer.add("own", call.compute, [x], call, output)
        return
    _clip(writer, x, call, output, layer.max_value)


def _softmax(writer, call, output):
    if call.operation.axis not in (-1, len(call.inputs[0].shape) - 1):
        raise _Refusal(f"with axis={call.operation.axis}")
    writer.add("fixed", call.compute, call.inputs, call, output, fq.UNIT)


def _named(name):
    """The rule of an operation that is an activation function."""

    def rule(writer, call, output):
        _ACTIVATIONS[name](writer, call.inputs[0], call, output)

    return rule


# Sums, products and what has several inputs.


def _arithmetic(function):
    """An operation on tensors, or on a tensor and a constant."""

    def rule(writer, call, output):
        arguments = [*call.args, *call.kwargs.values()]
        if len(arguments) != 2:
            raise _Refusal(_what(call.operation))
        tensor = [isinstance(a, keras.KerasTensor) for a in arguments]

        def compute(values):
            values = iter(values)
            return function(
                *(
                    next(values) if given else _constant(a)
                    for a, given in zip(arguments, tensor, strict=True)
                )
            )

        writer.add("arithmetic", compute, call.inputs, call, output)

    return rule


def _constant(value):
    """A number is exact in 8 bits; an array is rounded."""
    if isinstance(value, int | float):
        return value
    return fq.quantize_constant(value)


def _divide(writer, call, output):
    """Division by a constant, which LiteRT multiplies with."""
    x, divisor = [*call.args, *call.kwargs.values()]
    if isinstance(divisor, keras.KerasTensor):
        raise _Refusal("by a tensor")

    def compute(values):
        if isinstance(divisor, int | float):
            return ops.multiply(values[0], 1 / divisor)
        return ops.multiply(
            values[0], fq.quantize_constant(1.0 / ops.cast(divisor, "float32"))
        )

    if not isinstance(x, keras.KerasTensor):
        raise _Refusal("of a constant")
    writer.add("arithmetic", compute, [x], call, output)


def _merge(function):
    """A layer of two inputs or more, taken one by one."""

    def rule(writer, call, output):
        rank = max(len(x.shape) for x in call.inputs)
        x, *others = [_expanded(writer, call, x, rank) for x in call.inputs]
        for place, other in enumerate(others, 1):
            last = output if place == len(others) else None
            x = writer.add(
                "arithmetic", lambda v: function(*v), [x, other], call, last
            )
        if not others:
            writer.add("identity", lambda v: v[0], [x], call, output)

    return rule


def _expanded(writer, call, x, rank):
    """A tensor with further axes after the first one, as Keras merges it."""
    axes = tuple(range(1, 1 + rank - len(x.shape)))
    if not axes:
        return x
    return writer.add("same", lambda v: ops.expand_dims(v[0], axes), [x], call)


def _rescaling(writer, call, output):
    layer, [x] = call.operation, call.inputs
    scale, offset = layer.scale, layer.offset
    _affine(writer, call, x, scale, offset, output)


def _affine(writer, call, x, scale, offset, output):
    """`x * scale + offset`, two operators."""

    x = writer.add(
        "arithmetic",
        lambda v: ops.multiply(v[0], _constant(scale)),
        [x],
        call,
    )
    writer.add(
        "arithmetic",
        lambda v: ops.add(v[0], _constant(offset)),
        [x],
        call,
        output,
    )


def _normalization_layer(writer, call, output):
    layer, [x] = call.operation, call.inputs
    if layer.invert:
        raise _Refusal("with invert=True")
    deviation = ops.maximum(ops.sqrt(layer.variance), keras.config.epsilon())
    scale = ops.convert_to_numpy(1.0 / deviation)
    offset = ops.convert_to_numpy(-layer.mean / deviation)
    _affine(writer, call, x, scale, offset, output)


def _up_sampling(writer, call, output):
    kinds = {"nearest": "same", "bilinear": "rounded"}
    method = call.operation.interpolation
    if method not in kinds:
        raise _Refusal(f"with interpolation={method!r}")
    writer.add(kinds[method], call.compute, call.inputs, call, output)


_SAME = _simple("same")

_LAYERS = {
    layers.Conv1D: _linear(),
    layers.Conv2D: _linear(),
    layers.Conv2DTranspose: _linear((-2,), "transposed"),
    layers.DepthwiseConv1D: _linear((-2, -1)),
    layers.DepthwiseConv2D: _linear((-2, -1)),
    layers.SeparableConv1D: _separable,
    layers.SeparableConv2D: _separable,
    layers.Dense: _linear(),
    layers.BatchNormalization: _normalization,
    layers.Activation: _activation,
    layers.ReLU: _relu,
    layers.LeakyReLU: _simple("own"),
    layers.Softmax: _softmax,
    layers.Add: _merge(ops.add),
    layers.Subtract: _merge(ops.subtract),
    layers.Multiply: _merge(ops.multiply),
    layers.Concatenate: _simple("concatenation"),
    layers.MaxPooling1D: _SAME,
    layers.MaxPooling2D: _SAME,
    layers.GlobalMaxPooling1D: _SAME,
    layers.GlobalMaxPooling2D: _SAME,
    layers.AveragePooling1D: _simple("averaged"),
    layers.AveragePooling2D: _simple("averaged"),
    layers.GlobalAveragePooling1D: _simple("own"),
    layers.GlobalAveragePooling2D: _simple("own"),
    layers.Flatten: _SAME,
    layers.Reshape: _SAME,
    layers.Permute: _SAME,
    layers.ZeroPadding1D: _SAME,
    layers.ZeroPadding2D: _SAME,
    layers.Cropping1D: _SAME,
    layers.Cropping2D: _SAME,
    layers.UpSampling2D: _up_sampling,
    layers.Dropout: _simple("identity"),
    layers.SpatialDropout1D: _simple("identity"),
    layers.SpatialDropout2D: _simple("identity"),
    layers.AlphaDropout: _simple("identity"),
    layers.GaussianDropout: _simple("identity"),
    layers.GaussianNoise: _simple("identity"),
    layers.ActivityRegularization: _simple("identity"),
    layers.Identity: _simple("identity"),
    layers.Rescaling: _rescaling,
    layers.Normalization: _normalization_layer,
}

_OPERATIONS = {
    "Add": _arithmetic(ops.add),
    "Subtract": _arithmetic(ops.subtract),
    "Multiply": _arithmetic(ops.multiply),
    "Divide": _divide,
    "TrueDivide": _divide,
    "Relu": _named("relu"),
    "Relu6": _named("relu6"),
    "Sigmoid": _named("sigmoid"),
    "Tanh": _named("tanh"),
    "Silu": _named("silu"),
    "HardSigmoid": _named("hard_sigmoid"),
    "HardSilu": _named("hard_silu"),
    "Gelu": _simple("own"),
    "LeakyRelu": _simple("own"),
    "Softmax": _softmax,
    "Concatenate": _simple("concatenation"),
    "Mean": _simple("own"),
    "Max": _SAME,
    "MaxPool": _SAME,
    "AveragePool": _simple("averaged"),
    "Reshape": _SAME,
    "Transpose": _SAME,
    "Squeeze": _SAME,
    "ExpandDims": _SAME,
    "GetItem": _SAME,
    "Identity": _simple("identity"),
}
