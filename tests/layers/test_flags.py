import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

from tf_gems.layers.flags import Flags

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, max_side=7)


def flags_of(shape):
    return Flags(keras.layers.Layer(), "flags", shape)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.data())
def test_assign_and_read_round_trip(shape, data):
    values = data.draw(hnp.arrays(bool, shape))
    flags = flags_of(shape)
    assert np.asarray(flags).all(), "some flags are initially false"
    flags.assign(values)
    np.testing.assert_array_equal(ops.convert_to_numpy(flags), values)
    np.testing.assert_array_equal(ops.convert_to_numpy(flags.read()), values)
    # One bit per flag, starting with the lowest bit, plane by plane.
    packed = ops.convert_to_numpy(flags.packed)
    assert packed.nbytes == 4 * math.ceil(values.size / 32)
    for place, value in enumerate(values.ravel()):
        plane, word = divmod(place, packed.size)
        assert packed[word] >> plane & 1 == value


def test_compiled_functions_read_current_flags():
    flags = flags_of((3, 5))
    values = np.arange(15).reshape(3, 5) % 4 > 1
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        count = tf.function(lambda: tf.math.count_nonzero(flags.read()))
        assert count() == 15
        flags.assign(ops.convert_to_tensor(values))
        assert count() == values.sum()
    flags.assign(ops.cast(values, "float32"))
    np.testing.assert_array_equal(np.asarray(flags, "float32"), values)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape=\(5, 3\) for '.*' of \(3, 5"):
        flags_of((3, 5)).assign(np.ones((5, 3), bool))
