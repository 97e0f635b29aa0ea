"""The sparsity and the policy that a network needs for its target."""

import dataclasses
import math

import keras

from tf_gems.filter_policies import POINTWISE
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.planning import speeds
from tf_gems.planning.channels import ChannelPolicy
from tf_gems.planning.channels import describe
from tf_gems.planning.channels import is_enough
from tf_gems.planning.channels import removable_kernels
from tf_gems.planning.converted import Converted
from tf_gems.sparse_model import STARTS
from tf_gems.tables import DataReport
from tf_gems.validation import check_choice
from tf_gems.validation import is_number

COMPUTED = "computed from the file format, for `batch_size=1`"
_MOST = 0.999  # beyond, layers have no weights left to learn with
_STEP = 0.001
_TARGETS = ("browser", "native")
# Kernels that are pruned unless a policy names others, and how zeros are
# distributed if only bytes matter: as in `tf_gems.SparseModel` and in the
# methods for each start.
_FILTERS = {"initialization": None, "trained": "no_depthwise"}
_DISTRIBUTIONS = {"initialization": "global", "trained": "lamp"}


@dataclasses.dataclass(frozen=True)
class Plan(DataReport):
    """Settings of pruning that reach a file size or a speed-up.

    Args:
        target_sparsity: Float in [0, 1), for `tf_gems.GemMinerCallback` and
            all other methods.
        filters: For `tf_gems.SparseModel`: `"pointwise"`, `None` for all
            that the start prunes, or a list of regular expressions of their
            paths.
        pattern: `"unstructured"`, `"4x1"`: blocks of four along the inputs, or
            `"channel"`: whole channels, which the export then removes.
        distribution: `"uniform"` if a speed-up is asked for, as in the
            networks that were measured; otherwise `"global"`, or `"lamp"` for
            a trained start.
        optimize: For `tf_gems.export_litert`.
        target: `"browser"` or `"native"`.
        bytes: Integer, estimated bytes of the file.
        dense_bytes: Integer, bytes of the file without zeros.
        speedup: `tf_gems.planning.speeds.Estimate`, or `None` if there are no
            measurements for these weights.
        max_bytes: Integer, the requested file size, or `None`.
        least_speedup: Float, the requested speed-up, or `None`.
        sources: List of strings, where the measured speeds come from.
        compact: For `tf_gems.export_litert`. Defaults to `False`.
        multiply_adds: Pair of integers, before and after channels are
            removed, or `None`. Defaults to `None`.
        start: For `tf_gems.SparseModel`. Defaults to `"initialization"`.

    Example:

    ```python
    plan = tf_gems.plan(model, max_bytes=3_000_000, speedup=3.0)
    print(plan)
    sparse = tf_gems.SparseModel(model, filters=plan.filters)
    callback = tf_gems.GemMinerCallback(**plan.settings)
    ```
    """

    target_sparsity: float
    filters: str | list | None
    pattern: str
    distribution: str
    optimize: str
    target: str
    bytes: int
    dense_bytes: int
    speedup: speeds.Estimate | None
    max_bytes: int | None
    least_speedup: float | None
    sources: list
    compact: bool = False
    multiply_adds: tuple | None = None
    start: str = "initialization"
    bytes_are = COMPUTED
    _computed = ("bytes_are", "settings")

    @property
    def settings(self):
        """Dict of the arguments of a callback, or of a method."""
        names = ("target_sparsity", "pattern", "distribution")
        return {name: getattr(self, name) for name in names}

    def _parts(self):
        what = "1x1 convolutions" if self.filters else "all kernels"
        filters = repr(self.filters)
        if self.start == "trained" and self.filters is None:
            what = "all kernels but depthwise ones"
        if self.pattern == "channel":
            what = f"the channels of {len(self.filters)} kernels"
            filters = "plan.filters"
        elif self.pattern != "unstructured":
            what += f", in blocks {self.pattern}"
        lines = [
            f"Prune {self.target_sparsity:.1%} of {what} "
            f"(filters={filters}, pattern={self.pattern!r}, "
            f"distribution={self.distribution!r}).",
            f"Bytes: about {self.bytes:,} of {self.dense_bytes:,}, {COMPUTED}.",
        ]
        if self.compact:
            before, after = self.multiply_adds
            lines.append(
                f"Multiply-adds: about {after:,} of {before:,} remain after "
                "an export with `compact=True` has removed the channels."
            )
        estimate = self.speedup
        if estimate is None:
            lines.append("Speed: not measured for these weights.")
        else:
            lines.append(
                f"Speed ({self.target}): about {estimate.speedup:.1f} times "
                f"({estimate.low:.1f} to {estimate.high:.1f}), "
                f"{estimate.certainty} ({', '.join(estimate.networks)})."
            )
        if self.least_speedup and estimate.low < self.least_speedup:
            lines.append(
                f"The speed-up may be less than {self.least_speedup:g} times: "
                "measure the export, or ask for a larger one."
            )
        lines += [f"Source: {source}" for source in self.sources]
        return lines


