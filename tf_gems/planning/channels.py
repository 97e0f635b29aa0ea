"""Which channels of a network can be pruned and then removed."""

import dataclasses
import math
import re

import keras
import numpy as np

from tf_gems.compaction.channels import Channels
from tf_gems.compaction.choice import rule_for
from tf_gems.compaction.compact import Compaction
from tf_gems.compaction.graph import is_graph
from tf_gems.compaction.graph import trace
from tf_gems.compaction.mixing import SEPARABLE
from tf_gems.compaction.mixing import Mixing
from tf_gems.compaction.report import rows_of
from tf_gems.compaction.rules import TRANSPOSED
from tf_gems.compaction.rules import Depthwise
from tf_gems.layers.zeros import nonzero
from tf_gems.planning import speeds
from tf_gems.pruning_report import PruningReport
from tf_gems.selection.patterns import Channel

# The largest share of channels: with more, layers cannot learn enough.
_MOST = 0.9
_STEP = 0.004


def removable_kernels(model):
    """Returns the kernels whose pruned channels `tf_gems.compact` removes.

    Where channels can only be removed together, one kernel decides. Channels
    that are added to those of another kernel, such as the trunk of a residual
    network, are excluded, and so are the outputs of the model. A channel that
    a depthwise convolution reads is pruned in that convolution, whose zeros
    stop its input as well.

    Returns:
        List of `keras.Variable`; empty if the graph is not known.
    """
    if not is_graph(model):
        return []
    channels, rules, roots = Channels(), [], {}
    inputs, calls, outputs = trace(model)
    for tensor in inputs:
        channels.add(tensor)
    for call in calls:
        rules.append(rule_for(call, _uses(call, calls)))
        rules[-1].add_outputs(channels)
    pinned = [*inputs, *keras.tree.flatten(outputs)]
    for rule in rules:
        pinned += rule.pinned()
    taken = {root for x in pinned for root in channels.groups(x).tolist()}
    producers = {}
    for rule in rules:
        [output, *_] = rule.call.outputs
        roots[id(rule)] = channels.groups(output).tolist()
        if type(rule) is Mixing:
            for root in set(roots[id(rule)]):
                producers[root] = producers.get(root, 0) + 1
    taken |= {root for root, count in producers.items() if count > 1}
    prunable = {id(variable) for variable in PruningReport(model).prunable}
    found = []
    for kind in (Depthwise, Mixing):
        for rule in rules:
            kernel = _kernel(rule)
            mine = set(roots[id(rule)])
            if (
                type(rule) is kind
                and id(kernel) in prunable
                and not mine & taken
            ):
                found.append(kernel)
                taken |= mine
    return found


def _uses(call, calls):
    return sum(other.operation is call.operation for other in calls)


def _kernel(rule):
    """Returns the kernel whose last axis is the outputs, or `None`."""
    layer = rule.call.operation
    if type(rule) is Depthwise:
        return layer.kernel if layer.depth_multiplier == 1 else None
    if type(rule) is not Mixing or type(layer) in TRANSPOSED:
        return None
    return layer.pointwise_kernel if type(layer) in SEPARABLE else layer.kernel


def after_pruning(model, kernels, sparsity):
    """Returns the size of a model after channels are pruned and removed.

    Channels are chosen at random, the same share of each kernel. The weights
    of the model are restored, bit for bit.
    """
    random = np.random.default_rng(0)
    before = [kernel.numpy() for kernel in kernels]
    try:
        for kernel, value in zip(kernels, before, strict=True):
            count = round((1 - sparsity) * value.size)
            scores = random.random(value.shape)
            [mask] = Channel().keep_largest([scores], count)
            kernel.assign(value * mask)
        compaction = Compaction(model)
        _, calls = compaction.build()
        rows = rows_of(compaction.calls, calls)
    finally:
        for kernel, value in zip(kernels, before, strict=True):
            kernel.assign(value)
    # The converter folds normalization into the layers around it.
    folded = {
        call.name
        for call in compaction.calls
        if isinstance(call.operation, keras.layers.BatchNormalization)
    }
    stored = [row for row in rows if row["layer"] not in folded]
    return tuple(
        tuple(sum(row[column][side] for row in some) for side in (0, 1))
        for column, some in (("parameters", stored), ("multiply_adds", rows))
    )


@dataclasses.dataclass(frozen=True)
class ChannelPolicy:
    """Whole channels are pruned, and then removed, for any runtime.

    Speed-ups were measured as a function of the share of multiply-adds that
    is removed. This share is computed for the network itself.
    """

    model: keras.Model
    kernels: list
    dense_bytes: int
    table: speeds.Speeds

    pattern = "channel"
    optimize = "size"
    distribution = "uniform"

    @property
    def filters(self):
        """Regular expressions of the paths of the kernels."""
        return [f"^{re.escape(kernel.path)}$" for kernel in self.kernels]

    def left(self, sparsity):
        """Returns what `after_pruning` returns."""
        return after_pruning(self.model, self.kernels, sparsity)

    def bytes(self, sparsity):
        """Returns about how many bytes the compact file takes."""
        before, after = self.left(sparsity)[0]
        return self.dense_bytes - 4 * (before - after)

    def estimate(self, sparsity):
        """Returns the `Estimate` of the speed-up."""
        before, after = self.left(sparsity)[1]
        return self.table.at([math.log(before)], 1 - after / before)

    def least(self, max_bytes, speedup):
        """Returns the least sparsity that is enough, `None` if none is."""
        alive = [nonzero(kernel) for kernel in self.kernels]
        density = sum(map(np.count_nonzero, alive)) / sum(a.size for a in alive)
        low, high = 1 - density, _MOST
        if not is_enough(self, high, max_bytes, speedup):
            return None
        while high - low > _STEP:
            middle = (low + high) / 2
            if is_enough(self, middle, max_bytes, speedup):
                high = middle
            else:
                low = middle
        return round(high, 3)

    def best(self):
        """Describes the smallest and fastest file that the policy can give."""
        return describe(self, _MOST, "pattern='channel', compact=True")


def is_enough(policy, sparsity, max_bytes, speedup):
    """Whether a policy reaches the target at a sparsity."""
    fast = speedup is None or policy.estimate(sparsity).speedup >= speedup
    return fast and policy.bytes(sparsity) <= (max_bytes or math.inf)


def describe(policy, sparsity, settings):
    """Describes the file that a policy gives at a sparsity."""
    text = f"about {policy.bytes(sparsity):,} bytes"
    estimate = policy.estimate(sparsity)
    if estimate is not None:
        text += f" and {estimate.speedup:.1f} times as fast"
    return f"{text} at sparsity {sparsity:g} ({settings})"
