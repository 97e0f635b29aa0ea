"""Scaling of a model's inputs, moved behind its first convolution.

A convolution is linear. With scales `s[c]` and offsets `o[c]` of the input
channels, and `t` the mean of the scales,

    sum(K[h, w, c] * (s[c] * x[c] + o[c])) = t * sum(K'[h, w, c] * x[c]) + b,
    K'[h, w, c] = K[h, w, c] * s[c] / t,    b = sum(K[h, w, c] * o[c]),

wherever the convolution reads no padding. Padding is zero, and is now added
before the offset. The converter folds the factor `t` into the kernel of the
convolution. In Keras it stays separate, so that the kernel keeps the magnitude
that it was trained with. `b` is subtracted from the moving mean of a batch
normalization that follows, or added to the bias.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from tf_gems.compaction.copying import is_rewritable

layers = keras.layers


@dataclasses.dataclass
class InputScaling:
    """Operations between an input and a convolution that scale the input.

    Each channel is multiplied by its `scale`, and then its `offset` is added.
    `norm` is the `BatchNormalization` that alone reads the convolution.
    """

    operations: list
    convolution: keras.layers.Layer
    norm: keras.layers.Layer | None
    scale: np.ndarray
    offset: np.ndarray

    @property
    def exact(self):
        """Whether the effect of zero padding is unchanged."""
        return not self.offset.any() or (
            self.convolution.padding == "valid" and not self._padded
        )

    @property
    def _padded(self):
        return any(isinstance(o, layers.ZeroPadding2D) for o in self.operations)

    @property
    def common(self):
        """Float, the factor that is applied behind the convolution."""
        return float(np.mean(self.scale))

    @property
    def bias(self):
        """Float array, the bias that is added to each output."""
        kernel = ops.convert_to_numpy(self.convolution.kernel)
        return np.einsum("hwcf,c->f", kernel.astype("float64"), self.offset)

    def carry(self, copy):
        """Gives a copy of the convolution weights for unscaled inputs."""
        old = self.convolution
        scale = (self.scale / self.common)[:, None].astype("float32")
        copy.kernel.assign(ops.convert_to_numpy(old.kernel) * scale)
        if copy.use_bias:
            bias = ops.convert_to_numpy(old.bias) if old.use_bias else 0.0
            if self.norm is None:
                bias = bias + self.bias
            copy.bias.assign(bias / self.common)


def find_input_scaling(graph):
    """Returns `(scaling, reason)` of a model, or the reason for no scaling.

    Both are `None` if the input is not scaled.
    """
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4:
        return None, None
    [tensor] = graph.inputs
    channels = tensor.shape[-1]
    scale, offset = np.ones(channels or 1), np.zeros(channels or 1)
    operations = []
    while True:
        following = graph.readers(tensor)
        if len(following) != 1 or graph.is_output(tensor):
            reason = "is not read by exactly one convolution"
            return None, reason if operations else None
        [call] = following
        once = graph.is_called_once(call)
        step = _affine(call, channels) if once else None
        if step is not None:
            scale, offset = step[0] * scale, step[0] * offset + step[1]
        elif not (once and isinstance(call.operation, layers.ZeroPadding2D)):
            break
        operations.append(call.operation)
        [tensor] = call.outputs
    padding = [isinstance(o, layers.ZeroPadding2D) for o in operations]
    if all(padding):
        return None, None
    if padding != sorted(padding):  # padding is not the last before
        return None, "scales an input that is already padded"
    if "float" not in graph.inputs[0].dtype:
        return None, f"scales {graph.inputs[0].dtype}, not floats"
    if not (once and _is_plain(call.operation) and np.mean(scale) != 0):
        return None, (
            f"scales the input of '{call.name}', which is not a "
            "plain convolution"
        )
    return InputScaling(
        operations, call.operation, _norm_after(call, graph), scale, offset
    ), None


def _is_plain(layer):
    """Whether a layer is a convolution alone, without its activation."""
    return (
        type(layer) is layers.Conv2D
        and is_rewritable(layer)
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and keras.activations.serialize(layer.activation) == "linear"
        and layer.activity_regularizer is None
    )


def _norm_after(call, graph):
    """Returns the normalization that alone reads a convolution, or `None`."""
    following = graph.readers(*call.outputs)
    if len(following) != 1 or graph.is_output(*call.outputs):
        return None
    norm = following[0].operation
    if (
        type(norm) is layers.BatchNormalization
        and graph.is_called_once(following[0])
        and norm.axis in (-1, 3)
    ):
        return norm
    return None


def _affine(call, channels):
    """Returns scale and offset of an operation on images, or `None`."""
    operation = call.operation
    if type(operation) is layers.Rescaling:
        found = operation.scale, operation.offset
    elif type(operation) is layers.Normalization:
        if operation.invert or operation.mean is None:
            return None
        mean = ops.convert_to_numpy(operation.mean)
        deviation = np.sqrt(ops.convert_to_numpy(operation.variance))
        deviation = np.maximum(deviation, keras.config.epsilon())
        found = 1 / deviation, -mean / deviation
    else:
        found = _of_arithmetic(call)
    if found is None:
        return None
    values = [np.asarray(v, "float64") for v in found]
    if any(
        v.size != 1 and (v.size, v.shape[-1]) != (channels, channels)
        for v in values
    ):
        return None
    return [np.broadcast_to(v.reshape(-1), channels) for v in values]


def _of_arithmetic(call):
    """Returns scale and offset of `x / 127.5` and the like, or `None`."""
    values = [*call.args, *call.kwargs.values()]
    if len(values) != 2 or not isinstance(values[0], keras.KerasTensor):
        return None
    try:
        value = np.asarray(values[1], "float64")
    except (TypeError, ValueError):
        return None
    kind = type(call.operation).__name__
    return {
        "Multiply": (value, 0.0),
        "TrueDivide": (1 / np.where(value == 0, np.nan, value), 0.0),
        "Divide": (1 / np.where(value == 0, np.nan, value), 0.0),
        "Add": (1.0, value),
        "Subtract": (1.0, -value),
    }.get(kind)
