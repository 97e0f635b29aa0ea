"""Whether two models of the same inputs compute the same."""

import contextlib

import keras
import numpy as np
from keras import ops

from tf_gems import _keras
from tf_gems.compaction.graph import structure_of


def random_inputs(model):
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
    return keras.tree.pack_sequence_as(structure_of(model), batch)


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


def largest_difference(model, other, inputs):
    """Returns the largest difference as a fraction of the largest output."""
    found = []
    for network in (model, other):
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
    for one, two in zip(*found, strict=True):
        if one.shape != two.shape:
            return np.inf
        if one.dtype.kind in "OSU" and not np.array_equal(one, two):
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
        gap = np.max(np.abs(one.astype("float64") - two)) / largest
        worst = max(worst, float(gap))
    return worst
