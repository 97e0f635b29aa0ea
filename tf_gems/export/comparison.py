"""Runs what was exported beside the Keras model."""

import dataclasses

import keras
import numpy as np

_UNKNOWN_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How far two sets of outputs differ.

    Args:
        difference: Float, the largest absolute difference.
        magnitude: Float, the largest absolute output.
    """

    difference: float
    magnitude: float

    def within(self, tolerance):
        """Whether the outputs differ by no more than that share."""
        return self.difference <= tolerance * self.magnitude

    def refuse_above(self, tolerance, what):
        """Raises an error if the outputs differ too much, or are NaN."""
        if self.within(tolerance):
            return
        raise RuntimeError(
            "An export must compute what the Keras model computes. Received: "
            f"{what} whose outputs differ by {self.difference:.3g}, where "
            f"the largest is {self.magnitude:.3g}; tolerance={tolerance:g}. "
            "Nothing was written. If the model is that sensitive to "
            "rounding, raise `tolerance`; if `inputs` were random, pass real "
            "ones."
        )


def doubts(batches):
    """Returns sentences on what a comparison of outputs could not see.

    Args:
        batches: List of structures of arrays, the outputs of a Keras model.
    """
    flat = [keras.tree.flatten(outputs) for outputs in batches]
    for output in zip(*flat, strict=True):
        values = np.concatenate(
            [keras.ops.convert_to_numpy(value) for value in output]
        )
        spread = np.ptp(values, axis=0).max(initial=0.0)
        if spread > 1e-3 * np.abs(values).max(initial=0.0):
            return []
    return [
        "The outputs hardly depend on the inputs that were tried, so the "
        "comparison says little. Pass real `inputs`, several of them."
    ]


def example_inputs(signature, batch_size):
    """Returns inputs for a signature, the same ones each time.

    Floats are standard normal. Integers are 0 or 1, which any embedding or
    table has.

    Args:
        signature: Structure of `keras.InputSpec`.
        batch_size: Integer.
    """
    random = np.random.default_rng(0)

    def example(spec):
        shape = [size or _UNKNOWN_SIZE for size in spec.shape]
        shape[0] = batch_size
        if "float" in spec.dtype:
            return random.normal(size=shape).astype(spec.dtype)
        return random.integers(0, 2, shape).astype(spec.dtype)

    return keras.tree.map_structure(example, signature)


def compare(expected, received):
    """Compares the outputs of a Keras model with those of an export.

    Args:
        expected: Structure of arrays.
        received: Dict from names to arrays: the keys of a dict, or
            `"output_0"` and so on.

    Returns:
        `Comparison`. Its difference is infinite if an output is missing, is of
        another shape, or holds a NaN or infinity that Keras does not.
    """
    differences, magnitudes = [], []
    for name, value in named_outputs(expected).items():
        value = np.asarray(keras.ops.convert_to_numpy(value), "float64")
        other = np.asarray(received.get(name, np.nan), "float64")
        magnitudes.append(np.abs(value).max(initial=0.0))
        same_shape = value.shape == other.shape
        if same_shape and np.array_equal(value, other, equal_nan=True):
            differences.append(0.0)
        elif same_shape and np.isfinite(other).all():
            differences.append(np.abs(value - other).max())
        else:
            differences.append(np.inf)
    return Comparison(float(max(differences)), float(max(magnitudes)))


def worst(comparisons):
    """Returns the largest difference and magnitude of several comparisons."""
    return Comparison(
        max(c.difference for c in comparisons),
        max(c.magnitude for c in comparisons),
    )


def named_inputs(signature, inputs):
    """Returns inputs by the names that their signature gives them."""
    specs = keras.tree.flatten(signature)
    values = keras.tree.flatten(inputs)
    return {
        spec.name: np.asarray(value, spec.dtype)
        for spec, value in zip(specs, values, strict=True)
    }


def named_outputs(outputs):
    """Returns outputs by name: a dict's keys, or `"output_0"` and so on."""
    if isinstance(outputs, dict):
        return outputs
    flat = keras.tree.flatten(outputs)
    return {f"output_{i}": value for i, value in enumerate(flat)}
