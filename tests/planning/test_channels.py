"""Tests plans for channel pruning."""

import json

import keras
import numpy as np
import pytest

import tf_gems
from tf_gems.planning import speeds
from tf_gems.planning.channels import after_pruning
from tf_gems.planning.channels import removable_kernels

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)

layers = keras.layers


def residual():
    inputs = keras.Input((16, 16, 3))
    trunk = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    for block in "ab":
        x = layers.Conv2D(32, 3, padding="same", name=f"{block}1")(trunk)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(16, 3, padding="same", name=f"{block}2")(x)
        trunk = layers.Add()([trunk, x])
    x = layers.GlobalAveragePooling2D()(trunk)
    return keras.Model(inputs, layers.Dense(5, name="last")(x))


def test_sums_and_outputs_are_excluded():
    model = residual()
    names = [kernel.path for kernel in removable_kernels(model)]
    assert names == ["a1/kernel", "b1/kernel"]


def test_depthwise_kernel_decides_for_its_inputs():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, name="first"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Conv2D(12, 1, name="pointwise"),
            layers.Flatten(),
            layers.Dense(4, name="last"),
        ]
    )
    names = [kernel.path.split("/")[-2] for kernel in removable_kernels(model)]
    assert names == ["depthwise", "pointwise"]


def test_unsupported_graph_has_no_removable_kernels():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    assert removable_kernels(Own()) == []


def test_remaining_weights_are_counted_and_model_is_restored():
    model = residual()
    for weight in model.weights:  # Makes all constants nonzero.
        weight.assign(weight + 0.1)
    before = model.get_weights()
    kernels = removable_kernels(model)
    (_, _), (dense, left) = after_pruning(model, kernels, 0.5)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # Of 32 inner channels, 16 are kept, and one for the constants.
    places = 16 * 16
    inner = 2 * places * 9 * 16 * 32 * 2
    assert dense == inner + places * 9 * 3 * 16 + 80
    assert left == inner * 17 // 32 + places * 9 * 3 * 16 + 80


def test_native_plan_with_convolutions(tmp_path):
    model = residual()
    plan = tf_gems.plan(model, speedup=1.3, target="native")
    assert plan.pattern == "channel" and plan.compact
    assert plan.speedup.networks == [
        network["name"] for network in speeds.load("native")["channel"].networks
    ]
    text = str(plan)
    assert "the channels of 2 kernels" in text and "compact=True" in text
    assert json.loads(json.dumps(plan.to_dict()))["pattern"] == "channel"

    sparse = tf_gems.SparseModel(model, filters=plan.filters, seed=0)
    method = tf_gems.methods.RandomPruning(seed=0, **plan.settings)
    sparse.start_finetuning(method.find(sparse))
    assert len(sparse.gem.prunable) == 2
    report = tf_gems.export_litert(
        sparse, tmp_path / "m.tflite", batch_size=1, compact=plan.compact
    )
    before, after = report.compaction.multiply_adds
    assert before == plan.multiply_adds[0]
    np.testing.assert_allclose(after, plan.multiply_adds[1], rtol=0.05)
    np.testing.assert_allclose(report.bytes, plan.bytes, rtol=0.1)
