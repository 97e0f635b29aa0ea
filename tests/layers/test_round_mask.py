import keras
import numpy as np
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_gems.layers import RoundMask

floats = st.floats(width=32, allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(scores=hnp.arrays("float32", (3, 4), elements=floats))
def test_keeps_scores_above_one_half(scores):
    [mask] = RoundMask()([keras.ops.convert_to_tensor(scores)])
    mask = keras.ops.convert_to_numpy(mask)
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, np.where(scores > 0.5, 1.0, 0.0))


def test_one_half_rounds_down():
    half = np.float32(0.5)
    scores = [np.nextafter(half, 0), half, np.nextafter(half, 1)]
    [mask] = RoundMask()([keras.ops.convert_to_tensor(scores, "float32")])
    assert keras.ops.convert_to_numpy(mask).tolist() == [0, 0, 1]


def test_threshold_config_round_trip():
    mask = RoundMask(threshold=0.2)
    config = keras.saving.serialize_keras_object(mask)
    restored = keras.saving.deserialize_keras_object(config)
    assert type(restored) is RoundMask
    assert restored.get_config() == {"threshold": 0.2}
    [kept] = restored([keras.ops.convert_to_tensor([0.1, 0.3])])
    assert keras.ops.convert_to_numpy(kept).tolist() == [0, 1]
