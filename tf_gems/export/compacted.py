"""Exports of a model without the channels that its zeros have cut off."""

from tf_gems.compaction import compact
from tf_gems.compaction.graph import is_graph

# Examples on which both models are compared, before the file is.
_EXAMPLES = 4


def compacted(plain, signature, given):
    """Returns the compact model and its report, see `tf_gems.compact`.

    Args:
        plain: Keras model, its kernels masked.
        signature: `Signature` of its inputs.
        given: Flat list of arrays, inputs of the model.

    Raises:
        RuntimeError: If it computes something else.
        ValueError: If the graph of the model is not known.
    """
    import tensorflow as tf

    if signature.is_batched(given):
        given = [x[: signature.batch_size or _EXAMPLES] for x in given]
    tensors = [
        tf.constant(value, spec.dtype)  # Keras takes no objects for strings
        for value, spec in zip(given, signature.specs, strict=True)
    ]
    [inputs] = signature.pack(tensors)
    return compact(plain, inputs)


def refuse_if_unknown(model):
    """Refuses `compact=True` for a model whose graph is not known.

    Args:
        model: The user's own Keras model.
    """
    if not is_graph(model):
        raise ValueError(
            "`compact=True` follows the graph of a built `keras.Sequential` "
            f"or functional model. Received: compact=True, model="
            f"'{model.name}' of type {type(model).__name__}. Leave "
            "`compact=True` out."
        )
