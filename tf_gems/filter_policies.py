"""The named values of `filters`: which kernels a policy prunes.

`"all"` prunes what is pruned without filters. `"no_depthwise"` leaves out
kernels that read one channel at a time: those of depthwise and separable
convolutions, and of convolutions with a group for each channel. They have few
weights, and each output depends on few of them. TF Model Optimization excludes
them as well. `"pointwise"` prunes what TFLite runs faster for its
zeros, see `tf_gems.pointwise`.
"""

import dataclasses
from collections.abc import Callable

import keras

from tf_gems import _keras
from tf_gems import pointwise

_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)


def depthwise_kernels(layer):
    """Returns the depthwise kernels, each of which reads one channel.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.DepthwiseConv2D(3),
    ...     keras.layers.Conv2D(5, 1)])
    >>> [tuple(kernel.shape) for kernel in depthwise_kernels(model)]
    [(3, 3, 3, 1)]
    """
    found = []
    for part in _keras.flatten_layers(layer):
        kernel = getattr(part, "kernel", None)
        if hasattr(part, "depthwise_kernel"):
            found.append(part.depthwise_kernel)
        elif isinstance(part, _DEPTHWISE):
            found.append(kernel)
        elif getattr(part, "groups", 1) > 1 and hasattr(kernel, "shape"):
            if tuple(kernel.shape)[-2] == 1:
                found.append(kernel)
    return [kernel for kernel in found if kernel is not None]


def all_but_depthwise(layer):
    """Returns all weights but those of `depthwise_kernels`."""
    left_out = {id(kernel) for kernel in depthwise_kernels(layer)}
    return [v for v in layer.weights if id(v) not in left_out]


@dataclasses.dataclass(frozen=True)
class Policy:
    """A named value of `filters`."""

    weights: Callable
    reason: str
    nothing: str


POLICIES = {
    "all": Policy(
        lambda layer: layer.weights,
        "excluded by `filters`",
        "prunes all kernels. Received: {name}, which has none that trains. "
        "Set `trainable=True` on what is frozen.",
    ),
    "no_depthwise": Policy(
        all_but_depthwise,
        "depthwise",
        "prunes all but depthwise kernels. Received: {name}, which has no "
        'other that trains. Use `filters="all"`.',
    ),
    pointwise.POLICY: Policy(
        pointwise.pointwise_kernels,
        "no faster for its zeros",
        "prunes 1x1 convolutions of stride 1. Received: {name}, which has "
        "none that trains. Zeros of dense layers save time in blocks: prune "
        'those by `pattern="4x1"`.',
    ),
}


def get(filters):
    """Returns the `Policy` that `filters` names, or `None`."""
    if not isinstance(filters, str):
        return None
    return POLICIES.get(filters)


def choices(layer, kernels):
    """Returns what each policy prunes: a dict from names to lists."""
    found = {}
    for name, policy in POLICIES.items():
        allowed = {id(v) for v in policy.weights(layer)}
        found[name] = [v for v in kernels if id(v) in allowed]
    return found
