"""Tests that exports with `compact=True` are smaller and correct."""

import os

import keras
import numpy as np
import pytest
import user_models as users
from test_user_models import Unchanged

import tf_gems
from tf_gems.command_line.main import main
from tf_gems.export import flatbuffer

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")

layers = keras.layers
EXPORTS = [tf_gems.export_litert, tf_gems.export_saved_model]


def network():
    return keras.Sequential(
        [
            keras.Input((10, 10, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(48, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5),
        ]
    )


def pruned(model):
    """Returns a sparse model with zero channels, biases and statistics."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.1, 0.5, weight.shape) * 2.0)
    sparse = tf_gems.SparseModel(model, filters="conv", seed=0)
    method = tf_gems.methods.RandomPruning(0.75, 0, pattern="channel")
    sparse.start_finetuning(method.find(sparse))
    return sparse


@pytest.mark.parametrize("export", EXPORTS)
def test_compact_export_is_smaller_and_correct(export, tmp_path):
    sparse, x = pruned(network()), users.floats(4, 10, 10, 3)
    expected = np.asarray(sparse(x))
    with Unchanged(sparse):
        whole = export(sparse, tmp_path / "whole.tflite", x)
        report = export(sparse, tmp_path / "small.tflite", x, compact=True)
    np.testing.assert_array_equal(sparse(x), expected)
    # TensorFlow numbers names in a SavedModel, so the size varies.
    assert abs(report.dense_bytes - whole.dense_bytes) < 16
    assert report.bytes < whole.bytes
    before, after = report.compaction.parameters
    assert before == sparse.model.count_params() > 3 * after
    assert sum(np.prod(row["shape"]) for row in report.tensors) < after
    assert f"compact: {after:,} of {before:,} parameters" in str(report)
    assert report.to_dict()["compaction"]["parameters"] == (before, after)
    assert "compact:" not in str(whole)
    if export is tf_gems.export_litert:
        file = flatbuffer.read((tmp_path / "small.tflite").read_bytes())
        sizes = [w.value.shape for w in flatbuffer.weights(file)]
        rows = report.compaction.rows
        kept = [row["channels"][1] for row in rows if "conv" in row["layer"]]
        assert (kept[0], 3, 3, 3) in sizes
        assert (kept[1], 3, 3, kept[0]) in sizes


def test_compact_int8_export(tmp_path):
    sparse, x = pruned(network()), users.floats(40, 10, 10, 3)
    settings = {
        "form": "int8",
        "representative_data": x,
        "io": "int8",
        "sparse": False,
        "batch_size": 1,
    }
    reports = [
        tf_gems.export_litert(
            sparse, tmp_path / f"{compact}.tflite", compact=compact, **settings
        )
        for compact in (False, True)
    ]
    assert reports[0].bytes == reports[1].dense_bytes > 2 * reports[1].bytes


def test_model_with_gem_layers(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            tf_gems.GemLayer(layers.Dense(32, activation="relu"), seed=0),
            layers.Dense(3),
        ]
    )
    [gem] = [x for x in model.layers if isinstance(x, tf_gems.GemLayer)]
    [prunable] = gem.prunable
    weights = gem.layer.weights + model.layers[-1].weights
    mask = np.zeros((8, 32), bool)
    mask[:, :10] = True
    tf_gems.Ticket(
        {prunable.weight.path: mask}, {w.path: w.numpy() for w in weights}
    ).apply(model)
    x = users.floats(4, 8)
    expected = np.asarray(model(x))
    report = tf_gems.export_litert(model, tmp_path / "m.tflite", compact=True)
    assert report.compaction.rows[0]["channels"] == (32, 10)
    np.testing.assert_array_equal(model(x), expected)


@pytest.mark.parametrize(
    "build",
    [
        *(users.recurrent_heads, users.named_inputs, users.contrastive),
        *(users.stateful, users.augmented, users.attributes, users.adapted),
        *(users.words, users.labels, users.pooled_3d, users.noisy),
        *(users.in_type(t) for t in ("mixed_bfloat16", "float16", "float64")),
    ],
    ids=lambda f: f.__name__,
)
def test_user_models(build, tmp_path):
    model, inputs = build()
    sparse = users.pruned(model, 0.95)
    with Unchanged(sparse):
        report = tf_gems.export_saved_model(
            sparse, tmp_path / "m", inputs, compact=True
        )
    # From some, nothing can be removed, and the copy has longer names.
    assert report.bytes < report.dense_bytes + 100
    assert report.compaction.parameters[0] == model.count_params()


@pytest.mark.parametrize("export", EXPORTS)
def test_unsupported_graph_is_refused_before_conversion(export, tmp_path):
    model, inputs = users.text()
    with pytest.raises(ValueError, match="compact=True, model='text.*' of"):
        export(users.pruned(model), tmp_path / "m.tflite", inputs, compact=True)
    assert not os.listdir(tmp_path)


def test_command_line(tmp_path, capsys):
    sparse = pruned(network())
    plain = tf_gems.strip(sparse)
    plain.save(tmp_path / "model.keras")
    output = tmp_path / "model.tflite"
    arguments = [f"{tmp_path / 'model.keras'}", f"--output={output}"]
    assert main(["export", *arguments, "--compact"]) == 0
    assert "compact:" in capsys.readouterr().out


def test_deployment_report(tmp_path):
    sparse, x = pruned(network()), users.floats(8, 10, 10, 3)
    report = tf_gems.deployment_report(
        sparse,
        tmp_path,
        (x, None),
        forms=["float32", "saved_model", "gem"],
        runs=0,
        compact=True,
    )
    *compact, gem = (row["export"] for row in report.rows)
    assert all(export.compaction for export in compact)
    assert gem.compaction is None
