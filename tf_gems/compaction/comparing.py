"""Whether two models of the same inputs compute the same."""

import contextlib

import keras
import numpy as np
from keras import ops

from tf_gems import _keras
from tf_gems.compaction.graph import structure_of
from tf_gems.parity import measure_parity
from tf_gems.parity import refuse_non_finite


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
                "Outputs are compared on random inputs or on `inputs`. "
                f"Received: '{model.name}' with input '{tensor.name}' of "
                f"{tensor.dtype}. Pass a batch as `inputs`."
            )
        batch.append(values.astype(tensor.dtype))
    return keras.tree.pack_sequence_as(structure_of(model), batch)


def outputs_of(model, inputs, name="inputs", training=False):
    """Returns the outputs of a model, or refuses inputs that do not fit."""
    try:
        return model(inputs, training=training)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"`{name}` must be a batch that the model accepts. Received: "
            f"{name} of type {type(inputs).__name__}, which '{model.name}' "
            f"does not accept: {reason} Pass such a batch."
        ) from error


@contextlib.contextmanager
def state_kept(model):
    """Restores the variables that a call of the model assigns.

    They include variables that Keras does not list: the states of recurrent
    layers, and variables of TensorFlow.
    """
    kinds, copy = keras.Variable, ops.copy
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # A tensor shares the memory of its variable until that is assigned to.
        kinds, copy = keras.Variable | tf.Variable, tf.convert_to_tensor
    state = {id(v): v for v in model.non_trainable_variables}
    others = {id(v) for v in model.trainable_variables}
    others |= {id(v.value) for v in model.variables}
    for layer in _keras.flatten_layers(model):
        for value in attributes(layer):
            if isinstance(value, kinds) and id(value) not in others:
                state[id(value)] = value
    kept = [(variable, copy(variable)) for variable in state.values()]
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


def attributes(layer):
    """Yields the values of attributes of a layer, with lists and dicts flat."""
    yield from leaves(vars(layer).values())


def leaves(values):
    """Yields values, with lists and dicts flat."""
    todo, seen = list(values), set()
    while todo:
        value = todo.pop()
        if not isinstance(value, list | tuple | dict):
            yield value
        elif id(value) not in seen:  # what a user keeps may hold itself
            seen.add(id(value))
            todo += value.values() if isinstance(value, dict) else value


def largest_difference(model, other, inputs):
    """Returns the largest difference as a fraction of the largest output."""
    found = []
    for network in (model, other):
        with state_kept(model):  # the two may share layers
            outputs = outputs_of(network, inputs)
        flat = map(ops.convert_to_numpy, keras.tree.flatten(outputs))
        found.append(dict(enumerate(flat)))
    if not any(np.size(one) for one in found[0].values()):
        raise ValueError(
            "Outputs are compared on a batch of examples. Received: inputs "
            f"for which '{model.name}' returns no value. Pass some examples, "
            "or leave `inputs` out."
        )
    refuse_non_finite(found[:1], model.name)
    return float(measure_parity(*found).share)


def refuse_non_finite_weights(model):
    """Raises an error if a weight holds NaN or infinite values."""
    for variable in model.weights:
        if "float" not in keras.backend.standardize_dtype(variable.dtype):
            continue
        value = ops.convert_to_numpy(variable)
        with np.errstate(all="ignore"):
            if np.isfinite(np.sum(value)):
                continue  # nearly always, and faster than to look at each
        bad = np.size(value) - np.count_nonzero(np.isfinite(value))
        if bad:  # the sum may overflow where no value does
            raise ValueError(
                "All weights must be finite. Received: weight "
                f"'{variable.path}' of '{model.name}', in which {bad:,} of "
                f"{np.size(value):,} values are NaN or infinite. Its training "
                "diverged. Load an earlier checkpoint, or train with a "
                "smaller learning rate or `clipnorm`."
            )
