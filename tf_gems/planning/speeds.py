"""Measured speed-ups, and estimates for other networks.

The table `speeds.json` is written by `benchmarks/speed_table.py`, which names
where its figures come from.
"""

import dataclasses
import functools
import json
import math
from pathlib import Path

MEASURED = "measured on this network"
BETWEEN_SPARSITIES = "interpolated between sparsities of this network"
BETWEEN_NETWORKS = "interpolated between other networks"
EXTRAPOLATED = (
    "extrapolated, because the measured networks differ from this one"
)
_SAME = 1e-5
_NEAR = 0.0051


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The estimated speed-up of a network with zeros.

    Args:
        speedup: Float, time of the dense file over that of the sparse one.
        low: Float, the lower end of the likely range.
        high: Float, the upper end of the likely range.
        certainty: String, how the estimate was obtained.
        networks: List of the names of the measured networks.
    """

    speedup: float
    low: float
    high: float
    certainty: str
    networks: list


class Speeds:
    """Measured speed-ups of one target and one pattern of zeros.

    Each network is a point in a space of features (see
    `tf_gems.planning.converted`), with speed-ups at some sparsities. Between
    sparsities, logarithms are interpolated linearly; between networks, with
    weights by the inverse square of their distance. The error is estimated by
    leaving each network out and estimating it from the others.

    Args:
        networks: List of dicts: `name`, `features`, and `points`: lists of
            sparsity, speed-up and its quartiles, in order of sparsity.
    """

    def __init__(self, networks):
        self.networks = networks
        lows, highs = zip(
            *((n["points"][0][0], n["points"][-1][0]) for n in networks),
            strict=True,
        )
        self.lowest, self.highest = min(lows), max(highs)

    @functools.cached_property
    def error(self):
        """The largest error, as a fraction, of a network that is left out."""
        if len(self.networks) < 2:
            return 1.0
        errors = []
        for index, network in enumerate(self.networks):
            others = self.networks[:index] + self.networks[index + 1 :]
            for sparsity, speedup, *_ in network["points"]:
                found = _between(others, network["features"], sparsity)
                errors.append(abs(math.log(found / speedup)))
        return math.exp(max(errors)) - 1

    def at(self, features, sparsity):
        """Returns the `Estimate` for a network."""
        for network in self.networks:
            if _distance(network["features"], features) < _SAME:
                points = network["points"]
                if not points[0][0] <= sparsity <= points[-1][0]:
                    continue
                near = any(abs(p[0] - sparsity) < _NEAR for p in points)
                return Estimate(
                    *(_on_curve(points, sparsity, k) for k in (1, 2, 3)),
                    MEASURED if near else BETWEEN_SPARSITIES,
                    [network["name"]],
                )
        inside = all(
            min(axis) - _SAME <= value <= max(axis) + _SAME
            for value, *axis in zip(
                features, *(n["features"] for n in self.networks), strict=True
            )
        )
        speedup = _between(self.networks, features, sparsity)
        factor = 1 + self.error * (1 if inside else 2)
        return Estimate(
            speedup,
            speedup / factor,
            speedup * factor,
            BETWEEN_NETWORKS if inside else EXTRAPOLATED,
            [network["name"] for network in self.networks],
        )


def load(target):
    """Returns the measured speed-ups of a target.

    Returns:
        Dict from a pattern, as `tf_gems.patterns.get` takes it, to `Speeds`.
    """
    tables = table()["targets"][target]
    return {pattern: Speeds(networks) for pattern, networks in tables.items()}


@functools.cache
def table():
    """Returns the table with where it comes from, as plain values."""
    file = Path(__file__).with_name("speeds.json")
    return json.loads(file.read_text("utf-8"))


def _between(networks, features, sparsity):
    """Returns the weighted mean of networks, in logarithms."""
    total, weights = 0.0, 0.0
    for network in networks:
        distance = max(_distance(network["features"], features), _SAME)
        weight = distance**-2
        value = _on_curve(network["points"], sparsity, 1)
        total += weight * math.log(value)
        weights += weight
    return math.exp(total / weights)


def _on_curve(points, sparsity, column):
    """Returns the measurement at a sparsity, interpolated."""
    if sparsity <= points[0][0]:
        return points[0][column]
    for before, after in zip(points[:-1], points[1:], strict=True):
        if sparsity <= after[0]:
            part = (sparsity - before[0]) / (after[0] - before[0])
            low, high = math.log(before[column]), math.log(after[column])
            return math.exp(low + part * (high - low))
    return points[-1][column]


def _distance(one, other):
    return math.dist(one, other)
