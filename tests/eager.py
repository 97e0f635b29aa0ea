"""Trainings of a few steps, which take less time than compiling them."""

import contextlib

import keras


@contextlib.contextmanager
def run_eagerly():
    """Runs TensorFlow's functions eagerly within."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
