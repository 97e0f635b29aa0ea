"""The forms in which a TFLite file can hold its weights."""

import dataclasses

from tf_gems.validation import check_choice


@dataclasses.dataclass(frozen=True)
class Form:
    """How weights are stored, and how exact that is.

    Args:
        name: String.
        tolerance: Float, the largest difference to the outputs of Keras that
            is accepted, as a fraction of the largest output.
        sparse_tolerance: Float, the same for a file with sparse weights
            beside the one with dense weights. Both compute the same, but for
            the order of sums.
        alternative: String, the form to try if this one cannot run, or
            `None`.
    """

    name: str
    tolerance: float
    sparse_tolerance: float
    alternative: str | None


FORMS = {
    form.name: form
    for form in (
        Form("float32", 1e-4, 1e-5, None),
        Form("float16", 1e-2, 1e-4, "float32"),
        Form("dynamic_int8", 1e-1, 1e-2, "float16"),
        Form("int8", 1e-1, 1e-2, "dynamic_int8"),
    )
}


def get(name):
    """Returns the form of a name."""
    check_choice(name, "form", tuple(FORMS))
    return FORMS[name]
