"""Tests the process that converts and runs files."""

import keras
import numpy as np
import pytest

import tf_gems
from tf_gems.export import progress
from tf_gems.export import worker

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")


def network():
    return keras.Sequential([keras.Input((16,)), keras.layers.Dense(64)])


def test_converter_timeout(tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    with monkeypatch.context() as patched:
        # The time limit has passed when the conversion starts.
        patched.setattr(worker, "seconds_for", lambda *_: -1000)
        with pytest.raises(RuntimeError, match="seconds of processor time"):
            tf_gems.export_litert(network(), path)
    assert not list(tmp_path.iterdir())
    tf_gems.export_litert(network(), path)  # A new process is started.
    assert path.exists()


def test_text_and_numbers_round_trip(tmp_path):
    feeds = [
        {"words": np.array([["ä", "b"]], object), "x/y": np.ones((2, 3))},
        {"words": np.array([[b"long", ""]], object), "x/y": np.zeros(4)},
    ]
    worker._write_arrays(tmp_path / "a.npz", feeds)
    first, second = worker._read_arrays(tmp_path / "a.npz")
    assert first["words"].tolist() == [["ä".encode(), b"b"]]
    assert second["words"].tolist() == [[b"long", b""]]
    np.testing.assert_array_equal(first["x/y"], np.ones((2, 3)))
    assert second["x/y"].shape == (4,)


def test_long_export_prints_progress(tmp_path, monkeypatch, capfd):
    path = tmp_path / "m.tflite"
    tf_gems.export_litert(network(), path)
    monkeypatch.setattr(progress, "_SILENT_SECONDS", 0.0)
    tf_gems.export_litert(network(), path)
    lines = capfd.readouterr().err.splitlines()
    ours = [line for line in lines if line.startswith("Export of '")]
    assert any("converting it" in line for line in ours)
    assert all("m.tflite" in line for line in ours)
