"""Tests files for microcontrollers with the TFLite Micro runtime."""

import importlib.util
import os

import keras
import numpy as np
import pytest
from export_networks import prune
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import tf_gems
from tf_gems.export.decode_operator import encode

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")

layers = keras.layers
random = np.random.default_rng(0)
needs_runtime = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="needs TensorFlow Lite Micro: `pip install tf_gems[micro]`",
)


def network():
    """Kernels of all decoded kinds, with scales along both axes."""
    x = inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = layers.DepthwiseConv2D(5, padding="same", activation="relu6")(x)
    x = layers.Conv2D(48, 1, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(40)(x))


def data():
    return random.normal(size=(12, 12, 12, 3)).astype("float32")


def invoke(path, x):
    """Runs one example with the runtime. Returns the integer outputs."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(f"{path}", arena_size=4_000_000)
    detail = interpreter.get_input_details(0)["quantization_parameters"]
    integers = np.round(x / detail["scales"]) + detail["zero_points"]
    interpreter.set_input(np.clip(integers, -128, 127).astype("int8"), 0)
    interpreter.invoke()
    detail = interpreter.get_output_details(0)["quantization_parameters"]
    return interpreter.get_output(0), detail


@needs_runtime
def test_runtime_outputs_match_keras(tmp_path):
    sparse, _ = prune(network(), 0.9)
    x = data()
    paths = [tmp_path / f"{name}.tflite" for name in ("plain", "micro")]
    settings = {"representative_data": x, "tolerance": 0.2}
    tf_gems.export_litert(
        sparse, paths[0], form="int8", io="int8", sparse=False, **settings
    )
    report = tf_gems.export_micro(sparse, paths[1], **settings)
    assert sorted(os.listdir(tmp_path)) == ["micro.tflite", "plain.tflite"]
    assert {row["encoding"] for row in report.tensors} == {"sparse"}
    for row in report.tensors:
        count = np.prod(row["shape"])
        kept = count - row["zeros"]
        assert row["bytes"] == -(-count // 8) + 16 + kept
    assert report.bytes == paths[1].stat().st_size < report.dense_bytes
    assert report.ran[0].startswith("tflite-micro")
    assert "The largest takes 1,920 bytes" in str(report)  # 48 * 40.
    for example in x[:3, None]:
        (one, detail), (other, _) = (invoke(path, example) for path in paths)
        np.testing.assert_array_equal(one, other)
        value = detail["scales"] * (other - detail["zero_points"].astype(int))
        expected = np.asarray(sparse(example))
        assert np.abs(value - expected).max() < 0.2 * np.abs(expected).max()


@needs_runtime
def test_dense_weights_stay_dense(tmp_path):
    sparse, _ = prune(network(), 0.05)
    report = tf_gems.export_micro(
        sparse, tmp_path / "m.tflite", data(), tolerance=0.2
    )
    assert {row["encoding"] for row in report.tensors} == {"dense"}
    assert report.bytes == report.dense_bytes


@needs_runtime
def test_unsupported_layer(tmp_path):
    x = inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(24, 3)(x)
    outputs = keras.ops.tile(x, (1, 2, 1, 1))
    sparse, _ = prune(keras.Model(inputs, outputs), 0.8)
    x = random.normal(size=(10, 8, 8, 2)).astype("float32")
    with pytest.raises(RuntimeError, match="microcontrollers does not run"):
        tf_gems.export_micro(sparse, tmp_path / "m.tflite", x)
    assert not os.listdir(tmp_path)


def decoded(mask, table, shape):
    """Decodes the constants bit by bit, as the format specifies."""
    assert list(table[:16]) == [2, 1, 0, 0, 1] + 11 * [0]
    values = iter(np.frombuffer(table[16:], "int8"))
    flat = [
        next(values) if mask[i // 8] >> (7 - i % 8) & 1 else 0
        for i in range(int(np.prod(shape)))
    ]
    assert next(values, None) is None
    return np.reshape(flat, shape)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(
    arrays.arrays(
        "int8",
        arrays.array_shapes(max_dims=4, max_side=5),
        elements=st.sampled_from([0, 0, 0, 1, -1, 127, -127]),
    )
)
def test_decoding_round_trip(value):
    mask, table = encode(value)
    assert len(mask) == -(-value.size // 8)
    np.testing.assert_array_equal(decoded(mask, table, value.shape), value)


def test_refusals(tmp_path, monkeypatch):
    sparse, _ = prune(network(), 0.9)
    path = tmp_path / "m.tflite"
    with pytest.raises(ValueError, match="representative_data=None"):
        tf_gems.export_micro(sparse, path, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"tf_gems\[micro\]"):
        tf_gems.export_micro(sparse, path, data())
    assert not os.listdir(tmp_path)
