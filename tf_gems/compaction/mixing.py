"""Operations that sum over the channels of their input."""

import keras
import numpy as np
from keras import layers

from tf_gems.compaction.copying import copy_of
from tf_gems.compaction.rules import TRANSPOSED
from tf_gems.compaction.rules import Rule
from tf_gems.compaction.rules import activate
from tf_gems.compaction.rules import array_of
from tf_gems.compaction.rules import is_borderless

SEPARABLE = {layers.SeparableConv1D, layers.SeparableConv2D}
# A carrier that is much smaller than what it carries would lose digits.
_LEAST_CARRIER = 0.1


class Mixing(Rule):
    """A dense layer or convolution: sums over the channels of its input.

    With the kernel `k[t, i, o]` over taps, inputs and outputs, output `o` is
    constant if every input `i` with any `k[t, i, o] != 0` is a constant `c_i`
    that can be folded into the bias:

        bias[o] <- bias[o] + sum_i c_i * sum_t k[t, i, o]

    At a padded border fewer taps are added up. There no constant but zero can
    be folded into a bias, but all constants can be folded into one of them,
    the carrier `j`, which stays:

        k[t, j, o] <- k[t, j, o] + sum_i c_i / c_j * k[t, i, o]
    """

    removes = True

    def __init__(self, call):
        super().__init__(call)
        kernel = self.kernel = self._kernel()
        self.reads = kernel.any(axis=0)
        self.gain = kernel.sum(axis=0)

    def _kernel(self):
        """Returns the kernel by taps, inputs and outputs, in float64."""
        layer = self.call.operation
        if type(layer) in SEPARABLE:
            depthwise = array_of(layer.depthwise_kernel)
            inputs, times = depthwise.shape[-2:]
            pointwise = array_of(layer.pointwise_kernel)
            pointwise = pointwise.reshape(inputs, times, -1)
            depthwise = depthwise.reshape(-1, inputs, times)
            return np.einsum("tim,imo->tio", depthwise, pointwise)
        kernel = array_of(layer.kernel)
        if type(layer) in TRANSPOSED:
            kernel = np.swapaxes(kernel, -1, -2)
        return kernel.reshape(-1, *kernel.shape[-2:])

    def pinned(self):
        return self.call.masks

    def add_outputs(self, channels):
        layer = self.call.operation
        foldable, constants = self._foldable(channels)
        varies = self.reads[~foldable].any(axis=0)
        found = constants @ self.gain
        if layer.use_bias:
            found = found + array_of(layer.bias)
        found = np.where(varies, np.nan, found)
        channels.add(self.output, activate(layer.activation, found))

    def requirement(self, channels):
        tensor, (foldable, _) = self.tensor, self._foldable(channels)
        read = self.reads[:, channels.kept(self.output)].any(axis=1)
        carried = read & self._carried(channels)
        yield tensor, read & ~foldable & ~carried
        if carried.any():
            sizes = np.abs(np.nan_to_num(channels.constants(tensor)))
            largest = sizes[carried].max()
            kept = self._carried(channels) & channels.kept(tensor)
            if sizes[kept].max(initial=0) < _LEAST_CARRIER * largest:
                first = np.argmax(np.where(carried, sizes, 0.0))
                yield tensor, np.arange(len(sizes)) == first

    def _carried(self, channels):
        """Returns which inputs are constants that only a carrier can hold."""
        constants = channels.constants(self.tensor)
        layer = self.call.operation
        if is_borderless(layer) or type(layer) in SEPARABLE:
            return np.zeros(len(constants), bool)
        return ~np.isnan(constants) & (constants != 0)

    def _foldable(self, channels):
        """Returns which inputs can be folded, and their values (or zero)."""
        constants = channels.constants(self.tensor)
        foldable = ~np.isnan(constants)
        if not is_borderless(self.call.operation):
            foldable &= constants == 0
        return foldable, np.where(foldable, constants, 0.0)

    def rebuild(self, channels):
        old = self.call.operation
        inputs = channels.kept(self.tensor)
        outputs = channels.kept(self.output)
        _, constants = self._foldable(channels)
        bias = (constants[~inputs] @ self.gain[~inputs])[outputs]
        folds = bias.any()
        if old.use_bias:
            bias = bias + array_of(old.bias)[outputs]
        count = int(outputs.sum())
        size = "units" if isinstance(old, layers.Dense) else "filters"
        layer = copy_of(
            old, **{size: count, "use_bias": bool(old.use_bias or folds)}
        )
        weights = self._sliced(inputs, outputs)
        if type(old) not in SEPARABLE:
            extra = self._carry(channels)[:, inputs][..., outputs]
            if type(old) in TRANSPOSED:
                extra = np.swapaxes(extra, -1, -2)
            weights[0] = weights[0] + extra.reshape(weights[0].shape)
        return layer, [*weights, bias] if layer.use_bias else weights

    def _carry(self, channels):
        """Returns what is added to the kernel for constants that go."""
        added = np.zeros_like(self.kernel)
        kept, carried = channels.kept(self.tensor), self._carried(channels)
        gone = carried & ~kept & self.reads.any(axis=1)
        if gone.any() and (carried & kept).any():
            constants = np.where(carried, channels.constants(self.tensor), 0.0)
            carrier = np.argmax(np.where(kept, np.abs(constants), 0.0))
            shares = constants[gone] / constants[carrier]
            added[:, carrier] = np.einsum(
                "i,tio->to", shares, self.kernel[:, gone]
            )
        return added

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


class PinnedOutputs(Mixing):
    """A sum over channels, of which all outputs are read together."""

    def pinned(self):
        return [*self.call.masks, *self.call.outputs]

    def add_outputs(self, channels):
        channels.add(self.call.outputs[0])
