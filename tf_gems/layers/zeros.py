"""Weights that are zero before anything is pruned; they are never kept."""

import numpy as np
from keras import ops


def nonzero(weight):
    """Returns which entries of a weight count as weights, a bool array.

    Density counts nonzero weights. In a model that is already sparse, because
    it was pruned and stripped before, zeros are pruned from the start: they
    are not alive, no ticket keeps them, and they do not train.

    All entries count in two cases: a weight that is zero as a whole, as
    initialized by zeros, and a multiple of the identity matrix.

    Example:

    >>> nonzero(keras.Variable([[1.0, 0.0]])).tolist()
    [[True, False]]
    """
    value = ops.convert_to_numpy(ops.cast(weight, "float32"))
    mask = value != 0  # NaN counts: it is refused when it is ranked
    if not mask.any() or mask.all() or _is_identity(value):
        return np.ones(value.shape, bool)
    return mask


def freeze_zeros(prunable):
    """Freezes the entries that are zero in weights that are not pruned yet."""
    for weight in prunable:
        mask = nonzero(weight.weight)
        if not mask.all() or weight.alive.count() < mask.size:
            weight.alive.assign(mask)


def freeze_zeros_above(weights, count, least):
    """Freezes weights that are zero, and returns how many stay alive.

    A tensor with fewer than `least` nonzero entries is left as it is, and so
    is one that is needed for the count.
    """
    alive = [weight.alive.count() for weight in weights]
    for index, weight in enumerate(weights):
        value = ops.convert_to_tensor(weight.weight)
        if int(ops.count_nonzero(value)) == weight.alive.size:
            continue
        mask = ops.convert_to_numpy(ops.not_equal(value, 0))
        kept = np.asarray(weight.alive) & mask
        number = int(np.count_nonzero(kept))
        if number >= least and sum(alive) - alive[index] + number >= count:
            weight.alive.assign(kept)
            alive[index] = number
    return sum(alive)


def is_untouched(prunable, mask):
    """Whether a mask of a mined weight removes only what is zero already."""
    return bool(mask.all() or np.array_equal(mask, nonzero(prunable.weight)))


def refuse_below_zeros(kept, size, target_sparsity, count=None):
    """Raises an error if more weights are zero than the target asks for.

    The target keeps `count` weights, by default what the sparsity leaves.
    """
    count = round((1.0 - target_sparsity) * size) if count is None else count
    if kept < count:
        raise ValueError(
            "`target_sparsity` counts all zeros among the prunable weights, "
            "including existing ones. Received: "
            f"target_sparsity={target_sparsity:g}, which keeps {count:,} "
            f"weights, for a model of {size:,} of which {kept:,} are alive; "
            "the others are already zero or frozen. Use a target of "
            f"{1 - kept / size:.4g} or more, or start from dense weights."
        )


def refuse_frozen_beyond(gems, target_sparsity, count=None):
    """Raises an error if a model has fewer weights alive than a target keeps.

    A pattern may keep a few less than its target, so pruning that has begun can
    continue.
    """
    begun = int(ops.convert_to_numpy(gems[0].target))
    if not begun or begun != count:
        alive = sum(gem.count_alive() for gem in gems)
        size = sum(gem.size for gem in gems)
        refuse_below_zeros(alive, size, target_sparsity, count)


def _is_identity(value):
    if value.ndim != 2 or min(value.shape) < 2:
        return False
    diagonal = np.diagonal(value)
    alike = bool(np.all(diagonal == diagonal[0]))
    return alike and np.count_nonzero(value) == diagonal.size
