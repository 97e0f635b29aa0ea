"""What LiteRT computes in 8-bit integers for each layer and operation."""

import functools
import inspect

import keras
from keras import layers
from keras import ops

from tf_gems.quantization import activations
from tf_gems.quantization import fake_quantization as fq
from tf_gems.quantization.calls import replaced
from tf_gems.quantization.writer import WITH_CONSTANTS
from tf_gems.quantization.writer import Between
from tf_gems.quantization.writer import Operator
from tf_gems.quantization.writer import Refusal
from tf_gems.quantization.writer import name_kind
from tf_gems.quantization.writer import simple


def is_known(operation):
    """Whether a layer or operation has a rule."""
    return rule_of(operation) is not None


def rule_of(operation):
    """Returns the rule of a layer or operation, or `None`.

    A rule is a function of a `Writer`, a `Call` and the key of its output.
    """
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
        return simple("identity")  # augmentation, in training only
    return None


_METHODS = {"call", "__call__", "convolution_op", "_merge_function", "kernel"}


# Layers with kernels.


def _linear(axes=(-1,), kind="linear"):
    def rule(writer, call, output):
        writer.add_kernel(call.operation.kernel, axes)
        _activated(writer, call, call.inputs, call.compute, output, kind)

    return rule


def _matmul(writer, call, output):
    """A matrix product with a weight, as in layers that users write."""
    x, kernel = [*call.args, *call.kwargs.values()]
    weight = kernel
    if isinstance(kernel, keras.KerasTensor):
        weight = writer.weights.get(kernel)
    if not isinstance(weight, keras.Variable) or writer.is_constant(x):
        raise Refusal(f"{name_kind(call.operation)} of two tensors")
    if len(weight.shape) != 2:
        raise Refusal(f"with a weight of shape {tuple(weight.shape)}")
    writer.add_kernel(weight)
    writer.add("linear", call.compute, call.inputs, call, output)


WITH_CONSTANTS.add(_matmul)


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
    activations.activate(writer, layer.activation, between, call, output)


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
        raise Refusal("with padding='causal'")
    between = writer.add("linear", depthwise, call.inputs, call)
    _activated(writer, call, [between], pointwise, output)


def _normalization(writer, call, output):
    layer = call.operation
    if layer.axis not in (-1, len(call.inputs[0].shape) - 1):
        raise Refusal(f"with axis={layer.axis}")
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
    between = Between()

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


# Sums, products and what has several inputs.


def _arithmetic(function):
    """An operation on tensors, or on a tensor and a constant."""

    def rule(writer, call, output):
        arguments = [*call.args, *call.kwargs.values()]
        if len(arguments) != 2:
            raise Refusal(name_kind(call.operation))

        def compute(values):
            values = iter(values)
            operands = []
            for argument in arguments:
                given = isinstance(argument, keras.KerasTensor)
                value = next(values) if given else argument
                if not given or writer.is_constant(argument):
                    value = _constant(value)
                operands.append(value)
            return function(*operands)

        writer.add("arithmetic", compute, call.inputs, call, output)

    WITH_CONSTANTS.add(rule)
    return rule


def _constant(value):
    """A number is exact in 8 bits; an array is rounded."""
    if isinstance(value, int | float):
        return value
    return fq.quantize_constant(value)


def _divide(writer, call, output):
    """Division by a constant, which LiteRT multiplies with."""
    x, divisor = [*call.args, *call.kwargs.values()]
    given = isinstance(divisor, keras.KerasTensor)
    if given and not writer.is_constant(divisor):
        raise Refusal("by a tensor")
    if not isinstance(x, keras.KerasTensor) or writer.is_constant(x):
        raise Refusal("of a constant")

    def compute(values):
        if isinstance(divisor, int | float):
            return ops.multiply(values[0], 1 / divisor)
        by = ops.cast(values[1] if given else divisor, "float32")
        return ops.multiply(values[0], fq.quantize_constant(1.0 / by))

    writer.add("arithmetic", compute, call.inputs, call, output)


WITH_CONSTANTS.add(_divide)


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