def plan(
    model: keras.Model,
    max_bytes: int | None = None,
    speedup: float | None = None,
    target: str = "browser",
    start: str = "initialization",
) -> Plan:
    """Returns the sparsity that a file size or a speed-up requires.

    Among the policies that reach the target, the one with the lowest sparsity
    is chosen. For browsers, only the 1x1 convolutions are pruned
    (`filters="pointwise"`), whose zeros XNNPACK uses if they are more than two
    thirds. For native execution on x86 with AVX, networks of dense layers are
    pruned in single weights or blocks of four. In all other networks whole
    channels are pruned (`pattern="channel"`), in the kernels from which
    `tf_gems.compact` can remove them. If only the size matters, all kernels
    are pruned.

    The size is that of the float32 file of `tf_gems.export_litert` with
    `batch_size=1`, computed from the format for zeros that are spread evenly.
    Files of a few kilobytes may be some percent larger. Weights that are not
    prunable, such as those of frozen layers, are stored densely. Weights that
    are zero already count toward the sparsity. Speed-ups are estimated from a
    table of measurements, see `tf_gems.planning.speeds`. The plan states
    whether this network or similar ones were measured, and how large the error
    may be. The model is converted for this, which takes seconds, and is not
    changed.

    Args:
        model: Built Keras model, which is not wrapped.
        max_bytes: Integer. Defaults to `None`: any size.
        speedup: Float above 1: time of the dense file over that of the sparse
            one. Defaults to `None`: any speed.
        target: `"browser"`: LiteRT.js in Chromium, one thread; ARM runs the
            same kernels. `"native"`: LiteRT on x86 with AVX, one thread.
            Defaults to `"browser"`.
        start: Of the `tf_gems.SparseModel` that the plan is for. With
            `"trained"`, depthwise kernels are left as they are. Defaults to
            `"initialization"`.

    Returns:
        `tf_gems.planning.Plan`.

    Raises:
        RuntimeError: If Keras does not run on TensorFlow.
        ValueError: If there is no target, or the target cannot be reached. The
            message gives the reason and the best values that can be reached.

    Example:

    ```python
    model = tf_gems.zoo.mobilenet_v1((96, 96, 3), 10)
    print(tf_gems.plan(model, speedup=3.0))
    ```
    """
    check_choice(target, "target", _TARGETS)
    check_choice(start, "start", STARTS)
    _refuse_wrapped(model)
    _check("max_bytes", max_bytes, 0)
    _check("speedup", speedup, 1)
    if max_bytes is None and speedup is None:
        raise ValueError(
            "A plan requires a target. Received: max_bytes=None, "
            "speedup=None. Pass one of them, or both."
        )
    converted = Converted(model, _FILTERS[start])
    policies = _policies(model, converted, target, speedup, start)
    reached = [policy.least(max_bytes, speedup) for policy in policies]
    reached = [
        (sparsity, policy)
        for sparsity, policy in zip(reached, policies, strict=True)
        if sparsity is not None
    ]
    if not reached:
        best = ", ".join(policy.best() for policy in policies)
        raise ValueError(
            "Pruning this network does not reach the target. Received: "
            f"max_bytes={max_bytes}, speedup={speedup}, target={target!r}. "
            f"The best values are: {best}. Lower the target, or start from a "
            "smaller network."
        )
    sparsity, policy = min(reached, key=lambda pair: pair[0])
    estimate, left = policy.estimate(sparsity), None
    if policy.pattern == "channel":
        left = policy.left(sparsity)[1]
    return Plan(
        target_sparsity=sparsity,
        filters=policy.filters,
        pattern=policy.pattern,
        distribution=policy.distribution,
        optimize=policy.optimize,
        target=target,
        bytes=policy.bytes(sparsity),
        dense_bytes=converted.dense_bytes,
        speedup=estimate,
        max_bytes=max_bytes,
        least_speedup=speedup,
        sources=[] if estimate is None else speeds.table()["sources"],
        compact=left is not None,
        multiply_adds=left,
        start=start,
    )


