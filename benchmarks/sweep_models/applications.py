"""Every network of `keras.applications`, at its smallest input size."""

import functools
import inspect

import keras

from sweep_models.case import Case
from sweep_models.case import Problem
from sweep_models.case import integers
from sweep_models.case import uniform

# Smallest input size that the constructor accepts, if it is not 32, or at which
# the deepest networks do not compute NaN in Keras itself.
_SIZES = {
    "InceptionV3": 75,
    "InceptionResNetV2": 75,
    "Xception": 71,
    "EfficientNetB7": 64,
    "EfficientNetV2M": 64,
    "EfficientNetV2L": 64,
}


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
        # Statistics of two images of one pixel each make gradients explode.
        optimizer=functools.partial(
            keras.optimizers.SGD, 0.01, global_clipnorm=1.0
        ),
    )


CASES = [
    Case("applications", name, functools.partial(build, name))
    for name in networks()
]
