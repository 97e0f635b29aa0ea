"""Removal of the channels that the zeros of a model have cut off."""

import collections

import keras

from tf_gems.compaction.channels import Channels
from tf_gems.compaction.choice import rule_for
from tf_gems.compaction.comparing import largest_difference
from tf_gems.compaction.comparing import random_inputs
from tf_gems.compaction.comparing import refuse_non_finite_weights
from tf_gems.compaction.copying import Names
from tf_gems.compaction.copying import copy_of
from tf_gems.compaction.copying import is_copied
from tf_gems.compaction.graph import Call
from tf_gems.compaction.graph import is_graph
from tf_gems.compaction.graph import rebuilt
from tf_gems.compaction.graph import trace
from tf_gems.compaction.report import CompactionReport
from tf_gems.compaction.report import rows_of
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.parity import half_tolerance
from tf_gems.validation import check_eager

# Largest difference of the outputs, as a fraction of the largest output.
TOLERANCE = 1e-5


def compact(model, inputs=None):
    """Removes the channels that the zeros of a pruned model disconnect.

    A channel whose incoming weights are all zero has a constant value, which
    follows from its bias, normalization and activation. The constant is folded
    into the bias of the layers that read the channel, and the channel is
    removed. A channel that no layer reads is removed too. The result is a
    smaller plain Keras model with the same outputs up to rounding.

    Supported are dense layers, convolutions of one to three dimensions
    (also depthwise, separable and transposed), batch normalization,
    activations, pooling, padding, dropout, flattening, concatenation, sums,
    products and nested models. Every other layer is left unchanged with all
    channels that it reads and writes, and is listed in the report.

    Args:
        model: Built `keras.Sequential` or functional model with zeros in its
            weights. Pass a `tf_gems.SparseModel` through `tf_gems.strip`
            first. The model is not changed.
        inputs: Batch of inputs on which the outputs of both models are
            compared. Defaults to `None`: two random inputs.

    Returns:
        `(compacted, report)`: a Keras model that is not compiled, and a
        `tf_gems.compaction.CompactionReport`.

    Raises:
        ValueError: If the graph of the model is not known, or the model
            contains `GemLayer`s.
        RuntimeError: If the outputs of both models differ.

    Example:

    ```python
    model = tf_gems.strip(sparse)
    compacted, report = tf_gems.compact(model)
    print(report)
    compacted.save("compacted.keras")
    ```
    """
    check_eager()
    _refuse_others(model)
    refuse_non_finite_weights(model)
    inputs = random_inputs(model) if inputs is None else inputs
    found = Compaction(model)
    compacted, calls = found.build()
    difference = largest_difference(model, compacted, inputs)
    tolerance = max(TOLERANCE, half_tolerance(model))
    if not difference <= tolerance:
        raise RuntimeError(
            "The outputs of a compact model must equal those of the model, "
            f"up to {tolerance:g} of the largest output. Received: "
            f"'{model.name}', whose outputs differ by {difference:.2g}. "
            "Layers that were left unchanged: "
            f"{', '.join(found.kept) or 'none'}. Use the model without "
            "compaction."
        )
    return compacted, CompactionReport(
        rows_of(found.calls, calls), found.kept, found.shared, difference
    )


class Compaction:
    """Which channels of a model stay, and how the rest is built."""

    def __init__(self, model):
        self._model = model
        self._channels = Channels()
        inputs, self.calls, outputs = trace(model)
        counts = collections.Counter(id(c.operation) for c in self.calls)
        for tensor in inputs:
            self._channels.add(tensor)
        self._rules = []
        for call in self.calls:
            rule = rule_for(call, counts[id(call.operation)])
            rule.add_outputs(self._channels)
            self._rules.append(rule)
        pinned = [*inputs, *keras.tree.flatten(outputs)]
        for rule in self._rules:
            pinned += rule.pinned()
        self._channels.find_required(
            pinned, [r.requirement for r in self._rules]
        )
        self.kept = {r.call.name: r.reason for r in self._rules if r.reason}
        self.shared = [
            rule.call.name
            for rule in self._rules
            if not rule.removes and not is_copied(rule.call.operation)
        ]

    def build(self):
        """Returns the compact Keras model, and its list of `Call`."""
        rules = iter(self._rules)
        copies, calls = {}, []
        names = Names(
            self.calls,
            shared=[
                rule.call.operation
                for rule in self._rules
                if rule.call.name in self.shared
            ],
        )

        def call(old, args, kwargs, within):
            new, weights = self._replace(old, next(rules), copies)
            names.give(new, within)
            outputs = new(*args, **kwargs)
            if weights:
                new.set_weights(weights)
            flat = keras.tree.flatten(outputs)
            calls.append(Call(new, args, kwargs, flat, within))
            return outputs

        return rebuilt(self._model, call), calls

    def _replace(self, old, rule, copies):
        """Returns the new operation, and its weights or `None`."""
        rebuilt = rule.rebuild(self._channels)
        if rebuilt is not None:
            return rebuilt
        if not is_copied(old):
            return old, None
        if id(old) not in copies:
            copies[id(old)] = copy_of(old)
        weights = old.get_weights() if isinstance(old, keras.Layer) else None
        return copies[id(old)], weights


def _refuse_others(model):
    if isinstance(model, keras.Model) and find_gem_layers(model):
        raise ValueError(
            "A model must be stripped before it is compacted. Received: "
            f"'{model.name}', which contains a `GemLayer`. Use "
            "`tf_gems.compact(tf_gems.strip(model))`."
        )
    if not (isinstance(model, keras.Model) and is_graph(model)):
        raise ValueError(
            "Only a built `keras.Sequential` or functional model can be "
            "compacted, because its graph must be known. Received: "
            f"model={getattr(model, 'name', model)!r} of type "
            f"{type(model).__name__}. Build it from `keras.Input` and layers."
        )
