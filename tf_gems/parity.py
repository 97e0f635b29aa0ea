"""Compares what was made of a model with the model, output by output."""

import dataclasses

import numpy as np

from tf_gems import _keras

# Smaller outputs are compared at this fraction of the largest one, as their
# rounding errors have the magnitude of the terms that were added.
_LEAST_SHARE = 1e-3
# Processors, XNNPACK and TensorFlow differ in whether they round floats to
# zero that are smaller than the smallest normal one.
_SMALLEST_NORMAL = float(np.finfo("float32").tiny)
# A few units in the last of 11 or 8 bits, each layer adding its own.
_HALF = {"float16": 1e-2, "bfloat16": 5e-2}


@dataclasses.dataclass(frozen=True)
class Parity:
    """The difference of the output that differs most.

    Each output is compared on its own scale, so a small output beside a large
    one is not lost. Floats and complex numbers differ by the largest absolute
    difference. For integers, booleans and strings the difference is the
    fraction of wrong values, with a magnitude of 1.

    Args:
        difference: Float, the largest absolute difference; infinite if an
            output is missing, has another shape or is not finite.
        magnitude: Float, the largest absolute value of the same output.
        output: String, its name.
    """

    difference: float
    magnitude: float
    output: str

    @property
    def share(self):
        """The difference as a fraction of the magnitude."""
        if not np.isfinite(self.difference):
            return np.inf
        if self.difference <= _SMALLEST_NORMAL:
            return 0.0
        return self.difference / self.magnitude if self.magnitude else np.inf

    def within(self, tolerance):
        """Whether the outputs differ by no more than that share."""
        return bool(self.share <= tolerance)

    def refuse_above(self, tolerance, what, remedy=None):
        """Raises an error if the outputs differ too much.

        Args:
            tolerance: Float, the largest share that is accepted.
            what: String, what was compared.
            remedy: String, for outputs that differ. Defaults to `None`: the
                usual ones.
        """
        if self.within(tolerance):
            return
        received = (
            f"whose output '{self.output}' differs by {self.difference:.3g}, "
            f"where the largest is {self.magnitude:.3g}"
        )
        remedy = remedy or (
            "If the model is very sensitive to rounding, raise `tolerance`. "
            "If `inputs` were random, pass real ones."
        )
        if not np.isfinite(self.difference):
            received = (
                f"whose output '{self.output}' is missing, has another shape "
                "or is not finite"
            )
            remedy = "If `inputs` contain NaN or infinite values, remove them."
        raise RuntimeError(
            "The outputs of an export must equal those of the Keras model. "
            f"Received: {what}, {received}; tolerance={tolerance:g}. Nothing "
            f"was written. {remedy}"
        )


def half_tolerance(model, dtype=None):
    """Returns the share by which outputs may differ in 16 bits, 0 in float32.

    The type is the one that the model computes in if none is given.
    """
    types = {part.compute_dtype for part in _keras.flatten_layers(model)}
    return max(_HALF.get(name, 0.0) for name in ({dtype} if dtype else types))


def measure_parity(expected, received):
    """Returns the `Parity` of dicts from the names of outputs to arrays."""
    expected = {name: np.asarray(value) for name, value in expected.items()}
    scale = max(
        (np.abs(x).max(initial=0) for x in expected.values() if _is_inexact(x)),
        default=0,
    )
    found = []
    for name, value in expected.items():
        difference, magnitude = np.inf, 1.0
        other = received.get(name)
        if other is None or np.shape(other) != value.shape:
            pass
        elif not _is_inexact(value):
            difference = _wrong(value, np.asarray(other))
        else:
            kind = "complex128" if value.dtype.kind == "c" else "float64"
            value, other = value.astype(kind), np.asarray(other).astype(kind)
            if np.isfinite(other).all() and np.isfinite(value).all():
                difference = np.abs(value - other).max(initial=0)
            least = _LEAST_SHARE * float(scale)
            magnitude = max(np.abs(value).max(initial=0), least)
        found.append(Parity(float(difference), float(magnitude), name))
    return worst(found)


def measure_batches(expected, received):
    """Returns the worst `Parity` of lists of dicts, see `measure_parity`."""
    return worst(
        measure_parity(ours, theirs)
        for ours, theirs in zip(expected, received, strict=True)
    )


def worst(parities):
    """Returns the `Parity` that differs most."""
    return max(parities, key=lambda c: (c.share, c.magnitude))


def refuse_non_finite(batches, name):
    """Raises an error if the model of a name computes NaN or infinities."""
    for outputs in batches:
        if not outputs:
            raise ValueError(
                "A model must return a tensor to be exported. Received: "
                f"'{name}', whose call returns no tensor."
            )
        for output, value in outputs.items():
            value = np.asarray(value)
            if _is_inexact(value) and not np.isfinite(value).all():
                raise ValueError(
                    "Outputs are compared where they are finite. Received: "
                    f"output '{output}' of '{name}', which holds NaN or "
                    "infinite values. Check the inputs and the layers that "
                    "divide, take logarithms or mask; a mask may add -1e9 "
                    "instead of minus infinity."
                )


def doubts(batches):
    """Returns sentences on what a comparison of outputs cannot detect."""
    for name in batches[0]:
        if _varies([np.asarray(outputs[name]) for outputs in batches]):
            return []
    return [
        "The outputs hardly depend on the inputs that were used, so the "
        "comparison has little meaning. Pass several real `inputs`."
    ]


def _varies(values):
    """Whether an output differs between examples.

    The rows of an output are the examples of the batch, unless the first axis
    is not a batch. Then batches of equal shapes are compared as a whole.
    """
    rows = []
    for value in values:
        if len({v.shape for v in values}) == 1 and len(values) > 1:
            rows.append(value[None])
        elif value.ndim and len(value) > 1:
            rows.append(value)
            break
    if not rows:
        return False
    rows = np.concatenate(rows)
    if not _is_inexact(rows):
        return bool((rows != rows[:1]).any())
    if rows.dtype.kind == "c":
        rows = np.abs(rows)
    rows = rows.astype("float64")
    spread = np.ptp(rows, axis=0).max(initial=0.0)
    return bool(spread > 1e-3 * np.abs(rows).max(initial=0.0))


def _is_inexact(value):
    """Whether values are floats, of 16 bits and less too, or complex."""
    dtype = np.asarray(value).dtype
    return dtype.kind in "fc" or "float" in dtype.name


def _wrong(value, other):
    """Returns the share of values that differ, of text or integers."""
    if value.dtype.kind in "OSU":
        value, other = _text(value), _text(other)
    return float(np.mean(value != other)) if value.size else 0.0


def _text(value):
    text = [x.encode() if isinstance(x, str) else x for x in value.ravel()]
    return np.array(text, object)
