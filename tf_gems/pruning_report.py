"""Which weights of a model are pruned, and which are skipped and why."""

import math
import re

import keras

from tf_gems import _keras
from tf_gems import filter_policies
from tf_gems.tables import Report
from tf_gems.tables import Table

NOT_TRAINABLE = "not trainable"
NOT_FLOAT = "not a floating-point weight"
LOW_RANK = "rank below 2"
NOT_A_KERNEL = "bias or normalization"
A_VECTOR = "only one dimension above 1"
A_POSITION = "table of positions"
AN_ADAPTER = "low-rank adapter"
FILTERED = "excluded by `filters`"

_NOT_KERNELS = {"gamma", "beta", "scale", "offset", "alpha"}
_ADAPTER = re.compile(r"lora_(kernel|embeddings)_[ab]")
_POSITION = re.compile(r"(^|_)pos(ition(al|s)?)?(_|$)")


class PruningReport(Report):
    """The prunable and the skipped weights of a layer, with reasons.

    A weight is prunable if it is trainable, has rank two or more, and is not a
    bias, normalization scale, PReLU slope, class token, position table or
    low-rank adapter (`enable_lora`), whose product is always dense. A weight
    whose name does not end in `kernel` or `embeddings` counts as a vector if
    only one of its dimensions is above 1, and as a bias if its name ends in
    `bias`. A regular expression, or a list of them, restricts this to the
    weights whose path it matches. A callable alone selects among all trainable
    floating-point weights. A string can also name a policy; `policies` and the
    end of the table show what each policy prunes:

    * `"all"`: all kernels, the default.
    * `"no_depthwise"`: all kernels except depthwise ones, as in TF Model
      Optimization.
    * `"pointwise"`: the kernels of 1x1 convolutions with stride 1, which
      TFLite computes faster if they are sparse, in a network that
      `tf_gems.export.make_sparse_ready` returned.

    A list of one string is always a regular expression.

    Args:
        layer: A built Keras layer or model.
        filters: Regular expression or list of them, searched for in the path
            of each weight; the name of a policy; or a callable that takes a
            `keras.Variable` and returns whether to prune it. Defaults to
            `None`: all kernels.
        trainable: List of `keras.Variable` that count as trainable. Defaults
            to `None`: those that are trainable now.

    Attributes:
        prunable: List of `keras.Variable`.
        skipped: List of `(keras.Variable, reason)`.
        trainable: List of `keras.Variable`, all trainable variables.
        policies: Dict from the names that `filters` takes to the lists of
            `keras.Variable` that each prunes.

    Raises:
        ValueError: If no weight is prunable, or `filters` is invalid.

    Example:

    ```python
    print(tf_gems.PruningReport(model, filters="conv").render())
    ```
    """

    def __init__(self, layer, filters=None, trainable=None):
        if not isinstance(layer, keras.Layer) or not layer.built:
            raise ValueError(
                "`layer` must be a built Keras layer or model. Received: "
                f"layer={layer!r:.300}. Call it on data first."
            )
        if trainable is not None and not (
            isinstance(trainable, list | tuple)
            and all(isinstance(v, keras.Variable) for v in trainable)
        ):
            raise ValueError(
                "`trainable` must be a list of Keras variables. Received: "
                f"trainable={trainable!r:.300}. Leave it out."
            )
        matches = _predicate(filters, layer)
        # What pruning itself has added, if the layer holds `GemLayer`s.
        parts = _keras.flatten_layers(layer)
        gems = [p for p in parts if hasattr(p, "own_variables")]
        added = {id(v) for gem in gems for v in gem.own_variables()}
        self.prunable = []
        self.skipped = []
        if trainable is None:
            pruned = [v for gem in gems for v in gem.report.trainable]
            trainable = [*layer.trainable_weights, *pruned]
        self.trainable = list(trainable)
        trainable = {id(v) for v in self.trainable}
        for variable in layer.weights:
            if id(variable) in added:
                continue
            is_trainable = id(variable) in trainable
            if not is_trainable and len(variable.shape) < 2:
                continue  # state: normalization statistics, counters
            reason = _reason_to_skip(variable, is_trainable, filters, matches)
            if reason is None:
                self.prunable.append(variable)
            else:
                self.skipped.append((variable, reason))
        if not self.prunable:
            self._refuse(layer, filters)
        kernels = [
            v
            for v in layer.weights
            if _reason_to_skip(v, id(v) in trainable, None, _passes) is None
        ]
        self.policies = filter_policies.choices(layer, kernels)

    def _refuse(self, layer, filters):
        quantized = [
            part.name
            for part in _keras.flatten_layers(layer)
            if getattr(part, "quantization_mode", None)
        ]
        if quantized:
            raise ValueError(
                "A model must be pruned before it is quantized. Received: "
                f"'{layer.name}', in which '{quantized[0]}' is quantized. "
                "Prune the float model, and call `quantize` on the model "
                "that `tf_gems.strip` returns."
            )
        reasons = [reason for _, reason in self.skipped]
        if AN_ADAPTER in reasons:
            raise ValueError(
                "A low-rank adapter cannot be pruned, because the kernel is "
                "dense again when its product is added. Received: "
                f"'{layer.name}', in which only adapters train. Prune the "
                "model first, and call `enable_lora` on the model that "
                "`tf_gems.strip` returns, or pass a callable as `filters`."
            )
        policy = filter_policies.get(filters)
        if policy is not None and any(r == policy.reason for r in reasons):
            nothing = policy.nothing.format(name=f"'{layer.name}'")
            raise ValueError(f'`filters="{filters}"` {nothing}')
        candidates = [v for v, r in self.skipped if r == FILTERED]
        if candidates:
            raise ValueError(
                f"`filters` must match a weight of '{layer.name}'. "
                f"Received: filters={filters!r}. "
                f"Its weights are: {', '.join(v.path for v in candidates)}."
            )
        reasons = [f"{v.path} ({reason})" for v, reason in self.skipped]
        raise ValueError(
            "A layer must have a trainable weight of rank 2 or more to be "
            f"pruned. Received: '{layer.name}' with weights "
            f"{', '.join(reasons) or 'none'}. Set `trainable=True` on the "
            "layers to prune, or pass a callable as `filters`."
        )

    def to_dict(self):
        """Returns the report as plain, JSON-serializable values."""
        return {
            "prunable": [
                {"path": v.path, "shape": list(v.shape)} for v in self.prunable
            ],
            "skipped": [
                {"path": v.path, "shape": list(v.shape), "reason": reason}
                for v, reason in self.skipped
            ],
        }

    def _parts(self):
        rows = [(v, "prunable") for v in self.prunable] + self.skipped
        size = sum(math.prod(v.shape) for v in self.prunable)
        lines = [
            Table(
                ["weight", ">shape", "pruned"],
                [[v.path, v.shape, reason] for v, reason in rows],
            ),
            f"{len(self.prunable)} prunable weights with {size:,} entries, "
            f"{len(self.skipped)} skipped",
        ]
        for name, kernels in self.policies.items():
            size = sum(math.prod(v.shape) for v in kernels)
            lines.append(
                f'filters="{name}" prunes {len(kernels)} weights with '
                f"{size:,} entries"
            )
        return lines


