"""Tests calls in a TensorFlow graph, where weights cannot be read."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_gems as gems

X = np.ones((4, 3), "float32")


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="needs TensorFlow graphs"
)
@pytest.mark.parametrize(
    "call",
    [
        lambda m, path: gems.export_litert(m, path / "m.tflite"),
        lambda m, path: gems.export_saved_model(m, path / "m"),
        lambda m, path: gems.deployment_report(m, path / "m", (X, None)),
        lambda m, path: gems.SparseModel(m),
        lambda m, path: gems.QuantizationAwareModel(m, X),
        lambda m, path: gems.compact(m),
        lambda m, path: gems.methods.Magnitude(0.5).find(m),
        lambda m, path: gems.recalibrate_batch_norm(m, X),
    ],
)
def test_calls_within_tensorflow_graph_are_refused(call, tmp_path):
    import tensorflow as tf

    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    before = model.get_weights()
    with (
        tf.Graph().as_default(),
        pytest.raises(RuntimeError, match=r"Received: .*tf\.Graph"),
    ):
        call(model, tmp_path)
    assert not list(tmp_path.iterdir())
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
