"""The outputs of networks, by name."""

import keras
import numpy as np


def name_outputs(outputs):
    """Returns a dict from names to the outputs of any structure.

    The keys of a flat dict are its names. Otherwise they are `"output_0"`
    and so on; deeper structures give the keys on the way, joined by `"_"`.
    Outputs that are `None` are left out.
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


def as_dense(value):
    """Returns a tensor without ragged or sparse axes."""
    import tensorflow as tf

    if isinstance(value, tf.SparseTensor):
        return tf.sparse.to_dense(value)
    if isinstance(value, tf.RaggedTensor):
        return value.to_tensor()
    return value


def as_array(value):
    """Returns a tensor's values as a dense array; strings as objects."""
    value = as_dense(value)
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)
