"""Removal of the channels that the zeros of a model have cut off."""

import collections
import contextlib

import keras
import numpy as np
from keras import ops

from tf_gems import _keras
from tf_gems.compaction.channels import Channels
from tf_gems.compaction.choice import rule_for
from tf_gems.compaction.copying import Names
from tf_gems.compaction.copying import copy_of
from tf_gems.compaction.copying import is_copied
from tf_gems.compaction.graph import Call
from tf_gems.compaction.graph import is_graph
from tf_gems.compaction.graph import run
from tf_gems.compaction.graph import trace
from tf_gems.compaction.report import CompactionReport
from tf_gems.compaction.report import rows_of
from tf_gems.half_precision import HALF_TOLERANCE
from tf_gems.half_precision import half_precision
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.validation import check_eager

# Largest difference of the outputs, as a fraction of the largest output.
TOLERANCE = 1e-5


def compact(model, inputs=None):
    """Removes the channels that the zeros of a pruned model have cut off.

    A channel whose incoming weights are all zero has a constant value, the one
    that the bias, a normalization and an activation give it. The constant is
    folded into the bias of the layers that read the channel, and the channel
    is removed. A channel that no layer reads is removed as well. The result is
    a smaller plain Keras model with the same outputs up to rounding.

    Supported are dense layers, convolutions of one to three dimensions
    (also depthwise, separable and transposed), batch normalization,
    activations, pooling, padding, dropout, flattening, concatenation, sums,
    products and nested models. Every other layer is left unchanged with all
    channels that it reads and writes, and is listed in the report.

    Args:
        model: Built `keras.Sequential` or functional model, with zeros; a
            `tf_gems.SparseModel` after `tf_gems.strip`. It is not changed.
        inputs: Batch of inputs, as `model` takes it, with which the outputs
            of both models are compared. Defaults to `None`: two random
            inputs.

    Returns:
        `(compacted, report)`: a Keras model that is not compiled, and a
        `tf_gems.compaction.CompactionReport`.

    Raises:
        ValueError: If the graph of the model is not known, or the model holds
            `GemLayer`s.
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
    _refuse_not_finite(model)
    inputs = _random_inputs(model) if inputs is None else inputs
    found = Compaction(model)
    compacted, calls = found.build()
    difference = _difference(model, compacted, inputs)
    tolerance = max(TOLERANCE, HALF_TOLERANCE[half_precision(model)])
    if not difference <= tolerance:
        raise RuntimeError(
            "A compact model must have the outputs of the model, up to "
            f"{tolerance:g} of the largest output. Received: '{model.name}', "
            f"whose outputs differ by {difference:.2g}. Layers that were left "
            f"unchanged: {', '.join(found.kept) or 'none'}. Use the model "
            "without compaction."
        )
    return compacted, CompactionReport(
        rows_of(found.calls, calls), found.kept, found.shared, difference
    )


class Compaction:
    """Which channels of a model stay, and how the rest is built.

    Attributes:
        calls: List of `Call` of the model.
        kept: Dict from the name of an operation without a rule to the reason.
        shared: Names of layers that both models share.
    """

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
            rule.call.operation
            for rule in self._rules
            if rule.call.name in self.shared
        )

        def call(old, args, kwargs, _):
            new, weights = self._replace(old, next(rules), copies)
            names.give(new)
            outputs = new(*args, **kwargs)
            if weights:
                new.set_weights(weights)
            flat = keras.tree.flatten(outputs)
            calls.append(Call(new, args, kwargs, flat))
            return outputs

        inputs = [
            keras.Input(
                batch_shape=x.shape,
                dtype=x.dtype,
                sparse=x.sparse,
                name=x.name,
            )
            for x in self._model.inputs
        ]
        outputs = run(self._model, inputs, call)
        # Named and nested as the inputs of the model are.
        packed = keras.tree.pack_sequence_as(_structure(self._model), inputs)
        return keras.Model(packed, outputs, name=self._model.name), calls

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


def _structure(model):
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    return _keras.inputs_struct(model)


def _refuse_others(model):
    if isinstance(model, keras.Model) and find_gem_layers(model):
        raise ValueError(
            "A model is compacted after it is stripped. Received: "
            f"'{model.name}', which holds a `GemLayer`. Use "
            "`tf_gems.compact(tf_gems.strip(model))`."
        )
    if not (isinstance(model, keras.Model) and is_graph(model)):
        raise ValueError(
            "Only a built `keras.Sequential` or functional model, whose graph "
            "is known, can be compacted. Received: model="
            f"{getattr(model, 'name', model)!r} of type "
            f"{type(model).__name__}. Build it from `keras.Input` and layers."
        )


def _refuse_not_finite(model):
    for weight in model.weights:
        values = ops.convert_to_numpy(weight)
        if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
            raise ValueError(
                "Weights must be finite. Received: a weight of "
                f"'{model.name}' that is not finite, '{weight.path}'. Train "
                "the model again, or load its weights from before it diverged."
            )


def _random_inputs(model):
    """Returns two random inputs, with a size of 32 where it is not fixed."""
    generator = np.random.default_rng(0)
    batch = []
    for tensor in model.inputs:
        shape = [size or 32 for size in tensor.shape]
        shape[0] = tensor.shape[0] or 2
        if "float" in tensor.dtype:
            values = generator.normal(size=shape)
        elif "int" in tensor.dtype or tensor.dtype == "bool":
            values = generator.integers(0, 2, shape)
        else:
            raise ValueError(
                "Outputs are compared on random numbers, or on `inputs`. "
                f"Received: '{model.name}' with input '{tensor.name}' of "
                f"{tensor.dtype}. Pass a batch as `inputs`."
            )
        batch.append(values.astype(tensor.dtype))
    return keras.tree.pack_sequence_as(_structure(model), batch)


def _outputs(model, inputs):
    """Returns the outputs of a model, or refuses inputs that do not fit."""
    try:
        return model(inputs, training=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            "`inputs` must be a batch as the model takes it. Received: "
            f"inputs of type {type(inputs).__name__}, which '{model.name}' "
            f"does not take: {reason} Leave it out, or pass such a batch."
        ) from error


@contextlib.contextmanager
def _state_kept(model):
    """Restores what a call assigns: recurrent states, counters, seeds."""
    variables = list(model.non_trainable_variables)
    for layer in _keras.flatten_layers(model):
        variables += keras.tree.flatten(getattr(layer, "states", None) or [])
    kept = [(variable, ops.copy(variable)) for variable in variables]
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


def _difference(model, compacted, inputs):
    """Returns the largest difference as a fraction of the largest output."""
    found = []
    for network in (model, compacted):
        with _state_kept(model):  # the two may share layers
            outputs = _outputs(network, inputs)
        flat = keras.tree.flatten(outputs)
        found.append([ops.convert_to_numpy(x) for x in flat])
    if not any(np.size(one) for one in found[0]):
        raise ValueError(
            "Outputs are compared on a batch of examples. Received: inputs, "
            f"for which '{model.name}' returns no value. Pass some examples, "
            "or leave `inputs` out."
        )
    worst = 0.0
    for one, other in zip(*found, strict=True):
        if one.shape != other.shape:
            return np.inf
        if one.dtype.kind in "OSU" and not np.array_equal(one, other):
            return np.inf
        if one.dtype.kind in "OSU" or not np.size(one):
            continue
        if not np.all(np.isfinite(one)):
            raise ValueError(
                "Outputs are compared on inputs for which they are finite. "
                f"Received: '{model.name}', of which an output holds NaN or "
                "infinite values. Pass real inputs."
            )
        largest = max(float(np.max(np.abs(one))), 1e-30)
        gap = np.max(np.abs(one.astype("float64") - other)) / largest
        worst = max(worst, float(gap))
    return worst
