"""The policy `filters="pointwise"`: prune only what runs faster sparse.

XNNPACK, the engine of TFLite on CPUs, has a sparse kernel for 1x1 convolutions
of stride 1 and no other. It is used if more than two thirds of the weights of
all of these together are zero.
"""

import math

import keras

from tf_gems import _keras

POLICY = "pointwise"
LEAST_SPARSITY = 2 / 3


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
    gems = [g for g in gems if g.filters in (POLICY, "xnnpack")]
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
        f'`filters="{POLICY}"` prunes for speed, and XNNPACK makes use of '
        "zeros only if they are more than two thirds of the weights of all "
        f"1x1 convolutions. Received: target_sparsity={target_sparsity:g} of "
        f"{part:.0%} of these weights{of_all}. Use 0.7 or more of all (0.9 "
        "pays well), or another `filters` to prune for size."
    )