def _reason_to_skip(variable, is_trainable, filters, matches):
    """Returns why a weight is not pruned, or `None` if it is."""
    if not is_trainable:
        return NOT_TRAINABLE
    if "float" not in variable.dtype:
        return NOT_FLOAT
    if not callable(filters):
        reason = _reason_of_kind(variable)
        if reason is not None:
            return reason
    if matches(variable):
        return None
    policy = filter_policies.get(filters)
    return FILTERED if policy is None else policy.reason


def _passes(variable):
    return True


def _reason_of_kind(variable):
    """Returns why a weight is no kernel, or `None` if it is one."""
    owner, _, name = variable.path.rpartition("/")
    if name in _NOT_KERNELS or name.endswith("bias"):
        return NOT_A_KERNEL
    if len(variable.shape) < 2:
        return LOW_RANK
    if _ADAPTER.fullmatch(name):
        return AN_ADAPTER
    if name.endswith("kernel"):
        return None
    if any(_POSITION.search(n) for n in (name, owner.rpartition("/")[2])):
        return A_POSITION
    wide = sum(size > 1 for size in variable.shape)
    if wide < 2 and not name.endswith("embeddings"):
        return A_VECTOR
    return None


def _predicate(filters, layer):
    """Returns a function that tells whether a variable passes the filters."""
    filters = check_filters(filters)
    if filters is None:
        return _passes
    if callable(filters):
        return filters
    if isinstance(filters, filter_policies.Policy):
        allowed = {id(v) for v in filters.weights(layer)}
        return lambda variable: id(variable) in allowed
    return lambda variable: any(p.search(variable.path) for p in filters)


def check_filters(filters):
    """Returns what `filters` stands for, if it is one of these.

    Returns:
        `None`, a function, a `filter_policies.Policy`, or a list of compiled
        regular expressions.
    """
    if filters is None:
        return None
    if isinstance(filters, type | keras.layers.Layer):
        kind = "class" if isinstance(filters, type) else "layer"
        raise ValueError(
            "`filters` must select weights, not layers. Received: "
            f"filters={getattr(filters, '__name__', filters)!s:.100}, a "
            f"{kind}. Pass a regular expression for their paths, such as "
            '`filters="conv"`, or a callable that takes a `keras.Variable`.'
        )
    if callable(filters):
        return filters
    policy = filter_policies.get(filters)
    if policy is not None:
        return policy
    patterns = [filters] if isinstance(filters, str) else filters
    try:
        if not isinstance(patterns, list | tuple) or not patterns:
            raise TypeError("it is not a list of strings")
        if not all(patterns):
            raise TypeError("an empty expression matches everything")
        return [re.compile(pattern) for pattern in patterns]
    except (TypeError, re.error) as error:
        raise ValueError(
            "`filters` must be a regular expression, a list of them, or a "
            f"callable. Received: filters={filters!r} ({error})."
        ) from error


def unique_paths(variables):
    """Returns the paths of variables, numbered where several are equal."""
    paths = {}
    for variable in variables:
        path, copies = variable.path, 1
        while path in paths:
            copies += 1
            path = f"{variable.path}_{copies}"
        paths[path] = variable
    return list(paths)
