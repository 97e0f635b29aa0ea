"""Runs short trainings eagerly, since compiling takes longer."""

import contextlib

import keras


@contextlib.contextmanager
def run_eagerly():
    """Runs TensorFlow functions eagerly within the context."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
