import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_gems.layers import TopKMask

# Few distinct values with many ties, or any normal floats.
piles = st.sampled_from(
    [0.0, -0.0, 1.0, 0.5, -2.0, math.inf, -math.inf, 3e38, -1e-30]
)
floats = st.floats(width=32, allow_nan=False, allow_subnormal=False)
arrays = st.one_of(
    hnp.arrays("float32", (2, 7), elements=piles),
    hnp.arrays("float32", (2, 7), elements=floats),
)


def largest(scores, count, alive):
    """Returns the mask from a stable sort, so that ties keep their order."""
    order = np.argsort(-np.ravel(scores), kind="stable")
    order = order[np.ravel(alive)[order]][:count]
    mask = np.zeros(np.size(scores), "float32")
    mask[order] = 1.0
    return mask


def compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


def apply(mask, scores, alive, wrap=lambda function: function):
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, scores)
    flags = keras.tree.map_structure(keras.ops.convert_to_tensor, alive)
    masks = wrap(lambda p, a: mask(p, a))(tensors, flags)
    return [keras.ops.convert_to_numpy(m) for m in masks]


@settings(max_examples=60, deadline=None)
@given(
    first=arrays,
    second=arrays,
    alive=hnp.arrays("bool", (2, 2, 7)),
    sparsity=st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.999]),
)
def test_matches_stable_sort(first, second, alive, sparsity):
    alive = list(alive)
    together = apply(TopKMask(sparsity), [first, second], alive)
    expected = largest(
        np.stack([first, second]), round((1 - sparsity) * 28), np.stack(alive)
    )
    np.testing.assert_array_equal(np.ravel(together), expected)

    apart = apply(TopKMask(sparsity, "layerwise"), [first, second], alive)
    for scores, flags, mask in zip([first, second], alive, apart, strict=True):
        count = round((1 - sparsity) * 14)
        np.testing.assert_array_equal(
            np.ravel(mask), largest(scores, count, flags)
        )


@pytest.mark.parametrize(
    "shape, scope",
    [((1,), "global"), ((3, 5, 7), "global"), ((8,), "layerwise")],
)
def test_compiled_result_is_equal(shape, scope):
    generator = np.random.default_rng(0)
    pile = [0.0, -0.0, 1.0, -math.inf, math.inf, 1e-30, -0.3]
    scores = [
        generator.choice(np.array(pile, "float32"), shape) for _ in range(2)
    ]
    alive = [generator.uniform(size=shape) < 0.8 for _ in range(2)]
    mask = TopKMask(0.6, scope)
    for eager, jitted in zip(
        apply(mask, scores, alive),
        apply(mask, scores, alive, compiled),
        strict=True,
    ):
        np.testing.assert_array_equal(eager, jitted)
    if scope == "global":
        count = round(0.4 * 2 * math.prod(shape))
        expected = largest(np.stack(scores), count, np.stack(alive))
        np.testing.assert_array_equal(np.ravel(eager), expected[-eager.size :])


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, math.inf, -math.inf])
def test_ties_are_broken_by_position(value):
    scores = [np.full((3, 3), value, "float32"), np.full(7, value, "float32")]
    alive = [np.ones((3, 3), bool), np.ones(7, bool)]
    masks = apply(TopKMask(sparsity=0.25), scores, alive)
    joined = np.concatenate([np.ravel(m) for m in masks])
    assert joined.tolist() == [1] * 12 + [0] * 4


def test_fewer_alive_weights_than_count():
    scores = [np.array([5.0, 4.0, 3.0, 2.0], "float32")]
    alive = [np.array([False, False, False, True])]
    [mask] = apply(TopKMask(sparsity=0.5), scores, alive)
    assert mask.tolist() == [0, 0, 0, 1]


def test_config_round_trip():
    mask = TopKMask(0.9, scope="layerwise")
    config = keras.saving.serialize_keras_object(mask)
    restored = keras.saving.deserialize_keras_object(config)
    assert restored.get_config() == {
        "sparsity": 0.9,
        "scope": "layerwise",
        "magnitude": False,
    }


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="fraction of zeros.*mean 0.98"):
        TopKMask(sparsity=98)
    with pytest.raises(ValueError, match="scope.*Did you mean 'global'"):
        TopKMask(sparsity=0.5, scope="globl")
