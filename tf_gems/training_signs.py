"""Whether a model seems to have been trained."""

import keras
import numpy as np
from keras import ops

from tf_gems import _keras

_CONSTANT = (
    keras.initializers.Constant,
    keras.initializers.Ones,
    keras.initializers.Zeros,
)


def sign_of_training(model):
    """Returns how it shows that a model was trained, or `None`.

    There are two signs: an optimizer that has taken steps, and weights that
    started from a constant and have changed, such as biases and the statistics
    of normalization. A network without such weights that was loaded from a
    file cannot be told from a new one.

    Returns:
        String that ends a sentence, such as `"its optimizer has taken 100
        steps"`; `None` if nothing shows.

    Example:

    >>> top = keras.layers.Dense(2, name="top")
    >>> model = keras.Sequential([keras.Input((3,)), top], name="net")
    >>> sign_of_training(model)
    >>> _ = top.bias.assign([0.1, -0.2])
    >>> sign_of_training(model)
    "'net/top/bias' no longer has the initial values of its layer"
    """
    for part in _keras.flatten_layers(model):
        optimizer = getattr(part, "optimizer", None)
        steps = getattr(optimizer, "iterations", None)
        if steps is not None and int(ops.convert_to_numpy(steps)):
            steps = int(ops.convert_to_numpy(steps))
            return f"its optimizer has taken {steps:,} steps"
    for part in _keras.flatten_layers(model):
        for variable, initializer in _begun_constant(part):
            first = initializer(tuple(variable.shape), dtype=variable.dtype)
            if not np.array_equal(
                ops.convert_to_numpy(variable), ops.convert_to_numpy(first)
            ):
                return (
                    f"'{variable.path}' no longer has the initial values "
                    "of its layer"
                )
    return None


def _begun_constant(layer):
    """Yields the weights that a layer begins with a constant.

    Keras' layers keep the initializer of a weight `bias` as
    `bias_initializer`.
    """
    if getattr(layer, "unit_forget_bias", False):
        return  # whose bias is not all that its initializer says
    own = _keras.own_variables(layer)
    for variable in own:
        initializer = getattr(layer, f"{variable.name}_initializer", None)
        if isinstance(initializer, _CONSTANT) and len(variable.shape):
            yield variable, initializer
