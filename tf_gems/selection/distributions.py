"""How the kept weights are distributed over the layers.

A distribution is called with the shapes of the prunable weights, in the order
of the network, and the total density. It returns the number of kept entries of
each weight, integers whose sum is exactly `round(density * size)`; or `None`
if all scores are ranked together. `keep` computes masks from scores. `get`
accepts a name, a config, an instance, or a dict for `PerPath`.
"""

import math
import re
import warnings

import keras
import numpy as np

from tf_gems import registry
from tf_gems.selection.masks import keep_largest
from tf_gems.selection.patterns import Unstructured
from tf_gems.validation import check_integer
from tf_gems.validation import check_regex
from tf_gems.validation import check_sparsity
from tf_gems.validation import is_number


class Distribution(registry.Configurable):
    """Base class: a pure function of shapes, density and paths."""

    def __call__(self, shapes, density, paths=None):
        """Returns the number of kept entries of each weight.

        Args:
            shapes: List of tuples of integers.
            density: Float in (0, 1], of all weights together.
            paths: List of strings, which `PerPath` needs.

        Returns:
            List of integers, or `None` to rank all scores together.
        """
        sizes = np.array([math.prod(shape) for shape in shapes], "float64")
        kept = self.shares(shapes, sizes, density * sizes.sum(), paths)
        return _largest_remainder(kept, round(density * sizes.sum()))

    def shares(self, shapes, sizes, total, paths):
        """Returns counts as floats: at most `sizes`, `total` in all."""
        raise NotImplementedError

    def keep(self, scores, density, paths=None, pattern=None, among=None):
        """Returns masks that keep the largest scores with this distribution.

        Args:
            scores: List of float arrays, one for each prunable weight.
            density: Float in (0, 1], of all weights together.
            paths: List of strings, which `PerPath` needs.
            pattern: `tf_gems.patterns.Pattern`. Defaults to `None`:
                unstructured.
            among: List of bool arrays. Entries that are `False` are never
                kept. Defaults to `None`: all entries are ranked.

        Returns:
            List of bool arrays.
        """
        pattern = pattern or Unstructured()
        counts = self([np.shape(s) for s in scores], density, paths)
        if among is not None:
            counts = within([np.count_nonzero(a) for a in among], counts)
        masks = []
        for index, (score, count) in enumerate(
            zip(scores, counts, strict=True)
        ):
            here = None if among is None else [among[index]]
            masks += pattern.keep_largest([score], count, here)
        return masks


@keras.saving.register_keras_serializable(package="tf_gems")
class Global(Distribution):
    """Ranks the scores of all weights together.

    Args:
        minimum: Integer, the number of entries of each weight that are always
            kept, so that no layer is empty. Defaults to `1`.

    Example:

    >>> masks = Global(0).keep([np.array([3., 2.]), np.array([1., 0.])], 0.5)
    >>> [mask.tolist() for mask in masks]
    [[True, True], [False, False]]
    """

    def __init__(self, minimum=1):
        self.minimum = check_integer(minimum, "minimum")

    def __call__(self, shapes, density, paths=None):
        return None

    def keep(self, scores, density, paths=None, pattern=None, among=None):
        pattern = pattern or Unstructured()
        count = round(density * sum(np.size(s) for s in scores))
        if not self.minimum or not count:
            return pattern.keep_largest(scores, count, among)
        if isinstance(pattern, Unstructured):
            # Ranks within a weight are those of the whole: where enough of
            # each are kept, the minimum changes nothing.
            masks = pattern.keep_largest(scores, count, among)
            if all(np.count_nonzero(m) >= self.minimum for m in masks):
                return masks
        among = among or [np.ones(np.shape(s), bool) for s in scores]
        first = []
        for score, alive in zip(scores, among, strict=True):
            least = max(self.minimum, pattern.unit(np.shape(score)))
            least = min(least, np.count_nonzero(alive))
            first += pattern.keep_largest([score], least, [alive])
        rest = count - sum(np.count_nonzero(mask) for mask in first)
        if rest < 0:
            raise ValueError(
                "The minimum of every weight must fit into the total. "
                f"Received: minimum={self.minimum} for {len(scores)} weights, "
                f"of which {count} entries can be kept. Lower the sparsity, "
                "or use `Global(minimum=0)`."
            )
        # The minimum ranks first, with all others: the pattern has to hold
        # for everything that is kept.
        pairs = zip(first, scores, strict=True)
        scores = [np.where(mask, np.inf, score) for mask, score in pairs]
        return pattern.keep_largest(scores, count, among)


