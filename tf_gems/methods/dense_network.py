"""The unpruned network as a function of its prunable weights."""

import contextlib

import keras

from tf_gems.network import gems_of
from tf_gems.network import prunable_weights


@contextlib.contextmanager
def weights_replaced(model, values, others=()):
    """Computes with other values, and with all masks one; changes nothing.

    Args:
        model: `SparseModel`, or Keras model that holds `GemLayer`s.
        values: List of tensors, one for each prunable weight.
        others: Pairs of a further variable and its value.
    """
    gems = gems_of(model)
    weights = prunable_weights(model)
    flags = [weight.alive for weight in weights]
    mapping = [
        *zip((w.weight for w in weights), values, strict=True),
        *((f.packed, f.all_true()) for f in flags),
        *others,
    ]
    phases = [gem.phase for gem in gems]
    for gem in gems:
        gem.phase = "finetuning"  # in which the masks are the flags alone
    before = [(v, v.trainable) for gem in gems for v in gem.layer.weights]
    try:
        for variable, _ in before:
            # Penalties on weights that do not train are no part of the loss:
            # no mask changes them.
            variable.trainable = False
        with keras.StatelessScope(mapping, collect_losses=True):
            yield
    finally:
        for variable, trainable in before:
            variable.trainable = trainable
        for gem, phase in zip(gems, phases, strict=True):
            gem.phase = phase
        model._clear_losses()
