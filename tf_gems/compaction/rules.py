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

    @property
    def tensor(self):
        """The input, of an operation that has one."""
        (tensor,) = self.call.inputs
        return tensor

    @property
    def output(self):
        """The output, of an operation that has one."""
        (output,) = self.call.outputs
        return output

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
        channels.add(self.output, self.constants(channels))
        for tensor, places, output_places in self.ties():
            channels.tie(tensor, self.output, places, output_places)

    def ties(self):
        """Returns inputs, and which of their and the output's channels tie."""
        return [(tensor, None, None) for tensor in self.call.inputs]

    def constants(self, channels):
        """Returns the constants of the output."""
        return channels.constants(self.tensor)

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
        self.before, _ = call.operation.pad_width[-1]
        self.places = self.before + np.arange(width(self.tensor))

    def constants(self, channels):
        found = np.zeros(width(self.output))
        found[self.places] = channels.constants(self.tensor)
        if any(sum(pair) for pair in self.call.operation.pad_width[:-1]):
            found = np.where(found == 0, found, np.nan)
        return found

    def ties(self):
        return [(self.tensor, None, self.places)]

    def rebuild(self, channels):
        operation, kept = self.call.operation, channels.kept(self.output)
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
        scale = 1 / np.sqrt(array_of(layer.moving_variance) + layer.epsilon)
        shift = -array_of(layer.moving_mean) * scale
        if layer.scale:
            gamma = array_of(layer.gamma)
            scale, shift = gamma * scale, gamma * shift
        if layer.center:
            shift = shift + array_of(layer.beta)
        found = channels.constants(self.tensor) * scale + shift
        return np.where(scale == 0, shift, found)

    def rebuild(self, channels):
        layer, kept = self.call.operation, channels.kept(self.output)
        return copy_of(layer), [w[kept] for w in layer.get_weights()]


class Sloped(Tied):
    """PReLU: `x` if it is positive, `alpha * x` if not."""

    def constants(self, channels):
        constants, count = channels.constants(self.tensor), width(self.tensor)
        alpha = array_of(self.call.operation.alpha).reshape(-1, count)
        uniform = (alpha == alpha[0]).all(axis=0)
        below = np.where(uniform, alpha[0] * constants, np.nan)
        return np.where(constants >= 0, constants, below)

    def rebuild(self, channels):
        layer, kept = self.call.operation, channels.kept(self.output)
        return copy_of(layer), [w[..., kept] for w in layer.get_weights()]


class Flattened(Tied):
    """All numbers in a row: a channel becomes one channel a place."""

    def _row(self, values):
        return np.tile(values, width(self.output) // width(self.tensor))

    def constants(self, channels):
        return self._row(channels.constants(self.tensor))

    def ties(self):
        return [(self.tensor, self._row(np.arange(width(self.tensor))), None)]

    def rebuild(self, channels):
        layer = self.call.operation
        if isinstance(layer, layers.Reshape):
            dtype = layer.dtype_policy
            return layers.Flatten(name=layer.name, dtype=dtype), []
        return super().rebuild(channels)


class Reshaped(Tied):
    """Other axes before the channels."""

    def rebuild(self, channels):
        count = int(channels.kept(self.output).sum())
        shape = (*self.output.shape[1:-1], count)
        return copy_of(self.call.operation, target_shape=shape), []


class Concatenated(Tied):
    """The channels of all inputs, one after the other."""

    def constants(self, channels):
        return np.concatenate([channels.constants(t) for t in self.call.inputs])

    def ties(self):
        ends = np.cumsum([width(tensor) for tensor in self.call.inputs])
        return [
            (tensor, None, np.arange(end - width(tensor), end))
            for tensor, end in zip(self.call.inputs, ends, strict=True)
        ]


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
        given = np.repeat(channels.constants(self.tensor), self.times)
        zero = ~self.kernel.any(axis=0)
        given = np.where(zero, 0.0, given)
        if not is_borderless(layer):
            given = np.where(given == 0, given, np.nan)
        found = given * self.kernel.sum(axis=0)
        if layer.use_bias:
            found = found + array_of(layer.bias)
        return activate(layer.activation, found)

    def ties(self):
        places = np.repeat(np.arange(width(self.tensor)), self.times)
        return [(self.tensor, places, None)]

    def rebuild(self, channels):
        layer, kept = self.call.operation, channels.kept(self.output)
        kernel, *bias = layer.get_weights()
        return copy_of(layer), [
            kernel[..., channels.kept(self.tensor), :],
            *(values[kept] for values in bias),
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
