import keras
import numpy as np
import pytest
from keras import ops

from tf_gems.layers import RoundMask
from tf_gems.layers import TopKMask
from tf_gems.layers import straight_through

SCORES = np.array([-3.0, -0.0, 0.0, 0.5, 0.50001, 1.0, 7.0], "float32")
UPSTREAM = np.array([0.1, -0.3, 1e-30, 1e30, 0.7, -5.0, 1 / 3], "float32")


def mask_and_gradient(function, scores, upstream, compiled):
    """Returns the masks, and the gradient of `sum(masks * upstream)`."""

    def weighted(p):
        mask = function(p)
        return ops.sum(mask * upstream), mask

    if keras.backend.backend() == "jax":
        import jax

        run = jax.value_and_grad(weighted, has_aux=True)
        (_, mask), gradient = (jax.jit(run) if compiled else run)(scores)
        return np.asarray(mask), np.asarray(gradient)

    import tensorflow as tf

    def run(p):
        with tf.GradientTape() as tape:
            tape.watch(p)
            total, mask = weighted(p)
        return mask, tape.gradient(total, p)

    if compiled:
        run = tf.function(run, jit_compile=compiled == "xla")
    mask, gradient = run(tf.constant(scores))
    return mask.numpy(), gradient.numpy()


MASKS = {
    "straight_through": lambda p: straight_through(
        p, ops.cast(p > 0.5, "float32")
    ),
    "round": lambda p: RoundMask()([p])[0],
    "top_k": lambda p: TopKMask(sparsity=4 / 7)([p])[0],
}


@pytest.mark.parametrize("compiled", [False, "graph", "xla"])
@pytest.mark.parametrize("name", MASKS)
def test_forward_is_exact_and_gradient_is_upstream(name, compiled):
    mask, gradient = mask_and_gradient(MASKS[name], SCORES, UPSTREAM, compiled)
    # The three largest exceed one half, so all rules agree.
    np.testing.assert_array_equal(mask, [0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(gradient, UPSTREAM)
