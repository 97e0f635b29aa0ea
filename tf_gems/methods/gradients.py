"""Derivatives of scalar functions, on the TensorFlow and JAX backends.

A function to differentiate takes a list of tensors, and any other arguments
after it, and returns a scalar tensor. Derivatives are with respect to the
list, and of its structure.
"""

import contextlib

import keras
from keras import ops


def gradient(function):
    """Returns the gradient of a function, as a function of the same arguments.

    Raises:
        NotImplementedError: On other backends than TensorFlow and JAX.
    """
    if _backend() == "jax":
        import jax

        return jax.grad(function)
    import tensorflow as tf

    def of_values(values, *rest):
        # Arrays arrive where `run_functions_eagerly` is on.
        values = [tf.convert_to_tensor(value) for value in values]
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = function(values, *rest)
        return tape.gradient(
            result, values, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    return of_values


def hessian_product(function):
    """Returns `(values, vector, *rest) -> H v`, with the Hessian `H`.

    It is the gradient of `g . v`, with the gradient `g` and a constant `v`:
    the cost is that of two gradients, and `H` is never formed.
    """
    first = gradient(function)

    def slope(values, vector, *rest):
        products = zip(first(values, *rest), vector, strict=True)
        return sum(ops.sum(g * v) for g, v in products)

    return gradient(slope)


def compiled(function):
    """Returns a function that is traced once for each shape of arguments."""
    if _backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, autograph=False, reduce_retracing=True)


def double_precision():
    """Returns a context in which float64 is not cut to float32."""
    if _backend() == "jax":
        import jax

        if hasattr(jax, "enable_x64"):
            return jax.enable_x64(True)
        from jax.experimental import enable_x64  # older releases

        return enable_x64()
    return contextlib.nullcontext()


def _backend():
    backend = keras.backend.backend()
    if backend not in ("jax", "tensorflow"):
        raise NotImplementedError(
            "Methods that compute gradients require the TensorFlow or JAX "
            f"backend. Received: backend='{backend}'. Set KERAS_BACKEND, or "
            'use "magnitude" or "random".'
        )
    return backend
