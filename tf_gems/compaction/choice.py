"""Which rule an operation follows."""

import keras
import numpy as np
from keras import layers

from tf_gems.compaction import rules
from tf_gems.compaction.channels import width
from tf_gems.compaction.mixing import SEPARABLE
from tf_gems.compaction.mixing import Mixing
from tf_gems.compaction.mixing import PinnedOutputs
from tf_gems.compaction.rules import TRANSPOSED
from tf_gems.compaction.rules import Rule

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
DEPTHWISE = {layers.DepthwiseConv1D, layers.DepthwiseConv2D}
# A mask may be passed to them as a second tensor.
ONE_INPUT = {*SAME_CONSTANTS, layers.BatchNormalization}


def rule_for(call, calls_of_operation):
    """Returns the `Rule` of a `Call` to an operation called so often."""
    operation, kind = call.operation, type(call.operation)
    if len(call.outputs) != 1 or not all(map(width, _tensors(call))):
        return Rule(call, "its channels are unknown")
    if getattr(operation, "data_format", None) == "channels_first":
        return Rule(call, "its channels are not on the last axis")
    if getattr(operation, "quantization_mode", None):
        return Rule(call, "it is quantized")
    if getattr(operation, "lora_enabled", False):
        return Rule(call, "it has LoRA weights")
    if call.kwargs.get("training"):
        return Rule(call, "it is called with training=True")
    has_weights = isinstance(operation, keras.Layer) and operation.weights
    if has_weights and calls_of_operation > 1:
        return Rule(call, f"it is called {calls_of_operation} times")
    if len(call.inputs) != 1 and kind in ONE_INPUT:
        return Rule(call, f"it has {len(call.inputs)} inputs")
    if kind in CONVOLUTIONS and operation.groups > 1:
        return Rule(call, "it is a grouped convolution")
    if kind in {layers.Dense, *CONVOLUTIONS, *TRANSPOSED, *SEPARABLE}:
        if not _is_elementwise(operation.activation):
            # What leaves it stays; what enters it may still be removed.
            return PinnedOutputs(call)
        return Mixing(call)
    if kind in DEPTHWISE and _is_elementwise(operation.activation):
        return rules.Depthwise(call)
    rule = _tied_rule(call)
    if rule is None:
        return Rule(
            call, f"`{kind.__name__}` is not known to keep channels separate"
        )
    return rule


def _tied_rule(call):
    operation, kind = call.operation, type(call.operation)
    tensors, (output,) = call.inputs, call.outputs
    ranks = {len(tensor.shape) for tensor in _tensors(call)}
    alike = {width(tensor) for tensor in _tensors(call)}
    if kind in ELEMENTWISE or _is_op(operation, ELEMENTWISE_OPS):
        is_same = len(alike) == len(ranks) == 1 and _has_only_scalars(call)
        return rules.Elementwise(call) if is_same else None
    if kind is layers.Activation and _is_elementwise(operation.activation):
        return rules.Elementwise(call)
    if kind is layers.Rescaling:
        scalar = np.ndim(operation.scale) == np.ndim(operation.offset) == 0
        return rules.Elementwise(call) if scalar else None
    if kind in SAME_CONSTANTS:
        return rules.Tied(call)
    if _is_op(operation, {"Pad"}):
        every = len(operation.pad_width) == len(output.shape)
        zeros = every and _pads_zeros(call)
        return rules.PaddedChannels(call) if zeros else None
    if kind in PADDING:
        return rules.Padding(call)
    if kind is layers.BatchNormalization:
        last = operation.axis in (-1, len(tensors[0].shape) - 1)
        return rules.Scaled(call) if last else None
    if kind is layers.PReLU:
        alone = operation.alpha.shape[-1] == width(output)
        return rules.Sloped(call) if alone else None
    if kind is layers.Concatenate or _is_op(operation, {"Concatenate"}):
        last = operation.axis in (-1, len(output.shape) - 1)
        return rules.Concatenated(call) if last else None
    if kind in (layers.Flatten, layers.Reshape):
        (tensor,) = tensors
        if width(tensor) == width(output):
            is_reshape = kind is layers.Reshape
            return (rules.Reshaped if is_reshape else rules.Tied)(call)
        if len(output.shape) == 2 and None not in tensor.shape[1:]:
            return rules.Flattened(call)
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


def _tensors(call):
    return [*call.inputs, *call.outputs]
