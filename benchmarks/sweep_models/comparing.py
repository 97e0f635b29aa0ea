"""Computes the outputs of models and compares them."""

import keras
import numpy as np

_KINDS = "fiub"


class Wrong(Exception):
    """A wrong output that did not raise an error."""


def answer(model, inputs):
    """Returns the outputs of a model, starting from the same state each time.

    Resets the states of recurrent layers and of random seed generators.
    """
    forget(model)
    outputs = model(inputs, training=False)
    forget(model)
    return keras.tree.map_structure(_array, outputs)


def forget(model):
    """Sets the states that a model keeps between calls to a fixed value."""
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False):
            layer.reset_state()
    for variable in model.variables:
        if "seed_generator_state" in variable.path:
            variable.assign(np.array([0, 7], variable.dtype))


def _array(value):
    if hasattr(value, "to_tensor"):  # A ragged tensor.
        value = value.to_tensor()
    value = np.asarray(value)
    return value if value.dtype.kind in _KINDS + "OS" else value.astype("f4")


def _pairs(expected, received):
    """Yields pairs of corresponding arrays, matched by name or by order."""
    nested = isinstance(expected, dict) and any(
        isinstance(value, dict | list | tuple) for value in expected.values()
    )
    if isinstance(expected, dict) and isinstance(received, dict) and not nested:
        for name in expected:
            if name not in received:
                raise Wrong(f"no output '{name}' in {list(received)}")
            yield expected[name], received[name]
        return
    ours, theirs = keras.tree.flatten(expected), keras.tree.flatten(received)
    if isinstance(received, dict) and not isinstance(expected, dict):
        theirs = list(received.values())
    if len(ours) != len(theirs):
        raise Wrong(f"{len(theirs)} outputs instead of {len(ours)}")
    yield from zip(ours, theirs, strict=True)


def refuse_other_shapes(expected, received):
    """Raises an error if outputs have other shapes or are not finite."""
    for one, other in _pairs(expected, received):
        one, other = np.asarray(one), np.asarray(other)
        if one.shape != other.shape:
            raise Wrong(f"outputs of shape {other.shape}, not {one.shape}")
        if other.dtype.kind == "f" and np.isfinite(one).all():
            if not np.isfinite(other).all():
                raise Wrong("outputs are not finite")


def refuse_unlike(expected, received, tolerance):
    """Raises an error if outputs differ, relative to the largest output."""
    refuse_other_shapes(expected, received)
    for one, other in _pairs(expected, received):
        one, other = np.asarray(one), np.asarray(other)
        if one.dtype.kind not in _KINDS:
            if not np.array_equal(one, other):
                raise Wrong("outputs that are strings differ")
            continue
        one, other = one.astype("f8"), other.astype("f8")
        both = np.isfinite(one)
        largest = np.abs(one[both]).max(initial=0.0)
        difference = np.abs(one[both] - other[both]).max(initial=0.0)
        if not difference <= tolerance * largest + 1e-6:
            raise Wrong(
                f"outputs differ by {difference:.3g}, where the largest is "
                f"{largest:.3g}"
            )


def is_finite(received):
    """Returns whether all outputs are finite."""
    flat = [np.asarray(value) for value in keras.tree.flatten(received)]
    return all(np.isfinite(v).all() for v in flat if v.dtype.kind in "fc")


def same(expected, received, tolerance):
    """Returns whether two outputs are equal."""
    try:
        refuse_unlike(expected, received, tolerance)
    except Wrong:
        return False
    return True
