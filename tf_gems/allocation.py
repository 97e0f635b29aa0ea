"""How a budget of weights is spread over the layers of a network.

An allocation is called with the shapes of the prunable weights, in the
network's order, and the density of the whole. It returns how many entries of
each are kept, integers whose sum is exactly `round(density * size)`; or `None`
if the scores of the whole network shall decide. `keep` goes from scores to
masks. `get` accepts a name, a config, an instance, or a dict for `PerPath`.
"""

import math
import re

import keras
import numpy as np

from tf_gems import registry
from tf_gems.shapes import Unstructured
from tf_gems.validation import check_sparsity
from tf_gems.validation import is_number


class Allocation:
    """Base class: a pure function of shapes, density and paths."""

    def __call__(self, shapes, density, paths=None):
        """Returns how many entries of each weight are kept.

        Args:
            shapes: List of tuples of integers.
            density: Float in (0, 1], of all weights together.
            paths: List of strings, which `PerPath` needs.

        Returns:
            List of integers; `None` for ranking all scores together.
        """
        sizes = np.array([math.prod(shape) for shape in shapes], "float64")
        kept = self.shares(shapes, sizes, density * sizes.sum(), paths)
        return _largest_remainder(kept, round(density * sizes.sum()))

    def shares(self, shapes, sizes, total, paths):
        """Returns counts as floats: at most `sizes`, `total` in all."""
        raise NotImplementedError

    def keep(self, scores, density, paths=None, shape=None, among=None):
        """Returns masks that keep the largest scores within this allocation.

        Args:
            scores: List of float arrays, one for each prunable weight.
            density: Float in (0, 1], of all weights together.
            paths: List of strings, which `PerPath` needs.
            shape: `tf_gems.shapes.Shape`. Defaults to `None`: unstructured.
            among: List of bool arrays; entries that are `False` are never
                kept. Defaults to `None`: all compete.

        Returns:
            List of bool arrays.
        """
        shape = shape or Unstructured()
        counts = self([np.shape(s) for s in scores], density, paths)
        if among is not None:
            counts = within([np.count_nonzero(a) for a in among], counts)
        masks = []
        for index, (score, count) in enumerate(
            zip(scores, counts, strict=True)
        ):
            here = None if among is None else [among[index]]
            masks += shape.keep_largest([score], count, here)
        return masks

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="tf_gems")
class Global(Allocation):
    """Ranks the scores of all weights together.

    Args:
        minimum: Integer, how many entries of each weight are kept whatever
            their rank, so that no layer is cut. Defaults to `1`.

    Example:

    >>> masks = Global(0).keep([np.array([3., 2.]), np.array([1., 0.])], 0.5)
    >>> [mask.tolist() for mask in masks]
    [[True, True], [False, False]]
    """

    def __init__(self, minimum=1):
        self.minimum = int(minimum)

    def __call__(self, shapes, density, paths=None):
        return None

    def keep(self, scores, density, paths=None, shape=None, among=None):
        shape = shape or Unstructured()
        count = round(density * sum(np.size(s) for s in scores))
        if not self.minimum or not count:
            return shape.keep_largest(scores, count, among)
        if isinstance(shape, Unstructured):
            # Ranks within a weight are those of the whole: where enough of
            # each are kept, the minimum changes nothing.
            masks = shape.keep_largest(scores, count, among)
            if all(np.count_nonzero(m) >= self.minimum for m in masks):
                return masks
        among = among or [np.ones(np.shape(s), bool) for s in scores]
        least = max(self.minimum, shape.unit)
        first = [
            mask
            for s, a in zip(scores, among, strict=True)
            for mask in shape.keep_largest(
                [s], min(least, np.count_nonzero(a)), [a]
            )
        ]
        rest = count - sum(np.count_nonzero(mask) for mask in first)
        if rest < 0:
            raise ValueError(
                "The minimum of every weight must fit into the whole. "
                f"Received: minimum={self.minimum} for {len(scores)} weights, "
                f"of which {count} entries may be kept. Lower the sparsity, "
                "or use `Global(minimum=0)`."
            )
        # Ranked first, not apart: the shape is one of all that is kept.
        pairs = zip(first, scores, strict=True)
        scores = [np.where(mask, np.inf, score) for mask, score in pairs]
        return shape.keep_largest(scores, count, among)

    def get_config(self):
        return {"minimum": self.minimum}


@keras.saving.register_keras_serializable(package="tf_gems")
class Uniform(Allocation):
    """Gives every weight the same density.

    Example:

    >>> Uniform()([(10, 10), (10, 30)], density=0.1)
    [10, 30]
    """

    def shares(self, shapes, sizes, total, paths):
        return _proportional(np.ones_like(sizes), sizes, total)


@keras.saving.register_keras_serializable(package="tf_gems")
class ErdosRenyiKernel(Allocation):
    """Gives small weights a higher density: ERK.

    The density of a weight is proportional to the sum of its dimensions over
    their product, `(h + w + n_in + n_out) / (h * w * n_in * n_out)` for a
    convolution. A weight that would exceed 1 is kept whole, and the others
    share what is left in the same proportions.

    Example:

    >>> ErdosRenyiKernel()([(10, 10), (10, 30)], density=0.1)
    [13, 27]

    Reference: Evci et al., 2020, "Rigging the Lottery", section 3.
    """

    def shares(self, shapes, sizes, total, paths):
        sums = np.array([sum(shape) for shape in shapes], "float64")
        return _proportional(sums / np.maximum(sizes, 1), sizes, total)


