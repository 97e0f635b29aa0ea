"""A network without what makes it nonlinear."""

import contextlib

import keras
from keras import layers

_LEFT_OUT = (
    layers.BatchNormalization,
    layers.ELU,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.LeakyReLU,
    layers.PReLU,
    layers.RMSNormalization,
    layers.ReLU,
    layers.Softmax,
    layers.UnitNormalization,
)
_ACTIVATIONS = ("activation", "recurrent_activation")


class _InFloat64(keras.DTypePolicy):
    """Float32 weights, float64 computation."""

    @property
    def compute_dtype(self):
        return "float64"


@contextlib.contextmanager
def linear(model):
    """Leaves out activations and normalisation, and computes in float64.

    Within this context the layers of the model return their inputs in place
    of normalising or rectifying them. Afterwards they are what they were.

    Args:
        model: Keras model.
    """
    policy = _InFloat64("float32")
    before = []
    try:
        for layer in model._flatten_layers():
            # Not by `setattr`: a layer that is built takes no new state.
            attributes = vars(layer)
            new = {name: _same for name in _ACTIVATIONS if name in attributes}
            new["_dtype_policy"] = policy
            if isinstance(layer, _LEFT_OUT):
                new["call"] = _same
            old = {name: attributes[name] for name in new if name in attributes}
            before.append((attributes, old, new))
            attributes.update(new)
        yield
    finally:
        for attributes, old, new in reversed(before):
            for name in new:
                del attributes[name]
            attributes.update(old)


def _same(inputs, *args, **kwargs):
    return inputs
