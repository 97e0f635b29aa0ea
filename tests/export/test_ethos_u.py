"""Tests files for Ethos-U NPUs and Vela's estimates."""

import importlib.util
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from export_networks import prune

import tf_gems
from tf_gems.export import flatbuffer
from tf_gems.export import vela
from tf_gems.export import worker
from tf_gems.export.ethos_u import without_zeros

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")

layers = keras.layers
random = np.random.default_rng(0)
needs_vela = pytest.mark.skipif(
    importlib.util.find_spec("ethosu") is None,
    reason="needs Vela: `pip install tf_gems[ethos-u]`",
)


def network():
    x = inputs = keras.Input((64,), name="pixels")
    x = layers.Dense(256, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(32)(x))


def data():
    return random.normal(size=(40, 64)).astype("float32")


def operators(path):
    file = flatbuffer.read(path.read_bytes())
    return [
        flatbuffer.operator_name(file, operator)
        for operator in file.subgraphs[0].operators
    ]


@pytest.mark.parametrize(
    "module, name, place",
    [
        (worker, "convert", 0),
        pytest.param(vela, "compile_for_npu", 2, marks=needs_vela),
    ],
)
def test_next_export_removes_leftovers_of_killed_export(
    module, name, place, tmp_path, monkeypatch
):
    step = getattr(module, name)

    def killed_here(*arguments):
        # A copy of the working directory whose lock is not held.
        folder = Path(arguments[place]).parent
        left = folder.with_name(".m.tflite.partial-0123456789ab")
        shutil.copytree(folder, left)
        left.with_name(f"{left.name}.lock").touch()
        monkeypatch.setattr(module, name, step)
        return step(*arguments)

    monkeypatch.setattr(module, name, killed_here)
    x = data()
    written = {"m.tflite"}
    if module is vela:
        tf_gems.export_ethos_u(network(), tmp_path / "m.tflite", x)
        written.add("m_vela.tflite")
    else:
        tf_gems.export_litert(network(), tmp_path / "m.tflite")
    assert set(os.listdir(tmp_path)) == written


@needs_vela
def test_file_and_estimates(tmp_path):
    sparse, _ = prune(network(), 0.95)
    x = data()
    report = tf_gems.export_ethos_u(
        sparse, tmp_path / "m.tflite", x, "ethos-u55-64"
    )
    assert sorted(os.listdir(tmp_path)) == ["m.tflite", "m_vela.tflite"]
    assert operators(tmp_path / "m.tflite") == 2 * ["FULLY_CONNECTED"]
    assert operators(tmp_path / "m_vela.tflite") == ["CUSTOM"]
    assert report.export.bytes == (tmp_path / "m.tflite").stat().st_size
    compiled = (tmp_path / "m_vela.tflite").stat().st_size
    assert report.compiled_bytes == compiled < report.export.bytes
    estimate, dense = report.estimate, report.dense
    assert estimate.npu_operators == dense.npu_operators == 2
    assert estimate.npu_share == 1.0
    # About one byte per weight, and almost nothing per zero.
    count = 64 * 256 + 256 * 32
    assert 0.8 * count < dense.weight_bytes < 1.2 * count
    assert estimate.weight_bytes < 0.3 * dense.weight_bytes
    assert estimate.cycles < dense.cycles
    text = str(report)
    assert "Estimates of Vela" in text and "not measurements" in text
    assert f"{dense.cycles:,}" in text
    assert report.to_dict()["dense"]["weight_bytes"] == dense.weight_bytes


@needs_vela
def test_vela_failure_writes_nothing(tmp_path, monkeypatch):
    sparse, _ = prune(network(), 0.95)
    # An accelerator that Vela itself refuses.
    monkeypatch.setattr(vela, "ACCELERATORS", ("ethos-u55-7",))
    with pytest.raises(RuntimeError, match="'ethos-u55-7', for which Vela"):
        tf_gems.export_ethos_u(
            sparse, tmp_path / "m.tflite", data(), "ethos-u55-7"
        )
    assert not os.listdir(tmp_path)


def test_dense_estimate_has_no_zeros(tmp_path):
    sparse, _ = prune(network(), 0.95)
    path = tmp_path / "m.tflite"
    tf_gems.export_litert(
        sparse,
        path,
        form="int8",
        representative_data=data(),
        io="int8",
        sparse=False,
    )
    pair = []
    for content in (path.read_bytes(), without_zeros(path.read_bytes())):
        file = flatbuffer.read(content)
        pair.append([w.value for w in flatbuffer.weights(file)])
    for value, filled in zip(*pair, strict=True):
        assert (filled != 0).all()
        np.testing.assert_array_equal(filled[value != 0], value[value != 0])


def test_refusals(tmp_path, monkeypatch):
    sparse, _ = prune(network(), 0.95)
    path = tmp_path / "m.tflite"
    with pytest.raises(ValueError, match="accelerator='u55'"):
        tf_gems.export_ethos_u(sparse, path, data(), "u55")
    with pytest.raises(ValueError, match="representative_data=None"):
        tf_gems.export_ethos_u(sparse, path, None)
    with pytest.raises(ValueError, match="end in '.tflite'"):
        tf_gems.export_ethos_u(sparse, tmp_path / "m.bin", data())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"tf_gems\[ethos-u\]"):
        tf_gems.export_ethos_u(sparse, path, data())
    assert not os.listdir(tmp_path)
