"""The properties of a network that a plan needs, from its converted file."""

import dataclasses
import functools
import math

import numpy as np

from tf_gems.export import flatbuffer
from tf_gems.export import weight_rows
from tf_gems.export import xnnpack
from tf_gems.export.readiness_report import dense_file
from tf_gems.export.sparsify import BLOCK
from tf_gems.export.sparsify import MOST_BLOCKS
from tf_gems.export.sparsify import OVERHEAD_BYTES
from tf_gems.layers.zeros import nonzero
from tf_gems.pruning_report import PruningReport
from tf_gems.pruning_report import unique_paths

# A sparse tensor's description and its `DENSIFY` operator, as measured.
_DESCRIPTION_BYTES = 300


@dataclasses.dataclass(frozen=True)
class Weight:
    """A weight of a TFLite file.

    Args:
        shape: Tuple of integers; the last axis is the one stored sparsely.
        reader: String, the operator that reads it.
        uses: Integer, how often each value is multiplied for one example; in a
            loop, for one of its steps.
        eligible: Whether XNNPACK can compute it sparsely.
        pruned: Whether it is stored from a weight that is prunable.
    """

    shape: tuple
    reader: str
    uses: int
    eligible: bool
    pruned: bool

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def work(self):
        """Multiplications for one example."""
        return self.size * self.uses

    def bytes(self, sparsity, in_blocks=False, optimize="size"):
        """Returns about how many bytes it takes in a float32 file.

        `in_blocks`: four neighbors are zero together.
        """
        rows, columns = self.size // self.shape[-1], self.shape[-1]
        kept = (1 - sparsity) * self.size
        share = 1 - sparsity if in_blocks else 1 - sparsity**BLOCK
        entries, length, columns_of_entry = kept, kept, columns
        if (
            optimize == "latency"
            and self.reader == "FULLY_CONNECTED"
            and columns % BLOCK == 0
            and share <= MOST_BLOCKS
        ):
            entries = share * self.size / BLOCK
            length, columns_of_entry = entries * BLOCK, columns // BLOCK
        stored = 4 * length + entries * _width(columns_of_entry - 1)
        stored += (rows + 1) * _width(entries)
        if not sparsity or stored + OVERHEAD_BYTES >= 4 * self.size:
            return 4 * self.size
        return stored + _DESCRIPTION_BYTES


def _width(largest):
    """Returns the bytes of the smallest type that holds a number."""
    return 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4


class Converted:
    """A network as TFLite would store and run it.

    Args:
        model: Built Keras model.
        filters: Which weights are pruned, see `tf_gems.PruningReport`.
            Defaults to `None`: all kernels. Frozen layers, for example, are
            stored as they are.

    Attributes:
        weights: List of `Weight`.
        dense_bytes: Integer, the bytes of the float32 file with no zeros.
        obstacle: Why XNNPACK computes none of it sparsely, or `None`.
        loops: Whether a part of the network runs in a loop.
        zeros: Float, the fraction of the prunable weights that is zero now.
    """

    def __init__(self, model, filters=None):
        prunable = PruningReport(model, filters).prunable
        data = dense_file(model)
        file = flatbuffer.read(data)
        self.dense_bytes = len(data)
        self.loops = len(file.subgraphs) > 1
        sparse = xnnpack.Graph(file, file.subgraphs[0])
        self.obstacle = sparse.obstacle()
        inside = {
            (0, index)
            for index, reason in sparse.pointwise()
            if reason is None and self.obstacle is None
        }
        alive = [nonzero(variable) for variable in prunable]
        size = sum(mask.size for mask in alive)
        self.zeros = 1 - sum(map(np.count_nonzero, alive)) / size
        is_pruned = _pruned_places(file, model, prunable)
        readers = [flatbuffer.readers(file, graph) for graph in file.subgraphs]
        self.weights = []
        for weight in flatbuffer.weights(file):
            number, index = weight.place
            if None in weight.readers:
                continue
            tensors = weight.graph.tensors
            uses = sum(
                _positions(tensors[int(operator.outputs[0])].shape)
                for operator, _ in readers[number][index]
            )
            [reader, *_] = sorted(weight.readers)
            pruned = is_pruned(weight.place)
            self.weights.append(
                Weight(
                    weight.value.shape,
                    reader,
                    uses,
                    pruned and weight.place in inside,
                    pruned,
                )
            )

    @functools.cached_property
    def work(self):
        """Multiplications for one example, over all weights."""
        return sum(weight.work for weight in self.weights)

    @functools.cached_property
    def eligible_work(self):
        """Those of the 1x1 convolutions that XNNPACK can compute sparsely."""
        return sum(w.work for w in self.weights if w.eligible)

    @functools.cached_property
    def pruned_work(self):
        """Those of the weights that are pruned."""
        return sum(weight.work for weight in self.weights if weight.pruned)

    @functools.cached_property
    def features(self):
        """Dict from a target to the features that determine its speed-up.

        For `"browser"` the work of the 1x1 convolutions, and all other work
        beside it; for `"native"` the number of weights.
        """
        found = {"native": [math.log(sum(w.size for w in self.weights))]}
        if self.eligible_work:
            other = self.work - self.eligible_work
            found["browser"] = [
                math.log(self.eligible_work),
                math.log(max(other, 1) / self.eligible_work),
            ]
        return found

    def bytes(self, sparsity, eligible_only, in_blocks, optimize):
        """Returns about how many bytes a file with zeros takes.

        `eligible_only`: only what XNNPACK computes sparsely is pruned.
        """
        total = self.dense_bytes
        for weight in self.weights:
            if weight.eligible or (weight.pruned and not eligible_only):
                stored = weight.bytes(sparsity, in_blocks, optimize)
                total += stored - 4 * weight.size
        return int(round(total))


def _pruned_places(file, model, prunable):
    """Returns a function that tells whether a weight of a file is pruned.

    The converter may split a kernel or join several. Such a weight has no name,
    and counts as pruned if a prunable kernel was not found under its own name.
    """
    names = weight_rows.names_of(file, model)
    ids = {id(variable) for variable in prunable}
    weights = model.weights
    paths = {
        path
        for path, variable in zip(unique_paths(weights), weights, strict=True)
        if id(variable) in ids
    }
    all_found = paths <= set(names.values())

    def is_pruned(place):
        if place in names:
            return names[place] in paths
        return not all_found

    return is_pruned


def _positions(shape):
    """Returns how many places of a map an output of a layer has."""
    return int(np.prod(shape[:-1])) if len(shape) > 1 else 1