def _refuse_wrapped(model):
    if isinstance(model, keras.Layer) and find_gem_layers(model):
        raise ValueError(
            "A plan is made for the network itself, before it is wrapped. "
            f"Received: '{model.name}' of type {type(model).__name__}, which "
            "is pruned already. Pass the model that it was made from."
        )


def _check(name, value, least):
    if value is not None and not (is_number(value) and value > least):
        raise ValueError(
            f"`{name}` must be a number above {least}, or `None`. "
            f"Received: {name}={value!r}."
        )


def _refuse_no_faster(converted):
    if not converted.eligible_work:
        reason = converted.obstacle or "it has no 1x1 convolution"
        raise ValueError(
            "The zeros of this model save no time in a browser. Received: a "
            f"model for which XNNPACK uses no sparse kernels: {reason}. See "
            "`tf_gems.export.make_sparse_ready`, or pass only `max_bytes`."
        )


def _policies(model, converted, target, speedup, start):
    if speedup is None:
        return [_Policy(converted, target, None, "unstructured", None, start)]
    tables = speeds.load(target)
    if target == "browser":
        _refuse_no_faster(converted)
        table = tables["unstructured"]
        return [
            _Policy(converted, target, filters, "unstructured", table, start)
            for filters in (POINTWISE, None)
        ]
    others = {w.reader for w in converted.weights} - {"FULLY_CONNECTED"}
    if converted.loops:
        others.add("WHILE")
    channels = tables.pop("channel")
    if others or not converted.weights:
        kernels = removable_kernels(model)
        if not kernels:
            raise ValueError(
                "On x86 with AVX, XNNPACK expands sparse weights of all "
                "layers except dense ones, so only removing whole channels "
                f"saves time. Received: '{model.name}' with "
                f"{', '.join(sorted(others)) or 'no weights'}, from which no "
                "channels can be removed: see `tf_gems.compact`. Use "
                "target='browser', or pass only `max_bytes`."
            )
        return [ChannelPolicy(model, kernels, converted.dense_bytes, channels)]
    return [
        _Policy(converted, target, None, pattern, table, start)
        for pattern, table in tables.items()
    ]


@dataclasses.dataclass(frozen=True)
class _Policy:
    """One way to prune a network, with its size and speed."""

    converted: Converted
    target: str
    filters: str | None
    pattern: str
    table: speeds.Speeds | None
    start: str

    @property
    def optimize(self):
        fast = self.table is not None and self.target == "native"
        return "latency" if fast else "size"

    def bytes(self, sparsity):
        return self.converted.bytes(
            sparsity,
            self.filters == POINTWISE,
            self.pattern != "unstructured",
            self.optimize,
        )

    def estimate(self, sparsity):
        if self.table is None:
            return None
        features = self.converted.features[self.target]
        estimate = self.table.at(features, sparsity)
        if self.target == "browser":
            return estimate
        # Amdahl's law, for weights that are not pruned.
        share = self.converted.pruned_work / self.converted.work
        return dataclasses.replace(
            estimate,
            **{
                name: 1 / (1 - share + share / getattr(estimate, name))
                for name in ("speedup", "low", "high")
            },
        )

    def sparsities(self):
        """Yields what to try, the least first."""
        low, high = 0.0, _MOST
        if self.table is not None:
            low, high = self.table.lowest, self.table.highest
        low = math.ceil(max(low, self.converted.zeros) / _STEP) * _STEP
        count = round((high - low) / _STEP)
        for index in range(count + 1):
            yield round(low + index * _STEP, 6)

    def least(self, max_bytes, speedup):
        """Returns the least sparsity that is enough, `None` if none is."""
        for sparsity in self.sparsities():
            if is_enough(self, sparsity, max_bytes, speedup):
                return sparsity
        return None

    def best(self):
        """Describes the smallest and fastest file that the policy can give."""
        *_, most = self.sparsities()
        return describe(
            self, most, f"filters={self.filters!r}, pattern={self.pattern!r}"
        )

    @property
    def distribution(self):
        return _DISTRIBUTIONS[self.start] if self.table is None else "uniform"
