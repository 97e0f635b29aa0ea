"""Tests float16 and 8-bit TFLite files."""

import os
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from export_networks import mobile
from export_networks import prune
from export_networks import run_alone
from export_networks import save_reference

import tf_gems
from tf_gems.export import flatbuffer
from tf_gems.export import forms
from tf_gems.export.sparsify import sparsify

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")

layers = keras.layers
random = np.random.default_rng(0)
FORMS = ("float16", "dynamic_int8", "int8")
# The weights of each network that are stored sparsely.
SPARSE = {
    ("conv", "float16"): {"conv2d", "depthwise_conv2d", "dense"},
    ("conv", "dynamic_int8"): {"depthwise_conv2d", "conv2d_transpose"},
    ("conv", "int8"): {"conv2d", "depthwise_conv2d", "conv2d_transpose"},
    ("dense", "float16"): {"dense"},
    ("dense", "dynamic_int8"): set(),
    # In blocks of 16. Not "conv", which has 24 inputs.
    ("dense", "int8"): {"dense"},
}


def convolutions():
    x = inputs = keras.Input((10, 10, 3), name="image")
    # The converter keeps weights with fewer than 1024 elements in float32.
    x = layers.Conv2D(48, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(96, 3, padding="same", activation="relu")(x)
    x = layers.DepthwiseConv2D(5, padding="same")(x)
    x = layers.Conv2DTranspose(24, 3, strides=2, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(128)(x))


def dense():
    x = inputs = keras.Input((64,), name="pixels")
    x = layers.Dense(128, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(40)(x))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Each network in each format: (path, report), by network and format."""
    folder = tmp_path_factory.mktemp("forms")
    found = {}
    for name, build in [
        ("conv", convolutions),
        ("dense", dense),
        ("mobile", mobile),
        ("pooled", lambda: mobile(layers.MaxPooling2D())),
    ]:
        keras.utils.set_random_seed(0)
        sparse, _ = prune(build(), 0.95)
        [tensor] = sparse.model.inputs
        x = random.normal(size=(40, *tensor.shape[1:])).astype("float32")
        for form in FORMS:
            path = folder / f"{name}_{form}.tflite"
            report = tf_gems.export_litert(
                sparse,
                path,
                form=form,
                inputs=x,
                representative_data=x if form == "int8" else None,
            )
            save_reference(
                path, {tensor.name: x[:7]}, {"output_0": sparse(x[:7])}
            )
            found[name, form] = path, report
    return found


def check(errors, count):
    assert len(errors) == count
    for path, sizes in errors.items():
        form = Path(path).stem.split("_", 1)[1]
        assert set(sizes) == {7, 1}  # With any batch size.
        worst = max(max(e) for e in sizes.values())
        assert worst < forms.get(form).tolerance, path


def test_files_run_without_tensorflow(exported):
    check(run_alone([path for path, _ in exported.values()]), len(exported))


def test_files_are_correct_without_avx(exported):
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("needs qemu-x86_64, package qemu-user")
    command = (emulator, "-cpu", "Nehalem", sys.executable)
    env = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem"}
    paths = [path for path, _ in exported.values()]
    check(run_alone(paths, command, env), len(exported))


@pytest.mark.parametrize(("network", "form"), SPARSE)
def test_sparse_tensors_are_those_litert_supports(exported, network, form):
    path, report = exported[network, form]
    encodings = {"sparse": set(), "dense": set()}
    for tensor in report.tensors:
        kind = tensor["name"].split("/")[0].rstrip("_0123456789")
        encodings[tensor["encoding"]].add(kind)
        assert (tensor["reason"] is None) == (tensor["encoding"] == "sparse")
    assert encodings["sparse"] == SPARSE[network, form]
    assert not encodings["sparse"] & encodings["dense"]
    assert report.form == form
    assert report.bytes == path.stat().st_size <= report.dense_bytes
    assert (report.bytes < report.dense_bytes) == bool(encodings["sparse"])
    if encodings["dense"]:
        assert "LiteRT does not compute" in str(report)
    types = {t["type"] for t in report.tensors}
    assert types == {"float16" if form == "float16" else "int8"}


def test_mobile_network_is_sparse_only_where_xnnpack_is_correct(exported):
    for form in FORMS:
        garbage = {
            name: any(
                "wrong outputs" in n for n in exported[name, form][1].notes
            )
            for name in ("mobile", "pooled")
        }
        assert garbage["mobile"] == (form == "dynamic_int8")
        assert garbage["pooled"] == (form != "int8")
    _, report = exported["pooled", "float16"]
    assert {t["encoding"] for t in report.tensors} == {"dense"}
    assert report.bytes == report.dense_bytes


def test_files_fail_without_rules(exported, tmp_path):
    """The rules are necessary: each combination that they exclude fails."""
    from tf_gems.export import run_litert
    from tf_gems.export import sparsify as module

    rules = dict(module._RIGHT)
    readers = set(flatbuffer.WEIGHTS)
    for network, form in SPARSE:
        path, report = exported[network, form]
        if not any(t["encoding"] == "dense" for t in report.tensors):
            continue
        data = dict(np.load(f"{path}.npz"))
        [(key, x)] = [(k, v) for k, v in data.items() if k[:3] == "in_"]
        file = flatbuffer.read(path.read_bytes())
        try:
            module._RIGHT = dict.fromkeys(rules, readers)
            count, _ = sparsify(file, True, "size")
        finally:
            module._RIGHT = rules
        assert count
        forced = tmp_path / "forced.tflite"
        forced.write_bytes(flatbuffer.write(file))
        try:
            outputs, _ = run_litert.run_litert(str(forced), [{key[3:]: x}])
        except RuntimeError as error:
            assert "delegate" in str(error)
            continue
        value = outputs[0][0]["output_0"]
        expected = data["out_output_0"]
        worst = np.abs(value - expected).max()
        assert not worst < forms.get(form).tolerance * np.abs(expected).max()


def test_unsupported_sparse_tensors_are_stored_densely(tmp_path, monkeypatch):
    """Simulates a LiteRT that supports less than the rules assume."""
    sparse, _ = prune(dense(), 0.95)
    everything = dict.fromkeys(
        ("float32", "float16", "int8", "hybrid"), set(flatbuffer.WEIGHTS)
    )
    monkeypatch.setattr("tf_gems.export.sparsify._RIGHT", everything)
    x = random.normal(size=(8, 64)).astype("float32")
    path = tmp_path / "dense.tflite"
    report = tf_gems.export_litert(sparse, path, x, form="dynamic_int8")
    assert any("LiteRT cannot run them" in note for note in report.notes)
    assert {t["encoding"] for t in report.tensors} == {"dense"}
    assert path.stat().st_size == report.bytes == report.dense_bytes
    save_reference(path, {"pixels": x}, {"output_0": sparse(x)})
    assert max(run_alone([path])[str(path)][8]) < 0.1


def test_int8_file_uses_only_integers(tmp_path):
    """Its inputs, weights and outputs are dense 8-bit integers."""
    from ai_edge_litert.interpreter import Interpreter

    sparse, _ = prune(dense(), 0.95)
    x = random.normal(size=(40, 64)).astype("float32")
    path = tmp_path / "device.tflite"
    report = tf_gems.export_litert(
        sparse,
        path,
        x,
        form="int8",
        representative_data=x,
        batch_size=1,
        io="int8",
        sparse=False,
    )
    assert {t["encoding"] for t in report.tensors} == {"dense"}
    assert report.bytes == report.dense_bytes
    file = flatbuffer.read(path.read_bytes())
    names = {
        flatbuffer.operator_name(file, o) for o in file.subgraphs[0].operators
    }
    assert names == {"FULLY_CONNECTED"}
    runner = Interpreter(str(path)).get_signature_runner()
    [taken] = runner.get_input_details().values()
    [given] = runner.get_output_details().values()
    assert taken["dtype"] == given["dtype"] == np.int8
    assert tuple(taken["shape"]) == (1, 64)
    scale, zero = taken["quantization"]
    fed = np.clip(np.round(x[:1] / scale) + zero, -128, 127).astype("int8")
    [output] = runner(pixels=fed).values()
    scale, zero = given["quantization"]
    expected = np.asarray(sparse(x[:1]))
    error = np.abs(scale * (output.astype(float) - zero) - expected).max()
    assert error < 0.1 * np.abs(expected).max()
    with pytest.raises(ValueError, match="io='int8', form='float16'"):
        tf_gems.export_litert(sparse, path, x, form="float16", io="int8")


def test_refusals(tmp_path):
    model = dense()
    path = tmp_path / "model.tflite"
    with pytest.raises(ValueError, match="form='int4'"):
        tf_gems.export_litert(model, path, form="int4")
    with pytest.raises(ValueError, match="representative_data=None.*dynamic"):
        tf_gems.export_litert(model, path, form="int8")
    with pytest.raises(ValueError, match="optimize='latency', form='float16'"):
        tf_gems.export_litert(model, path, form="float16", optimize="latency")
    assert not os.listdir(tmp_path)
