"""The outputs of networks, by name."""

import keras
import numpy as np


def name_outputs(outputs):
    """Returns outputs of any structure by name.

    The keys of a flat dict are its names. Otherwise they are `"output_0"`
    and so on; deeper structures give the keys on the way, joined by `"_"`.

    Args:
        outputs: Structure of tensors.

    Returns:
        Dict from names to tensors, those that are `None` left out.
    """
    found = {}
    for path, value in keras.tree.flatten_with_path(outputs):
        if value is None:
            continue
        name = "_".join(map(str, path))
        if not any(isinstance(step, str) for step in path):
            name = f"output_{len(found)}"
        while name in found:
            name += "_"
        found[name] = value
    return found


def as_array(value):
    """Returns a tensor's values; strings as objects, sparse ones as dense."""
    import tensorflow as tf

    if isinstance(value, tf.SparseTensor):
        value = tf.sparse.to_dense(value)
    if isinstance(value, tf.RaggedTensor):
        value = value.to_tensor()
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)