def _average(writer, call, output):
    """A sum, and a product."""
    between, count = Between(), len(call.inputs)
    _merge(ops.add)(writer, call, between)
    writer.add(
        "arithmetic",
        lambda v: ops.multiply(v[0], 1 / count),
        [between],
        call,
        output,
    )


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
        raise Refusal("with invert=True")
    deviation = ops.maximum(ops.sqrt(layer.variance), keras.config.epsilon())
    scale = ops.convert_to_numpy(1.0 / deviation)
    offset = ops.convert_to_numpy(-layer.mean / deviation)
    _affine(writer, call, x, scale, offset, output)


def _pad(writer, call, output):
    values = [*call.args[1:], *call.kwargs.values()]
    if call.operation.mode != "constant" or any(
        v not in (None, 0) for v in values
    ):
        raise Refusal("with other values than zeros")
    writer.add("same", call.compute, call.inputs, call, output)


def _lambda(writer, call, output):
    layer = call.operation
    if not isinstance(call.args[0], keras.KerasTensor):
        raise Refusal("of several inputs")
    arguments = dict(layer.arguments)
    if "training" in inspect.getfullargspec(layer.function).args:
        arguments["training"] = call.kwargs["training"]
    function = functools.partial(layer.function, **arguments)
    writer.follow(function, call.args[0], call, output, call.args[0])


def _up_sampling(writer, call, output):
    kinds = {"nearest": "same", "bilinear": "rounded"}
    method = call.operation.interpolation
    if method not in kinds:
        raise Refusal(f"with interpolation={method!r}")
    writer.add(kinds[method], call.compute, call.inputs, call, output)


_SAME = simple("same")

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
    layers.Activation: activations.activation,
    layers.ReLU: activations.relu,
    layers.LeakyReLU: simple("own"),
    layers.PReLU: activations.prelu,
    layers.Softmax: activations.softmax,
    layers.Add: _merge(ops.add),
    layers.Subtract: _merge(ops.subtract),
    layers.Multiply: _merge(ops.multiply),
    layers.Average: _average,
    layers.Concatenate: simple("concatenation"),
    layers.MaxPooling1D: _SAME,
    layers.MaxPooling2D: _SAME,
    layers.GlobalMaxPooling1D: _SAME,
    layers.GlobalMaxPooling2D: _SAME,
    layers.AveragePooling1D: simple("averaged"),
    layers.AveragePooling2D: simple("averaged"),
    layers.GlobalAveragePooling1D: simple("own"),
    layers.GlobalAveragePooling2D: simple("own"),
    layers.Flatten: _SAME,
    layers.Reshape: _SAME,
    layers.Permute: _SAME,
    layers.ZeroPadding1D: _SAME,
    layers.ZeroPadding2D: _SAME,
    layers.Cropping1D: _SAME,
    layers.Cropping2D: _SAME,
    layers.UpSampling2D: _up_sampling,
    layers.Dropout: simple("identity"),
    layers.SpatialDropout1D: simple("identity"),
    layers.SpatialDropout2D: simple("identity"),
    layers.AlphaDropout: simple("identity"),
    layers.GaussianDropout: simple("identity"),
    layers.GaussianNoise: simple("identity"),
    layers.ActivityRegularization: simple("identity"),
    layers.Identity: simple("identity"),
    layers.Rescaling: _rescaling,
    layers.Normalization: _normalization_layer,
    layers.Lambda: _lambda,
}

_OPERATIONS = {
    "Add": _arithmetic(ops.add),
    "Subtract": _arithmetic(ops.subtract),
    "Multiply": _arithmetic(ops.multiply),
    "Divide": _divide,
    "TrueDivide": _divide,
    "Matmul": _matmul,
    "Relu": activations.named("relu"),
    "Relu6": activations.named("relu6"),
    "Sigmoid": activations.named("sigmoid"),
    "Tanh": activations.named("tanh"),
    "Silu": activations.named("silu"),
    "HardSigmoid": activations.named("hard_sigmoid"),
    "HardSilu": activations.named("hard_silu"),
    "Gelu": simple("own"),
    "LeakyRelu": simple("own"),
    "Softmax": activations.softmax,
    "Concatenate": simple("concatenation"),
    "Pad": _pad,
    "Mean": simple("own"),
    "Max": _SAME,
    "MaxPool": _SAME,
    "AveragePool": simple("averaged"),
    "Reshape": _SAME,
    "Transpose": _SAME,
    "Squeeze": _SAME,
    "ExpandDims": _SAME,
    "GetItem": _SAME,
    "Identity": simple("identity"),
}
