"""What each kind of operation does to the channels of its inputs."""

import keras
import numpy as np
from keras import layers
from keras import ops

from tf_gems.compaction.channels import width

# Activations that treat every number alone.
ELEMENTWISE_ACTIVATIONS = {
    *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid"),
    *("hard_silu", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "mish"),
    *("relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softplus"),
    *("softsign", "sparse_plus", "squareplus", "tanh", "tanh_shrink"),
    "threshold",
}
ELEMENTWISE = {
    *(layers.Add, layers.Average, layers.ELU, layers.LeakyReLU),
    *(layers.Maximum, layers.Minimum, layers.Multiply, layers.ReLU),
    layers.Subtract,
}
ELEMENTWISE_OPS = {
    *("Absolute", "Add", "Clip", "Divide", "Elu", "Exp", "Gelu"),
    *("HardSigmoid", "HardSilu", "LeakyRelu", "Maximum", "Minimum"),
    *("Multiply", "Negative", "Relu", "Relu6", "Sigmoid", "Silu"),
    *("Softplus", "Square", "Subtract", "Tanh", "TrueDivide"),
}
# What returns a constant channel as it is, at inference.
SAME_CONSTANTS = {
    *(layers.ActivityRegularization, layers.AlphaDropout),
    *(layers.AveragePooling1D, layers.AveragePooling2D),
    *(layers.AveragePooling3D, layers.Cropping1D, layers.Cropping2D),
    *(layers.Cropping3D, layers.Dropout, layers.GaussianDropout),
    *(layers.GaussianNoise, layers.GlobalAveragePooling1D),
    *(layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D),
    *(layers.GlobalMaxPooling3D, layers.Identity, layers.MaxPooling1D),
    *(layers.MaxPooling2D, layers.MaxPooling3D, layers.SpatialDropout1D),
    *(layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
}
PADDING = {
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
}
CONVOLUTIONS = {layers.Conv1D, layers.Conv2D, layers.Conv3D}
TRANSPOSED = {
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
}
SEPARABLE = {layers.SeparableConv1D, layers.SeparableConv2D}
DEPTHWISE = {layers.DepthwiseConv1D, layers.DepthwiseConv2D}


class Rule:
    """Base class: an operation that is left as it is.

    Every channel of its inputs is read, and every channel of its outputs
    stays.

    Args:
        call: `Call`.
        reason: String, why nothing is removed here. Defaults to `None`: there
            is nothing to say.
    """

    removes = False

    def __init__(self, call, reason=None):
        self.call = call
        self.reason = reason

    def add_outputs(self, channels):
        """Adds the outputs with their constants, and ties."""
        for tensor in self.call.outputs:
            channels.add(tensor)

    def pinned(self):
        """Returns the tensors of which every channel stays."""
        return [*self.call.inputs, *self.call.outputs]

    def requirement(self, channels):
        """Yields `(tensor, required)`, given what is known to stay."""
        yield from ()

    def rebuild(self, channels):
        """Returns `(operation, weights)`, or `None` to keep the operation.

        The weights are a list of arrays, assigned once it was called.
        """
        return None


class Tied(Rule):
    """An operation whose channels are those of its inputs, one by one."""

    removes = True

    def pinned(self):
        return []

    def add_outputs(self, channels):
        (output,) = self.call.outputs
        channels.add(output, self.constants(channels))
        for tensor in self.call.inputs:
            channels.tie(tensor, output)

    def constants(self, channels):
        """Returns the constants of the output."""
        (tensor,) = self.call.inputs
        return channels.constants(tensor)

    def rebuild(self, channels):
        operation = self.call.operation
        return type(operation).from_config(operation.get_config()), []


class Padding(Tied):
    """Zeros around the maps: only a constant of zero stays constant."""

    def constants(self, channels):
        found = super().constants(channels)
        return np.where(found == 0, found, np.nan)


class PaddedChannels(Padding):
    """`keras.ops.pad` with zeros: around the maps, and of further channels."""

    def __init__(self, call):
        super().__init__(call)
        (tensor,) = call.inputs
        self.before, _ = call.operation.pad_width[-1]
        self.places = self.before + np.arange(width(tensor))

    def constants(self, channels):
        operation, (output,) = self.call.operation, self.call.outputs
        (tensor,) = self.call.inputs
        found = np.zeros(width(output))
        found[self.places] = channels.constants(tensor)
        if any(sum(pair) for pair in operation.pad_width[:-1]):
            found = np.where(found == 0, found, np.nan)
        return found

    def add_outputs(self, channels):
        (tensor,), (output,) = self.call.inputs, self.call.outputs
        channels.add(output, self.constants(channels))
        channels.tie(tensor, output, None, self.places)

    def rebuild(self, channels):
        operation, (output,) = self.call.operation, self.call.outputs
        kept = channels.kept(output)
        end = self.places[-1] + 1
        pair = (int(kept[: self.before].sum()), int(kept[end:].sum()))
        pad_width = [*operation.pad_width[:-1], pair]
        return type(operation)(pad_width, name=operation.name), []


class Elementwise(Tied):
    """A function of the numbers at the same place of all inputs."""

    def constants(self, channels):
        given = {id(t): channels.constants(t) for t in self.call.inputs}

        def value(x):
            return _tensor(given[id(x)]) if id(x) in given else x

        args, kwargs = keras.tree.map_structure(
            value, (self.call.args, self.call.kwargs)
        )
        found = _array(self.call.operation.call(*args, **kwargs))
        known = np.stack(list(given.values()))
        found = np.where(np.isnan(known).any(axis=0), np.nan, found)
        if type(self.call.operation).__name__ == "Multiply":
            found = np.where((known == 0).any(axis=0), 0.0, found)
        return found


class Scaled(Tied):
    """Batch normalization: `a * x + b` for each channel.

    `a = gamma / sqrt(variance + epsilon)` and `b = beta - mean * a`.
    """

    def constants(self, channels):
        layer = self.call.operation
        (tensor,) = self.call.inputs
        scale = 1 / np.sqrt(_array(layer.moving_variance) + layer.epsilon)
        shift = -_array(layer.moving_mean) * scale
        if layer.scale:
            gamma = _array(layer.gamma)
            scale, shift = gamma * scale, gamma * shift
        if layer.center:
            shift = shift + _array(layer.beta)
        found = channels.constants(tensor) * scale + shift
        return np.where(scale == 0, shift, found)

    def rebuild(self, channels):
        layer, _ = super().rebuild(channels)
        (output,) = self.call.outputs
        kept = channels.kept(output)
        old = self.call.operation.get_weights()
        return layer, [weight[kept] for weight in old]


class Sloped(Tied):
    """PReLU: `x` if it is positive, `alpha * x` if not."""

    def constants(self, channels):
        (tensor,) = self.call.inputs
        constants = channels.constants(tensor)
        alpha = _array(self.call.operation.alpha).reshape(-1, width(tensor))
        uniform = (alpha == alpha[0]).all(axis=0)
        below = np.where(uniform, alpha[0] * constants, np.nan)
        return np.where(constants >= 0, constants, below)

    def rebuild(self, channels):
        layer, _ = super().rebuild(channels)
        (output,) = self.call.outputs
        alpha = self.call.operation.get_weights()[0]
        return layer, [alpha[..., channels.kept(output)]]


class Flattened(Tied):
    """All numbers in a row: a channel becomes one channel a place."""

    def constants(self, channels):
        (tensor,), (output,) = self.call.inputs, self.call.outputs
        constants = channels.constants(tensor)
        return np.tile(constants, width(output) // width(tensor))

    def add_outputs(self, channels):
        (tensor,), (output,) = self.call.inputs, self.call.outputs
        channels.add(output, self.constants(channels))
        places = np.tile(
            np.arange(width(tensor)), width(output) // width(tensor)
        )
        channels.tie(tensor, output, places)

    def rebuild(self, channels):
        operation = self.call.operation
        if isinstance(operation, layers.Reshape):
            operation = layers.Flatten(
                name=operation.name, dtype=operation.dtype_policy
            )
            return operation, []
        return super().rebuild(channels)


class Reshaped(Tied):
    """Other axes before the channels."""

    def rebuild(self, channels):
        (output,) = self.call.outputs
        layer = self.call.operation
        count = int(channels.kept(output).sum())
        shape = (*output.shape[1:-1], count)
        return layers.Reshape(
            shape, name=layer.name, dtype=layer.dtype_policy
        ), []


class Concatenated(Tied):
    """The channels of all inputs, one after the other."""

    def constants(self, channels):
        return np.concatenate([channels.constants(t) for t in self.call.inputs])

    def add_outputs(self, channels):
        (output,) = self.call.outputs
        channels.add(output, self.constants(channels))
        begin = 0
        for tensor in self.call.inputs:
            places = begin + np.arange(width(tensor))
            channels.tie(tensor, output, None, places)
            begin += width(tensor)


class Depthwise(Tied):
    """A convolution of each channel alone, `depth_multiplier` times."""

    def __init__(self, call):
        super().__init__(call)
        layer = call.operation
        self.times = layer.depth_multiplier
        kernel = _array(layer.kernel)
        self.kernel = kernel.reshape(-1, kernel.shape[-2] * self.times)

    def constants(self, channels):
        layer = self.call.operation
        (tensor,) = self.call.inputs
        given = np.repeat(channels.constants(tensor), self.times)
        zero = ~self.kernel.any(axis=0)
        given = np.where(zero, 0.0, given)
        if not _is_borderless(layer):
            given = np.where(given == 0, given, np.nan)
        found = given * self.kernel.sum(axis=0)
        if layer.use_bias:
            found = found + _array(layer.bias)
        return _activate(layer.activation, found)

    def add_outputs(self, channels):
        (tensor,), (output,) = self.call.inputs, self.call.outputs
        channels.add(output, self.constants(channels))
        places = np.repeat(np.arange(width(tensor)), self.times)
        channels.tie(tensor, output, places)

    def rebuild(self, channels):
        layer, _ = super().rebuild(channels)
        (tensor,), (output,) = self.call.inputs, self.call.outputs
        kernel, *bias = self.call.operation.get_weights()
        return layer, [
            kernel[..., channels.kept(tensor), :],
            *(values[channels.kept(output)] for values in bias),
        ]


class Mixing(Rule):
    """A dense layer or convolution: sums over the channels of its input.

    With the kernel `k[t, i, o]` over taps, inputs and outputs, output `o` is
    constant if every input `i` with any `k[t, i, o] != 0` is a constant `c_i`
    that can be folded into the bias:

        bias[o] <- bias[o] + sum_i c_i * sum_t k[t, i, o]

    At a padded border fewer taps are added up: there only `c_i = 0` can be
    folded.
    """

    removes = True

    def __init__(self, call):
        super().__init__(call)
        kernel = self._kernel()
        self.reads = kernel.any(axis=0)
        self.gain = kernel.sum(axis=0)

    def _kernel(self):
        """Returns the kernel by taps, inputs and outputs, in float64."""
        layer = self.call.operation
        if type(layer) in SEPARABLE:
            depthwise = _array(layer.depthwise_kernel)
            inputs, times = depthwise.shape[-2:]
            pointwise = _array(layer.pointwise_kernel)
            pointwise = pointwise.reshape(inputs, times, -1)
            depthwise = depthwise.reshape(-1, inputs, times)
            return np.einsum("tim,imo->tio", depthwise, pointwise)
        kernel = _array(layer.kernel)
        if type(layer) in TRANSPOSED:
            kernel = np.swapaxes(kernel, -1, -2)
        return kernel.reshape(-1, *kernel.shape[-2:])

    def pinned(self):
        return []

    def add_outputs(self, channels):
        layer = self.call.operation
        (tensor,), (output,) = self.call.inputs, self.call.outputs
        foldable, constants = self._foldable(channels, tensor)
        varies = self.reads[~foldable].any(axis=0)
        found = constants @ self.gain
        if layer.use_bias:
            found = found + _array(layer.bias)
        found = np.where(varies, np.nan, found)
        channels.add(output, _activate(layer.activation, found))

    def requirement(self, channels):
        (tensor,), (output,) = self.call.inputs, self.call.outputs
        foldable, _ = self._foldable(channels, tensor)
        read = self.reads[:, channels.kept(output)].any(axis=1)
        yield tensor, read & ~foldable

    def _foldable(self, channels, tensor):
        """Returns which inputs can be folded, and their values (or zero)."""
        constants = channels.constants(tensor)
        foldable = ~np.isnan(constants)
        if not _is_borderless(self.call.operation):
            foldable &= constants == 0
        return foldable, np.where(foldable, constants, 0.0)

    def rebuild(self, channels):
        old = self.call.operation
        (tensor,), (output,) = self.call.inputs, self.call.outputs
        inputs, outputs = channels.kept(tensor), channels.kept(output)
        _, constants = self._foldable(channels, tensor)
        bias = (constants[~inputs] @ self.gain[~inputs])[outputs]
        folds = bias.any()
        if old.use_bias:
            bias = bias + _array(old.bias)[outputs]
        count = int(outputs.sum())
        size = "units" if isinstance(old, layers.Dense) else "filters"
        layer = type(old).from_config(
            {
                **old.get_config(),
                size: count,
                "use_bias": bool(old.use_bias or folds),
            }
        )
        weights = self._sliced(inputs, outputs)
        return layer, [*weights, bias] if layer.use_bias else weights

    def _sliced(self, inputs, outputs):
        layer = self.call.operation
        if type(layer) in SEPARABLE:
            depthwise = keras.ops.convert_to_numpy(layer.depthwise_kernel)
            pointwise = keras.ops.convert_to_numpy(layer.pointwise_kernel)
            between = np.repeat(inputs, depthwise.shape[-1])
            return [
                depthwise[..., inputs, :],
                pointwise[..., between, :][..., outputs],
            ]
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        if type(layer) in TRANSPOSED:
            return [kernel[..., outputs, :][..., inputs]]
        return [kernel[..., inputs, :][..., outputs]]


def rule_for(call, calls_of_operation):
    """Returns the `Rule` of a call.

    Args:
        call: `Call`.
        calls_of_operation: Integer, how often the model calls the operation.
    """
    operation, kind = call.operation, type(call.operation)
    if len(call.outputs) != 1 or not all(map(width, _tensors(call))):
        return Rule(call, "its channels are not known")
    if getattr(operation, "data_format", None) == "channels_first":
        return Rule(call, "its channels are not the last axis")
    if getattr(operation, "quantization_mode", None):
        return Rule(call, "it is quantized")
    if getattr(operation, "lora_enabled", False):
        return Rule(call, "it has LoRA weights")
    has_weights = isinstance(operation, keras.Layer) and operation.weights
    if has_weights and calls_of_operation > 1:
        return Rule(call, f"it is called {calls_of_operation} times")
    if kind in CONVOLUTIONS and operation.groups > 1:
        return Rule(call, "its channels are in groups")
    if kind in {layers.Dense, *CONVOLUTIONS, *TRANSPOSED, *SEPARABLE}:
        if not _is_elementwise(operation.activation):
            # What leaves it stays; what enters it may still be removed.
            return _PinnedOutputs(call)
        return Mixing(call)
    if kind in DEPTHWISE and _is_elementwise(operation.activation):
        return Depthwise(call)
    rule = _tied_rule(call)
    if rule is None:
        return Rule(call, f"`{kind.__name__}` is not known to keep channels")
    return rule


class _PinnedOutputs(Mixing):
    """A sum over channels, of which all outputs are read together."""

    def pinned(self):
        return self.call.outputs

    def add_outputs(self, channels):
        channels.add(self.call.outputs[0])


def _tied_rule(call):
    operation, kind = call.operation, type(call.operation)
    tensors, (output,) = call.inputs, call.outputs
    ranks = {len(tensor.shape) for tensor in _tensors(call)}
    alike = {width(tensor) for tensor in _tensors(call)}
    if kind in ELEMENTWISE or _is_op(operation, ELEMENTWISE_OPS):
        is_same = len(alike) == len(ranks) == 1 and _has_only_scalars(call)
        return Elementwise(call) if is_same else None
    if kind is layers.Activation and _is_elementwise(operation.activation):
        return Elementwise(call)
    if kind is layers.Rescaling:
        scalar = np.ndim(operation.scale) == np.ndim(operation.offset) == 0
        return Elementwise(call) if scalar else None
    if kind in SAME_CONSTANTS:
        return Tied(call)
    if _is_op(operation, {"Pad"}):
        every = len(operation.pad_width) == len(output.shape)
        return PaddedChannels(call) if every and _pads_zeros(call) else None
    if kind in PADDING:
        return Padding(call)
    if kind is layers.BatchNormalization:
        last = operation.axis in (-1, len(tensors[0].shape) - 1)
        return Scaled(call) if last else None
    if kind is layers.PReLU:
        return Sloped(call)
    if kind is layers.Concatenate or _is_op(operation, {"Concatenate"}):
        last = operation.axis in (-1, len(output.shape) - 1)
        return Concatenated(call) if last else None
    if kind in (layers.Flatten, layers.Reshape):
        (tensor,) = tensors
        if width(tensor) == width(output):
            return (Reshaped if kind is layers.Reshape else Tied)(call)
        if len(output.shape) == 2 and None not in tensor.shape[1:]:
            return Flattened(call)
    return None


def _is_op(operation, names):
    """Whether an operation is one of `keras.ops` of these names."""
    kind = type(operation)
    return kind.__module__.startswith("keras.src.ops.") and (
        kind.__name__ in names
    )


def _pads_zeros(call):
    """Whether `keras.ops.pad` pads with zeros."""
    values = [*call.args[1:], *call.kwargs.values()]
    return call.operation.mode == "constant" and not any(values)


def _has_only_scalars(call):
    """Whether nothing but tensors of the graph and numbers is passed."""
    values = keras.tree.flatten((call.args, call.kwargs))
    numbers = (int, float, bool, str, type(None), keras.KerasTensor)
    return all(isinstance(value, numbers) for value in values)


def _is_elementwise(activation):
    name = getattr(activation, "__name__", "")
    known = getattr(keras.activations, name, None)
    return activation is None or (
        known is activation and name in ELEMENTWISE_ACTIVATIONS
    )


def _is_borderless(layer):
    """Whether every output adds up the same taps of a constant input."""
    if isinstance(layer, layers.Dense):
        return True
    if all(size == 1 for size in layer.kernel_size):
        # A transposed one leaves gaps between its strides.
        gaps = type(layer) in TRANSPOSED and max(layer.strides) > 1
        return not gaps
    return type(layer) not in TRANSPOSED and layer.padding == "valid"


def _activate(activation, constants):
    if activation is None:
        return constants
    found = _array(activation(_tensor(constants)))
    return np.where(np.isnan(constants), np.nan, found)


def _tensors(call):
    return [*call.inputs, *call.outputs]


def _tensor(values):
    return ops.convert_to_tensor(np.asarray(values, "float32"))


def _array(value):
    return np.asarray(ops.convert_to_numpy(value), "float64")
