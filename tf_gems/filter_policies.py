"""The named values of `filters`: which kernels a policy prunes.

`"all"` prunes what is pruned without filters. `"no_depthwise"` leaves out
kernels that read one channel at a time: those of depthwise and separable
convolutions, and of convolutions with a group for each channel. They have few
weights, and each output depends on few of them. TF Model Optimization excludes
them as well. `"pointwise"` prunes what TFLite runs faster for its zeros:
XNNPACK, its engine on CPUs, has a sparse kernel for 1x1 convolutions of stride
1 and no other. It is used if more than two thirds of the weights of all of
these together are zero.
"""

import dataclasses
import math
from collections.abc import Callable

import keras

from tf_gems import _keras

POINTWISE = "pointwise"
LEAST_SPARSITY = 2 / 3
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


def pointwise_kernels(layer):
    """Returns the kernels that XNNPACK can compute sparsely.

    A 1x1 convolution of maps that are known to be of one pixel, such as the
    classifier of `keras.applications.MobileNet`, is none of them.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="wide"),
    ...     keras.layers.Conv2D(5, 1, name="pointwise")])
    >>> [tuple(kernel.shape) for kernel in pointwise_kernels(model)]
    [(1, 1, 4, 5)]
    """
    found = []
    for part in _keras.flatten_layers(layer):
        if isinstance(part, keras.layers.SeparableConv2D):
            found.append(part.pointwise_kernel)
        elif isinstance(part, keras.layers.Conv2D) and _is_pointwise(part):
            found.append(part.kernel)
    return found


def _is_pointwise(layer):
    plain = layer.groups == 1 and layer.dilation_rate == (1, 1)
    return (
        plain
        and layer.kernel_size == layer.strides == (1, 1)
        and _map_size(layer) != (1, 1)
    )


def _map_size(layer):
    """Returns the size of the maps that a layer reads, `None` if unknown."""
    try:
        shape = tuple(layer.input.shape)
    except (AttributeError, ValueError):  # never called, or several times
        return None
    last = layer.data_format == "channels_last"
    return shape[1:3] if last else shape[2:4]


def refuse_too_few_zeros(gems, target_sparsity):
    """Raises an error if XNNPACK would not use the zeros of a target.

    XNNPACK counts over all 1x1 convolutions, those that are not pruned too,
    because they do not train or are excluded.

    Raises:
        ValueError: If any of them has the policy `"pointwise"`, and no more
            than two thirds of the weights are to be zero.
    """
    gems = [gem for gem in gems if gem.filters == POINTWISE]
    if not gems:
        return
    pruned = {id(w.weight) for gem in gems for w in gem.prunable}
    kernels = {id(k): k for g in gems for k in pointwise_kernels(g.layer)}
    sizes = {key: math.prod(k.shape) for key, k in kernels.items()}
    part = sum(sizes[key] for key in sizes if key in pruned)
    part /= max(1, sum(sizes.values()))
    if target_sparsity * part > LEAST_SPARSITY:
        return
    of_all = "" if part == 1 else f", {target_sparsity * part:.1%} of all"
    raise ValueError(
        f'`filters="{POINTWISE}"` prunes for speed, and XNNPACK uses zeros '
        "only if more than two thirds of the weights of all 1x1 convolutions "
        f"are zero. Received: target_sparsity={target_sparsity:g} of "
        f"{part:.0%} of these weights{of_all}. Use 0.7 or more of all of them "
        "(0.9 is much faster), or other `filters` to prune for size."
    )


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
        "prunes all kernels. Received: {name}, which has no trainable kernel. "
        "Set `trainable=True` on the layers to prune.",
    ),
    "no_depthwise": Policy(
        all_but_depthwise,
        "depthwise",
        "prunes all kernels except depthwise ones. Received: {name}, which "
        'has no other trainable kernel. Use `filters="all"`.',
    ),
    POINTWISE: Policy(
        pointwise_kernels,
        "not faster with zeros",
        "prunes 1x1 convolutions with stride 1. Received: {name}, which has "
        "no trainable one. Zeros of dense layers save time in blocks: prune "
        'them with `pattern="4x1"`.',
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
