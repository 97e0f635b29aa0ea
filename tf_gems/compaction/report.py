"""The report on a compacted model, layer by layer."""

import dataclasses
import math

import numpy as np

from tf_gems.compaction.channels import width
from tf_gems.tables import DataReport
from tf_gems.tables import Table


@dataclasses.dataclass(frozen=True)
class CompactionReport(DataReport):
    """The channels that `tf_gems.compact` removed, layer by layer.

    Attributes:
        rows: List of dicts, one for each layer with weights: `layer`,
            `channels`, `parameters` and `multiply_adds`, each a pair of
            integers (before, after). Multiply-adds are for one input. Unknown
            sizes of feature maps count as one.
        kept: Dict from the name of an operation that was left unchanged to
            the reason.
        shared: Names of layers that the compact model shares with the
            original, because they hold state that is not in their config.
        difference: Float, the largest difference of the outputs, as a
            fraction of the largest output.
    """

    rows: list
    kept: dict
    shared: list
    difference: float
    _computed = ("parameters", "multiply_adds")

    @property
    def parameters(self):
        """Parameters of all layers, before and after."""
        return self._total("parameters")

    @property
    def multiply_adds(self):
        """Multiply-adds for one input, before and after."""
        return self._total("multiply_adds")

    def _total(self, column):
        pairs = [row[column] for row in self.rows]
        return tuple(sum(pair[side] for pair in pairs) for side in (0, 1))

    def _parts(self):
        rows = [
            [
                row["layer"],
                *row["channels"],
                *(f"{n:,}" for n in row["parameters"]),
                *(f"{n:,}" for n in row["multiply_adds"]),
            ]
            for row in self.rows
        ]
        totals = (*self.parameters, *self.multiply_adds)
        rows.append(["total", "", "", *(f"{n:,}" for n in totals)])
        columns = ["layer", ">channels", ">left", ">parameters", ">left"]
        lines = [
            Table([*columns, ">multiply-adds", ">left"], rows),
            f"The outputs differ by {self.difference:.1e} of the largest "
            "output.",
        ]
        for name, reason in self.kept.items():
            lines.append(f"'{name}' is left unchanged: {reason}.")
        if self.shared:
            lines.append(
                "Shared with the original model: " + ", ".join(self.shared)
            )
        return lines


def rows_of(before, after):
    """Returns the rows of a report, given lists of `Call` in the same order."""
    rows = []
    for old, new in zip(before, after, strict=True):
        if not getattr(old.operation, "weights", None):
            continue
        pairs = [(_parameters(c), _multiply_adds(c)) for c in (old, new)]
        parameters, multiply_adds = zip(*pairs, strict=True)
        rows.append(
            {
                "layer": old.name,
                "channels": (width(old.outputs[0]), width(new.outputs[0])),
                "parameters": parameters,
                "multiply_adds": multiply_adds,
            }
        )
    return rows


def _parameters(call):
    return sum(math.prod(w.shape) for w in call.operation.weights)


def _multiply_adds(call):
    """Returns the multiply-adds of one input, by places and kernels."""
    places = math.prod(
        size or 1 for size in call.outputs[0].shape[1:-1] if size
    )
    kernels = [w for w in call.operation.weights if len(w.shape) > 1]
    return int(
        places * np.sum([math.prod(w.shape) for w in kernels], initial=0)
    )
