"""Every network of `keras.applications`, at its smallest input."""

import functools
import inspect

import keras

from sweep_models.case import Case
from sweep_models.case import Problem
from sweep_models.case import integers
from sweep_models.case import uniform

# The smallest input that the constructor takes, where it is not 32.
_SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
# Keras itself computes NaN for these at 0.01, which the others are trained at.
_RATES = {"EfficientNetB7": 1e-4, "EfficientNetV2L": 1e-4}


def networks():
    """Returns the constructors by name."""
    found = vars(keras.applications).items()
    return {
        name: value
        for name, value in found
        if inspect.isfunction(value) and name[0].isupper()
    }


def build(name):
    """Returns the problem of a network with random weights."""
    size = _SIZES.get(name, 32)
    options = {"include_top": True, "classes": 5}
    if name == "MobileNet":
        options["alpha"] = 0.5
    constructor = networks()[name]
    if "classifier_activation" in inspect.signature(constructor).parameters:
        options["classifier_activation"] = None
    model = constructor(weights=None, input_shape=(size, size, 3), **options)
    x = 255 * uniform(4, size, size, 3)
    return Problem(
        model,
        x.astype("float32"),
        integers(5, 4),
        batch_size=2,
        sparsity=0.5,
        # Statistics of two pictures of a pixel each make gradients explode.
        optimizer=functools.partial(
            keras.optimizers.SGD, _RATES.get(name, 0.01), global_clipnorm=1.0
        ),
    )


CASES = [
    Case("applications", name, functools.partial(build, name))
    for name in networks()
]
