"""Tests that TFLite files are sparse and correct, without TensorFlow."""

import json
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
from tf_gems.export import xnnpack
from tf_gems.export.sparsify import sparsify

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema

layers = keras.layers
random = np.random.default_rng(0)


def mined_mlp():
    inputs = keras.Input((64,), name="pixels")
    x = layers.Dense(60, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(40)(x))
    sparse = tf_gems.SparseModel(model, seed=0)
    sparse.compile(keras.optimizers.SGD(0.1), "mse")
    x = random.normal(size=(32, 64)).astype("float32")
    sparse.fit(
        x,
        x[:, :40],
        epochs=4,
        verbose=0,
        callbacks=[tf_gems.GemMinerCallback(0.9, freeze_period=1)],
    )
    return sparse, sparse.ticket(masks="rounded")


def convolutions():
    x = inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    y = x = layers.ReLU()(x)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Add()([x, y])
    x = layers.SeparableConv2D(48, 3, padding="same")(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = layers.Conv2DTranspose(12, 3, strides=2)(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(48)(x))
    return prune(model)


def recurrent():
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    numbers = keras.Input((5,), name="numbers")
    x = layers.Embedding(20, 32)(tokens)
    x = layers.LSTM(24)(x)
    x = layers.Concatenate()([x, numbers])
    outputs = {"a": layers.Dense(25)(x), "b": layers.Dense(24)(x)}
    model = keras.Model({"tokens": tokens, "numbers": numbers}, outputs)
    return prune(model)


def as_dict(outputs):
    return outputs if isinstance(outputs, dict) else {"output_0": outputs}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports each network once: (sparse model, ticket, path, report)."""
    folder = tmp_path_factory.mktemp("litert")
    found = {}
    for name, build, inputs in [
        ("mlp", mined_mlp, {"pixels": random.normal(size=(7, 64))}),
        ("conv", convolutions, {"image": random.normal(size=(7, 12, 12, 3))}),
        (
            "fixed",
            recurrent,
            {
                "tokens": random.integers(0, 20, (7, 5)),
                "numbers": random.normal(size=(7, 5)),
            },
        ),
    ]:
        keras.utils.set_random_seed(0)
        sparse, ticket = build()
        feed = {
            k: v.astype("int32" if k == "tokens" else "float32")
            for k, v in inputs.items()
        }
        inputs = feed if len(feed) > 1 else next(iter(feed.values()))
        path = folder / f"{name}.tflite"
        report = tf_gems.export_litert(sparse, path, inputs=inputs)
        save_reference(path, feed, as_dict(sparse(inputs)))
        found[name] = (sparse, ticket, path, report)
    return found


def stored_weights(path):
    """Decodes the sparse tensors of a file, entry by entry."""
    data = path.read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    found = []
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.sparsity is None:
                continue
            axis = tensor.sparsity.dimMetadata[-1]
            values = model.buffers[tensor.buffer].data.tobytes()
            assert data.index(values) % 16 == 0 or len(values) < 16
            values = np.frombuffer(values, "float32")
            dense = np.zeros(tensor.shape, "float32")
            rows = dense.reshape(-1, dense.shape[-1])
            segments = axis.arraySegments.values
            for row, (start, end) in enumerate(
                zip(segments[:-1], segments[1:], strict=True)
            ):
                for entry in range(start, end):
                    rows[row, axis.arrayIndices.values[entry]] = values[entry]
            found.append(dense)
    return found


def test_files_run_without_tensorflow_at_any_batch_size(exported):
    errors = run_alone([path for _, _, path, _ in exported.values()])
    batches = {Path(p).stem: set(sizes) for p, sizes in errors.items()}
    assert batches == {"mlp": {7, 1}, "conv": {7, 1}, "fixed": {1}}
    worst = max(max(e) for sizes in errors.values() for e in sizes.values())
    assert worst < 1e-5


@pytest.mark.parametrize("name", ["mlp", "conv", "fixed"])
def test_every_kernel_is_stored_sparsely(exported, name):
    _, ticket, path, report = exported[name]
    stored = stored_weights(path)
    assert len(stored) == len(ticket.masks)
    zeros = sum(int((value == 0).sum()) for value in stored)
    assert zeros == ticket.size - ticket.kept == report.zeros
    assert {t["encoding"] for t in report.tensors} == {"sparse"}
    # Each has its Keras name and the number of its zeros.
    assert {t["name"]: t["zeros"] for t in report.tensors} == {
        path: int((~mask).sum()) for path, mask in ticket.masks.items()
    }


def test_stored_values_match_network(exported):
    sparse, _, path, _ = exported["mlp"]
    kernels = [w for w in tf_gems.strip(sparse).get_weights() if w.ndim > 1]
    stored = sorted(stored_weights(path), key=np.size, reverse=True)
    for kernel, value in zip(kernels, stored, strict=True):
        np.testing.assert_array_equal(kernel.T, value)


@pytest.mark.parametrize("name", ["mlp", "conv", "fixed"])
def test_report_matches_file(exported, name):
    _, _, path, report = exported[name]
    assert report.bytes == path.stat().st_size < report.dense_bytes
    assert report.largest_difference <= 1e-5 * report.largest_output
    assert [r.split()[0] for r in report.ran] == ["ai_edge_litert"] * 2
    assert any("one example at a time" in n for n in report.notes) == (
        name == "fixed"
    )
    assert not any("has little meaning" in note for note in report.notes)
    assert json.loads(json.dumps(report.to_dict()))["zeros"] == report.zeros
    assert str(path) in str(report) and f"{report.bytes:,} bytes" in str(report)
    assert os.listdir(path.parent).count(path.name) == 1
    assert not list(path.parent.glob("*.partial*"))


def test_blocks_of_four_stay_sparse_at_runtime(tmp_path):
    inputs = keras.Input((128,), name="x")
    x = layers.Dense(64, activation="relu")(inputs)
    sparse, ticket = prune(keras.Model(inputs, layers.Dense(30)(x)), 0.97)
    x = random.normal(size=(7, 128)).astype("float32")
    path = tmp_path / "blocks.tflite"
    report = tf_gems.export_litert(sparse, path, optimize="latency")
    assert report.zeros == ticket.size - ticket.kept
    file = flatbuffer.read(path.read_bytes())
    names = [
        flatbuffer.operator_name(file, o) for o in file.subgraphs[0].operators
    ]
    assert names == ["FULLY_CONNECTED"] * 2  # There is no DENSIFY.
    save_reference(path, {"x": x}, {"output_0": sparse(x)})
    errors = run_alone([path])[str(path)]
    assert set(errors) == {7, 1} and max(max(e) for e in errors.values()) < 1e-5


@pytest.fixture(scope="module")
def stems(tmp_path_factory):
    """Networks with XNNPACK's stem, one safe and two unsafe."""
    folder = tmp_path_factory.mktemp("stems")
    x = random.normal(size=(3, 16, 16, 3)).astype("float32")
    found = {}
    for name, middle in [
        ("right", None),
        ("pooled", layers.MaxPooling2D()),
        ("wide", layers.Conv2D(32, 3, padding="same")),
    ]:
        sparse, _ = prune(mobile(middle))
        path = folder / f"{name}.tflite"
        found[name] = path, tf_gems.export_litert(sparse, path, inputs=x)
        save_reference(path, {"image": x}, {"output_0": sparse(x)})
    return found


def test_weights_are_dense_where_xnnpack_is_unsafe(stems):
    for name, (_, report) in stems.items():
        encodings = {t["encoding"] for t in report.tensors}
        noted = any("wrong outputs" in note for note in report.notes)
        assert (encodings, noted) == (
            ({"sparse"}, False) if name == "right" else ({"dense"}, True)
        )


def test_files_are_correct_without_avx(stems):
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("needs qemu-x86_64, package qemu-user")
    command = (emulator, "-cpu", "Nehalem", sys.executable)
    env = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem"}
    paths = [path for path, _ in stems.values()]
    errors = run_alone(paths, command, env)
    assert len(errors) == 3
    for sizes in errors.values():
        assert max(max(e) for e in sizes.values()) < 1e-5
    # The rule is necessary: the sparse file without it is wrong.
    path = stems["pooled"][0]
    forced = path.with_name("forced.tflite")
    file = flatbuffer.read(path.read_bytes())
    assert xnnpack.reason_against_sparse(file) is not None
    sparsify(file, True, "size")
    forced.write_bytes(flatbuffer.write(file))
    shutil.copy(f"{path}.npz", f"{forced}.npz")
    assert run_alone([forced])[str(forced)][1][0] < 1e-5
    assert run_alone([forced], command, env)[str(forced)][1][0] > 1e-2


class Halves(keras.Model):
    """A subclassed model that computes in two dtypes."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(64, dtype="mixed_bfloat16")
        self.second = layers.Dense(32)

    def call(self, x):
        return self.second(self.first(x))


def test_subclassed_mixed_precision_is_exported_as_float32(tmp_path):
    model = Halves()
    x = random.normal(size=(3, 50)).astype("float32")
    model(x)
    sparse, _ = prune(model)
    path = tmp_path / "halves.tflite"
    report = tf_gems.export_litert(sparse, path, batch_size=2)
    assert any("float32" in note for note in report.notes)
    assert model.first.compute_dtype == "bfloat16"
    plain = tf_gems.strip(sparse)
    plain(x)
    tf_gems.export_litert(plain, path, inputs=x)  # A plain model again.
    assert plain.first.compute_dtype == "bfloat16"


class Chaos(keras.layers.Layer):
    """Amplifies the last bits of its inputs."""

    def call(self, x):
        return keras.ops.sin(1e8 * x)


def test_file_with_wrong_outputs_is_refused(tmp_path):
    inputs = keras.Input((64,))
    x = layers.Dense(64)(layers.Dense(64)(inputs))
    sparse, _ = prune(keras.Model(inputs, Chaos()(x)))
    path = tmp_path / "model.tflite"
    path.write_bytes(b"older")
    with pytest.raises(RuntimeError, match="outputs of an export must equal"):
        tf_gems.export_litert(sparse, path)
    assert os.listdir(tmp_path) == ["model.tflite"]
    assert path.read_bytes() == b"older"


def test_refusals(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    path = tmp_path / "model.tflite"
    for name in ("model.tf", "model"):
        with pytest.raises(ValueError, match=r"end in '\.tflite'"):
            tf_gems.export_litert(model, tmp_path / name)
    with pytest.raises(FileNotFoundError, match="Create it first"):
        tf_gems.export_litert(model, tmp_path / "none" / "model.tflite")
    with pytest.raises(ValueError, match="optimize='speed'"):
        tf_gems.export_litert(model, path, optimize="speed")
    with pytest.raises(ValueError, match="must be built"):
        tf_gems.export_litert(keras.Sequential([layers.Dense(3)]), path)
    with pytest.raises(ValueError, match="Keras 3 models.*model=dict"):
        tf_gems.export_litert({}, path)
    with pytest.raises(RuntimeError, match="no ticket before mining"):
        other = keras.models.clone_model(model)
        tf_gems.export_litert(tf_gems.SparseModel(other), path)
    x = np.zeros((2, 4), "float32")
    with pytest.raises(ValueError, match="2 examples, batch_size=3"):
        tf_gems.export_litert(model, path, inputs=x, batch_size=3)
    assert not os.listdir(tmp_path)


def test_inconclusive_comparison_is_noted(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(
        inputs, layers.Dense(3, kernel_initializer="zeros")(inputs)
    )
    report = tf_gems.export_litert(model, tmp_path / "dead.tflite")
    assert any("has little meaning" in note for note in report.notes)


def test_readonly_directory_is_refused(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root can write to any directory")
    tmp_path.chmod(0o500)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(PermissionError, match="is not writable"):
        tf_gems.export_litert(model, tmp_path / "model.tflite")


def test_error_names_the_right_numbered_layer(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((4, 4, 4, 2)),
            layers.MaxPooling3D(name="pool"),
            layers.Flatten(name="pool_1"),
            layers.Dense(3),
        ]
    )
    with pytest.raises(RuntimeError, match="layer 'pool', which .* MaxPool3D"):
        tf_gems.export_litert(model, tmp_path / "m.tflite")