@keras.saving.register_keras_serializable(package="tf_gems")
class SmartRatio(Allocation):
    """Lets the density fall with depth.

    Of `L` weights the last has a density of its own, and weight `l` before it
    `gamma * ((L - l + 1)^2 + (L - l + 1))`, with the `gamma` that meets the
    total. What exceeds 1 is passed on to the weights that follow.

    Args:
        last: Float in [0, 1], the density of the last weight. Defaults to
            `0.3`.

    Example:

    >>> SmartRatio()([(10, 10), (10, 10), (10, 2)], density=0.2)
    [25, 13, 6]

    Reference: Su et al., 2020, "Sanity-Checking Pruning Methods: Random
    Tickets can Win the Jackpot", section 4.1.
    """

    def __init__(self, last=0.3):
        if not is_number(last) or not 0 <= last <= 1:
            raise ValueError(
                "`last` is the density of the last weight, in [0, 1]. "
                f"Received: last={last!r}. The authors use 0.3."
            )
        self.last = float(last)

    def shares(self, shapes, sizes, total, paths):
        depth = np.arange(len(sizes), 0, -1)
        kept = (depth**2 + depth) * sizes
        kept[-1] = self.last * sizes[-1] if len(sizes) > 1 else total
        rest = total - kept[-1]
        if rest < 0:
            raise ValueError(
                "Smart ratio must have something left for the weights before "
                f"the last. Received: last={self.last:g}, which alone keeps "
                f"{kept[-1]:.0f} of the {total:.0f} allowed. Lower `last`."
            )
        kept[:-1] *= rest / kept[:-1].sum() if len(sizes) > 1 else 1
        excess = 0.0
        for index, size in enumerate(sizes):
            wanted = kept[index] + excess
            kept[index] = min(wanted, size)
            excess = wanted - kept[index]
        return kept

    def get_config(self):
        return {"last": self.last}


@keras.saving.register_keras_serializable(package="tf_gems")
class PerPath(Allocation):
    """Gives the weights that you name the sparsities that you choose.

    All other weights share the rest of the budget at one density.

    Args:
        sparsities: Dict from regular expressions, searched for in the paths
            of the weights, to floats in [0, 1). The first that matches counts.

    Example:

    >>> PerPath({"stem": 0.5})([(10, 1), (10, 9)], 0.1, ["stem", "body"])
    [5, 5]
    """

    def __init__(self, sparsities):
        self.sparsities = {
            pattern: check_sparsity(value, f"sparsities[{pattern!r}]")
            for pattern, value in sparsities.items()
        }

    def shares(self, shapes, sizes, total, paths):
        patterns = [
            next((p for p in self.sparsities if re.search(p, path)), None)
            for path in paths
        ]
        for pattern in self.sparsities:
            if not any(re.search(pattern, path) for path in paths):
                raise ValueError(
                    "A pattern must match a prunable weight. Received: "
                    f"{pattern!r}. The weights are: {', '.join(paths)}."
                )
        named = np.array([p is not None for p in patterns])
        sparsities = [self.sparsities.get(p, 1.0) for p in patterns]
        kept = (1.0 - np.array(sparsities)) * sizes
        rest = total - kept.sum()
        room = sizes[~named].sum()
        if not -0.5 < rest < room + 0.5:
            raise ValueError(
                "The sparsities of named weights must leave the others a "
                "density in [0, 1] that meets the total. Received: "
                f"sparsities={self.sparsities}, which keep {kept.sum():,.0f} "
                f"weights of the {total:,.0f} allowed, with {room:,.0f} "
                "others. Name fewer weights, or change the target."
            )
        rest = min(max(rest, 0.0), room)
        others = _proportional(np.ones_like(sizes[~named]), sizes[~named], rest)
        kept[~named] = others
        return kept

    def get_config(self):
        return {"sparsities": self.sparsities}


ALLOCATIONS = {
    "global": Global,
    "uniform": Uniform,
    "erk": ErdosRenyiKernel,
    "smart_ratio": SmartRatio,
}


def get(identifier, argument="allocation"):
    """Returns an allocation for a name, a config, an instance or a dict.

    Args:
        identifier: See above; a dict from regular expressions to sparsities
            is taken for `PerPath`.
        argument: Name of the user's argument, for messages.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(identifier, dict):
        if "class_name" not in identifier:
            return PerPath(identifier)
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, Allocation):
        return identifier
    return registry.get(identifier, ALLOCATIONS, argument)


def _proportional(ratios, sizes, total):
    """Floats in proportion to `ratios * sizes`, none above its size."""
    whole = np.zeros(sizes.shape, bool)
    scale = 0.0
    while not whole.all():
        left = total - sizes[whole].sum()
        scale = left / np.maximum((ratios * sizes)[~whole].sum(), 1)
        exceeds = ~whole & (scale * ratios > 1)
        if not exceeds.any():
            break
        whole |= exceeds
    return np.where(whole, sizes, scale * ratios * sizes)


def _largest_remainder(kept, total):
    """Integers of sum `total` next to the floats; of equals the first."""
    counts = np.floor(kept)
    missing = total - int(counts.sum())
    counts[np.argsort(counts - kept, kind="stable")[:missing]] += 1
    return [int(count) for count in counts]


def within(limits, counts):
    """Integers in proportion to counts, of their sum, none above its limit.

    A weight's share can rise while the whole shrinks, but none comes back.
    """
    limits, kept = np.array(limits, "float64"), np.array(counts, "float64")
    if (kept <= limits).all():
        return counts
    total = min(kept.sum(), limits.sum())
    kept = _proportional(kept / np.maximum(limits, 1), limits, total)
    return _largest_remainder(kept, int(total))
