"""Patterns of entries that are kept together: N of M, blocks, channels.

A pattern selects the largest of all scores, like `masks.keep_largest`. The
axes are those of Keras kernels: `(..., inputs, outputs)`. `get` accepts a
name, a string such as `"2:4"` or `"4x1"`, a config or an instance.
"""

import math
import re

import keras
import numpy as np

from tf_gems import registry
from tf_gems.selection.masks import keep_largest
from tf_gems.validation import check_choice
from tf_gems.validation import check_integer
from tf_gems.validation import check_positive_integer


class Pattern(registry.Configurable):
    """Base class: a pure function of scores, with a config.

    Attributes:
        max_density: Float, the largest density that the pattern allows.
    """

    max_density = 1.0

    def unit(self, shape):
        """Returns the number of entries that are kept or pruned together.

        Args:
            shape: Tuple of integers, of the weight.
        """
        return 1

    def keep_largest(self, scores, count, among=None):
        """Returns masks of the largest scores of a network, in this pattern.

        Args:
            scores: List of float arrays, which are ranked together.
            count: Integer, number of entries to keep in all arrays together.
            among: Optional list of bool arrays of the same shapes; entries
                that are `False` are never kept.

        Returns:
            List of bool arrays, shaped like `scores`.
        """
        raise NotImplementedError

    def matches(self, mask):
        """Whether a mask (a bool array) has this pattern."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="tf_gems")
class Unstructured(Pattern):
    """Keeps single entries; counts are exact."""

    def keep_largest(self, scores, count, among=None):
        return keep_largest(scores, count, among)

    def matches(self, mask):
        return True


@keras.saving.register_keras_serializable(package="tf_gems")
class NOfM(Pattern):
    """Keeps at most `n` of each `m` neighbors along an axis; counts are exact.

    At densities above `n / m` the pattern is not possible. Then the `n`
    largest entries of each group and the largest of the other entries are
    kept, so that a gradual method reaches the pattern as soon as its density
    allows it.

    Args:
        n: Positive integer.
        m: Integer, at least `n`. The last group can be smaller.
        axis: Integer, an axis of the kernel. Defaults to `-2`, the inputs.

    Example:

    >>> scores = [np.array([[4.], [3.], [2.], [1.]])]
    >>> [mask] = NOfM(1, 2).keep_largest(scores, 2)
    >>> mask[:, 0].tolist()
    [True, False, True, False]

    Reference: Zhou et al., 2021, "Learning N:M Fine-grained Structured Sparse
    Neural Networks From Scratch".
    """

    def __init__(self, n, m, axis=-2):
        self.n = check_positive_integer(n, "n")
        self.m = check_positive_integer(m, "m")
        if self.n > self.m:
            raise ValueError(
                "N:M keeps `n` of each `m` neighbors, with n <= m. "
                f"Received: n={n!r}, m={m!r}. Did you mean {m}:{n}?"
            )
        self.axis = check_integer(axis, "axis", -32, 31)
        self.max_density = self.n / self.m

    def keep_largest(self, scores, count, among=None):
        among = among or [np.ones(np.shape(s), bool) for s in scores]
        first = [
            self._largest_of_groups(s, a)
            for s, a in zip(scores, among, strict=True)
        ]
        rest = count - sum(np.count_nonzero(mask) for mask in first)
        if rest <= 0:
            return keep_largest(scores, count, first)
        others = [a & ~b for a, b in zip(among, first, strict=True)]
        others = keep_largest(scores, rest, others)
        return [a | b for a, b in zip(first, others, strict=True)]

    def _largest_of_groups(self, scores, among):
        """Marks the `n` largest competing entries of each group."""
        groups = self._groups(np.asarray(scores), 0)
        last = ~self._groups(among, False)  # also below scores of -inf
        ranks = np.lexsort((-groups, last), axis=-1).argsort(axis=-1)
        flat = (ranks < self.n).reshape(*groups.shape[:-2], -1)
        length = np.shape(scores)[self.axis]
        return np.moveaxis(flat[..., :length], -1, self.axis) & among

    def _groups(self, values, fill):
        """Moves the axis to the end and cuts it into groups of `m`."""
        if not -values.ndim <= self.axis < values.ndim:
            raise ValueError(
                "N:M requires an axis that every prunable weight has. "
                f"Received: axis={self.axis} for a weight of shape "
                f"{values.shape}. Exclude the weight with `filters`."
            )
        values = np.moveaxis(values, self.axis, -1)
        padding = [(0, 0)] * values.ndim
        padding[-1] = (0, -values.shape[-1] % self.m)
        values = np.pad(values, padding, constant_values=fill)
        return values.reshape(*values.shape[:-1], -1, self.m)

    def matches(self, mask):
        return bool((self._groups(mask, False).sum(-1) <= self.n).all())


class _Blocks(Pattern):
    """Base class: keeps or prunes whole blocks, by their mean score."""

    def unit(self, shape):
        return math.prod(self._edges(shape))

    def keep_largest(self, scores, count, among=None):
        areas = [self._sum(np.ones(np.shape(s))) for s in scores]
        means = [
            self._sum(np.asarray(s, "float64")) / area
            for s, area in zip(scores, areas, strict=True)
        ]
        flat = np.concatenate([mean.ravel() for mean in means])
        area = np.concatenate([a.ravel() for a in areas])
        if np.isnan(flat).any():
            keep_largest(scores, count)  # which refuses them
        whole = np.ones(flat.shape, bool)
        if among is not None:
            alive = [self._sum(np.asarray(a, float)) for a in among]
            whole = np.concatenate([a.ravel() for a in alive]) == area
        order = np.lexsort((-flat, ~whole))
        total = np.cumsum(area[order])
        kept = np.zeros(flat.shape, bool)
        kept[order] = (total <= count) & whole[order]
        parts = np.split(kept, np.cumsum([m.size for m in means])[:-1])
        return [
            self._spread(part.reshape(mean.shape), np.shape(score))
            for part, mean, score in zip(parts, means, scores, strict=True)
        ]

    def matches(self, mask):
        part = self._sum(mask.astype(float)) / self._sum(np.ones(mask.shape))
        return bool(np.isin(part, (0.0, 1.0)).all())

    def _edges(self, shape):
        """Returns the edges of a block in a weight, one for every axis."""
        raise NotImplementedError

    def _sum(self, values):
        """Adds up each block."""
        for axis, edge in enumerate(self._edges(values.shape)):
            starts = np.arange(0, values.shape[axis], edge)
            values = np.add.reduceat(values, starts, axis)
        return values

    def _spread(self, blocks, shape):
        """Gives each entry the value of its block."""
        for axis, edge in enumerate(self._edges(shape)):
            blocks = np.repeat(blocks, edge, axis)
        return blocks[tuple(slice(size) for size in shape)]


@keras.saving.register_keras_serializable(package="tf_gems")
class Block(_Blocks):
    """Keeps or prunes whole blocks, by their mean score.

    The number of kept entries is at most the requested one, and smaller by
    less than one block.

    Args:
        *sizes: Positive integers, the edges of a block along the last axes of
            a kernel, `(..., inputs, outputs)`: `Block(4, 1)` keeps 4 inputs
            of an output, `Block(3, 3, 1, 1)` a filter of 3 by 3. The last
            blocks along an axis can be smaller.

    Example:

    >>> [mask] = Block(1, 2).keep_largest([np.array([[1., 2., 3., 4.]])], 2)
    >>> mask
    array([[False, False,  True,  True]])

    Reference: Gray et al., 2017, "GPU Kernels for Block-Sparse Weights".
    """

    def __init__(self, *sizes):
        if not sizes:
            raise ValueError(
                "A block must have at least one size. Received: none. Use "
                "`Block(4, 1)`."
            )
        self.sizes = tuple(check_positive_integer(s, "sizes") for s in sizes)

    def _edges(self, shape):
        """Edges of a block in a weight of this shape, for every axis."""
        sizes = self.sizes[max(len(self.sizes) - len(shape), 0) :]
        return (*(1,) * (len(shape) - len(sizes)), *sizes)

    def get_config(self):
        return {"sizes": list(self.sizes)}

    @classmethod
    def from_config(cls, config):
        return cls(*config["sizes"])


@keras.saving.register_keras_serializable(package="tf_gems")
class Channel(_Blocks):
    """Keeps or prunes whole output channels of a kernel, by their mean score.

    A channel contains the weights of one output of a layer: a column of a
    dense kernel, or a filter of a convolution. In a depthwise kernel, whose
    last axis has the size one, it is the filter of one input channel.
    `tf_gems.compact` removes pruned channels, and the corresponding inputs of
    the following layers.

    The number of kept entries is at most the requested one, and smaller by
    less than the largest channel. The outputs of the last layer are channels
    too: exclude that layer with `filters`.

    Example:

    >>> scores = [np.array([[1., 4., 2.], [1., 0., 2.]])]
    >>> [mask] = Channel().keep_largest(scores, 4)
    >>> mask.tolist()
    [[False, True, True], [False, True, True]]

    Reference: Li et al., 2017, "Pruning Filters for Efficient ConvNets".
    """

    def _edges(self, shape):
        depthwise = len(shape) > 2 and shape[-1] == 1
        axis = len(shape) - (2 if depthwise else 1)
        return tuple(1 if a == axis else n for a, n in enumerate(shape))


PATTERNS = {
    "unstructured": Unstructured,
    "n_of_m": NOfM,
    "block": Block,
    "channel": Channel,
}


def get(identifier, argument="pattern"):
    """Returns a pattern for a name, `"2:4"`, `"4x1"`, a config or an instance.

    Args:
        identifier: See above.
        argument: Name of the user's argument, for messages.

    Raises:
        ValueError: If it is none of these.

    Example:

    >>> get("2:4").max_density, get("4x1").sizes
    (0.5, (4, 1))
    """
    if isinstance(identifier, str):
        if re.fullmatch(r"\d+:\d+", identifier):
            return NOfM(*map(int, identifier.split(":")))
        if re.fullmatch(r"\d+(x\d+)+", identifier):
            return Block(*map(int, identifier.split("x")))
        check_choice(identifier, argument, [*PATTERNS, "2:4", "4x1"])
    return registry.get(identifier, PATTERNS, argument, Pattern)


def refuse_too_dense(pattern, target_sparsity):
    """Raises an error if a pattern does not allow a sparsity."""
    if 1.0 - target_sparsity > pattern.max_density + 1e-9:
        raise ValueError(
            f"`pattern` {type(pattern).__name__} {pattern.get_config()} keeps "
            f"at most {pattern.max_density:.1%} of the weights. Received: "
            f"target_sparsity={target_sparsity:g}. Use "
            f"{1 - pattern.max_density:g} or more."
        )