class _Rescaled(Global):
    """Ranks all weights together, each rescaled by its own layer first.

    A subclass rescales the scores of one weight without changing their order,
    so that scores of layers of different scale can be compared.
    """

    def rescale(self, score):
        """Returns the scores of one weight, a vector, to be ranked with all.

        Args:
            score: Float64 vector of the entries that compete.
        """
        raise NotImplementedError

    def keep(self, scores, density, paths=None, pattern=None, among=None):
        among = among or [np.ones(np.shape(s), bool) for s in scores]
        rescaled = []
        for score, competes in zip(scores, among, strict=True):
            values = np.zeros(np.shape(score))
            flat = np.asarray(score, "float64")[competes]
            values[competes] = self.rescale(flat) if flat.size else flat
            rescaled.append(values)
        masks = super().keep(rescaled, density, paths, pattern, among)
        if not isinstance(pattern or Unstructured(), Unstructured):
            return masks
        # Ranks are compared in float32, in which neighbors may become equal:
        # within a weight its own scores decide.
        return [
            keep_largest([score], np.count_nonzero(mask), [competes])[0]
            for score, mask, competes in zip(scores, masks, among, strict=True)
        ]


@keras.saving.register_keras_serializable(package="tf_gems")
class Lamp(_Rescaled):
    """Ranks all weights by LAMP, their magnitude relative to their layer.

    With the entries of a weight in ascending order of magnitude,

        LAMP(u) = w[u]^2 / sum(w[v]^2 for v >= u)

    is the error of removing entry `u`, relative to the remaining entries of
    the layer. The order within a layer is that of the magnitude, the scale of
    a layer has no effect, and the largest entry of every layer has the score
    1, so that no layer is emptied. Equal magnitudes are ordered by position:
    the first counts as the largest. Negative scores, which other methods than
    magnitude can have, rank below all others.

    Args:
        minimum: See `Global`. Defaults to `1`.

    Example:

    >>> masks = Lamp().keep([np.array([3., 2.]), np.array([.1, .09])], 0.75)
    >>> [mask.tolist() for mask in masks]
    [[True, False], [True, True]]

    Reference: Lee et al., 2021, "Layer-adaptive Sparsity for the
    Magnitude-based Pruning", equation 2.
    """

    def rescale(self, score):
        order = np.argsort(-score, kind="stable")
        ranked = score[order]
        # Divided by the largest, squares neither overflow nor underflow. The
        # square root of LAMP ranks as LAMP does.
        ranked = ranked / max(np.abs(ranked).max(), np.finfo("float64").tiny)
        positive = np.maximum(ranked, 0)
        total = np.sqrt(np.cumsum(positive**2))
        # A layer of zeros has no order but that of positions.
        total[total == 0] = 1
        values = np.empty_like(score)
        values[order] = np.where(ranked < 0, ranked, positive / total)
        return values


@keras.saving.register_keras_serializable(package="tf_gems")
class LayerNormalized(_Rescaled):
    """Ranks all scores relative to the root mean square of their layer.

    A score `s` is ranked by `s / sqrt(mean(s^2))`, with the mean over its
    weight.

    Args:
        minimum: See `Global`. Defaults to `1`.

    Example:

    >>> scores = [np.array([3., 2.]), np.array([.1, .09])]
    >>> masks = LayerNormalized().keep(scores, 0.5)
    >>> [mask.tolist() for mask in masks]
    [[True, False], [True, False]]
    """

    def rescale(self, score):
        score = score / max(np.abs(score).max(), np.finfo("float64").tiny)
        return score / max(np.sqrt(np.mean(score**2)), 1e-30)


@keras.saving.register_keras_serializable(package="tf_gems")
class Uniform(Distribution):
    """Gives every weight the same density.

    Example:

    >>> Uniform()([(10, 10), (10, 30)], density=0.1)
    [10, 30]
    """

    def shares(self, shapes, sizes, total, paths):
        return _proportional(np.ones_like(sizes), sizes, total)


@keras.saving.register_keras_serializable(package="tf_gems")
class ErdosRenyiKernel(Distribution):
    """Gives small weights a higher density (Erdos-Renyi-kernel, ERK).

    The density of a weight is proportional to the sum of its dimensions over
    their product, `(h + w + n_in + n_out) / (h * w * n_in * n_out)` for a
    convolution. A weight whose density would exceed 1 is kept entirely, and
    the rest is divided among the other weights in the same proportions.

    Example:

    >>> ErdosRenyiKernel()([(10, 10), (10, 30)], density=0.1)
    [13, 27]

    Reference: Evci et al., 2020, "Rigging the Lottery", section 3.
    """

    def shares(self, shapes, sizes, total, paths):
        sums = np.array([sum(shape) for shape in shapes], "float64")
        return _proportional(sums / np.maximum(sizes, 1), sizes, total)


