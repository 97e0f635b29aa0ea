"""What each kind of operation does to the channels of its inputs."""

import keras
import numpy as np
from keras import layers
from keras import ops

from tf_gems.compaction.channels import width
from tf_gems.compaction.copying import copy_of

TRANSPOSED = {
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
}


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
        call = self.call
        return [*call.inputs, *call.masks, *call.outputs]

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
        return self.call.masks  # their last axis is none of channels

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
        return copy_of(self.call.operation), []


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
            return tensor_of(given[id(x)]) if id(x) in given else x

        args, kwargs = keras.tree.map_structure(
            value, (self.call.args, self.call.kwargs)
        )
        found = array_of(self.call.operation.call(*args, **kwargs))
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
        scale = 1 / np.sqrt(array_of(layer.moving_variance) + layer.epsilon)
        shift = -array_of(layer.moving_mean) * scale
        if layer.scale:
            gamma = array_of(layer.gamma)
            scale, shift = gamma * scale, gamma * shift
        if layer.center:
            shift = shift + array_of(layer.beta)
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
        alpha = array_of(self.call.operation.alpha).reshape(-1, width(tensor))
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
        kernel = array_of(layer.kernel)
        self.kernel = kernel.reshape(-1, kernel.shape[-2] * self.times)

    def constants(self, channels):
        layer = self.call.operation
        (tensor,) = self.call.inputs
        given = np.repeat(channels.constants(tensor), self.times)
        zero = ~self.kernel.any(axis=0)
        given = np.where(zero, 0.0, given)
        if not is_borderless(layer):
            given = np.where(given == 0, given, np.nan)
        found = given * self.kernel.sum(axis=0)
        if layer.use_bias:
            found = found + array_of(layer.bias)
        return activate(layer.activation, found)

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


def is_borderless(layer):
    """Whether every output adds up the same taps of a constant input."""
    if isinstance(layer, layers.Dense):
        return True
    if all(size == 1 for size in layer.kernel_size):
        # A transposed one leaves gaps between its strides.
        gaps = type(layer) in TRANSPOSED and max(layer.strides) > 1
        return not gaps
    return type(layer) not in TRANSPOSED and layer.padding == "valid"


def activate(activation, constants):
    """Returns what an activation makes of constants; NaN stays NaN."""
    if activation is None:
        return constants
    found = array_of(activation(tensor_of(constants)))
    return np.where(np.isnan(constants), np.nan, found)


def tensor_of(values):
    """Returns an array as a float32 tensor."""
    return ops.convert_to_tensor(np.asarray(values, "float32"))


def array_of(value):
    """Returns a tensor as a float64 array."""
    return np.asarray(ops.convert_to_numpy(value), "float64")