@keras.saving.register_keras_serializable(package="tf_gems")
class SmartRatio(Distribution):
    """Gives deeper layers a lower density.

    The last of `L` weights has the density `last`. Weight `l` before it has
    `gamma * ((L - l + 1)^2 + (L - l + 1))`, with the `gamma` that meets the
    total density. If a density exceeds 1, the rest is passed on to the
    following weights.

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
                "`last` must be the density of the last weight, in [0, 1]. "
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
                "Smart ratio must keep entries of the weights before the "
                f"last one. Received: last={self.last:g}, which alone keeps "
                f"{kept[-1]:.0f} of the {total:.0f} allowed. Lower `last`."
            )
        kept[:-1] *= rest / kept[:-1].sum() if len(sizes) > 1 else 1
        excess = 0.0
        for index, size in enumerate(sizes):
            wanted = kept[index] + excess
            kept[index] = min(wanted, size)
            excess = wanted - kept[index]
        return kept


@keras.saving.register_keras_serializable(package="tf_gems")
class PerPath(Distribution):
    """Gives named weights the given sparsities.

    All other weights have the same density, which follows from the total.

    Args:
        sparsities: Dict from regular expressions, searched for in the paths of
            the weights, to floats in [0, 1). The first match is used.

    Example:

    >>> PerPath({"stem": 0.5})([(10, 1), (10, 9)], 0.1, ["stem", "body"])
    [5, 5]
    """

    def __init__(self, sparsities):
        if not isinstance(sparsities, dict) or not sparsities:
            raise ValueError(
                "`sparsities` must be a dict from regular expressions to "
                f"floats in [0, 1). Received: sparsities={sparsities!r:.300}. "
                "Pass a dict such as {'dense': 0.98}."
            )
        for pattern in sparsities:
            check_regex(pattern, "sparsities")
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
                    "A regular expression must match a prunable weight. "
                    f"Received: {pattern!r}. The weights are: "
                    f"{', '.join(paths)}."
                )
        named = np.array([p is not None for p in patterns])
        sparsities = [self.sparsities.get(p, 1.0) for p in patterns]
        kept = (1.0 - np.array(sparsities)) * sizes
        rest = total - kept.sum()
        room = sizes[~named].sum()
        if not -0.5 < rest < room + 0.5:
            raise ValueError(
                "The given sparsities must leave the other weights a density "
                "in [0, 1] that meets the total. Received: "
                f"sparsities={self.sparsities}, which keep {kept.sum():,.0f} "
                f"weights of the {total:,.0f} allowed, with {room:,.0f} "
                "others. Name fewer weights, or change the target."
            )
        rest = min(max(rest, 0.0), room)
        others = _proportional(np.ones_like(sizes[~named]), sizes[~named], rest)
        kept[~named] = others
        return kept


DISTRIBUTIONS = {
    "global": Global,
    "uniform": Uniform,
    "erk": ErdosRenyiKernel,
    "lamp": Lamp,
    "layer_normalized": LayerNormalized,
    "smart_ratio": SmartRatio,
}


def get(identifier, argument="distribution"):
    """Returns a distribution for a name, a config, an instance or a dict.

    Args:
        identifier: See above; a dict from regular expressions to sparsities
            is taken for `PerPath`.
        argument: Name of the user's argument, for messages.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(identifier, dict) and "class_name" not in identifier:
        return PerPath(identifier)
    return registry.get(identifier, DISTRIBUTIONS, argument, Distribution)


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


def warn_at_minimum(distribution, kept, named=()):
    """Warns about weights that are at the minimum of a distribution.

    Args:
        distribution: `Distribution`.
        kept: Dict from the paths of weights to pairs: how many entries are
            kept, and how many there are.
        named: Set of paths that an earlier warning named.

    Returns:
        Set of the paths that this warning names.
    """
    least = getattr(distribution, "minimum", 0)
    paths = [
        path
        for path, (count, size) in kept.items()
        if count <= least < size and path not in named
    ]
    if paths:
        lines = [
            f"'{p}' ({kept[p][0]} of {kept[p][1]:,} weights)" for p in paths
        ]
        warnings.warn(
            f"The distribution keeps at least {least} of each weight, and "
            f"these weights are at that minimum: {', '.join(lines)}. They may "
            "block the flow through their layers. Lower `target_sparsity`, "
            "or choose another `distribution`, such as 'erk'.",
            stacklevel=3,
        )
    return set(paths)
