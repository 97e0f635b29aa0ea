"""Tests the report on the layers that XNNPACK can run sparsely."""

import json

import keras
import numpy as np
import pytest
from export_networks import mobile
from export_networks import prune

import tf_gems
from tf_gems import zoo
from tf_gems.export import flatbuffer
from tf_gems.export import readiness_report

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")

layers = keras.layers


@pytest.mark.parametrize(
    "name, arguments, count",
    [
        ("mobilenet_v1", {"stem": "small", "alpha": 0.25}, 13),
        ("mobilenet_v2_sparse_ready", {"stem": "small", "alpha": 0.35}, 34),
    ],
)
def test_zoo_pointwise_convolutions_can_run_sparse(name, arguments, count):
    model = getattr(zoo, name)((32, 32, 3), 10, **arguments)
    report = readiness_report(model)
    assert report.obstacle is None and report.eligible
    kernels = {w.path for w in model.weights if w.shape[:2] == (1, 1)}
    assert {x["name"] for x in report.layers} == kernels
    assert len(kernels) == count
    assert report.sparsity == 0 and not report.faster
    assert "too few to run faster" in str(report)


def test_stem_of_stride_1_is_reported():
    model = zoo.mobilenet_v1((32, 32, 3), 10, stem="cifar", alpha=0.25)
    report = readiness_report(model)
    assert not report.eligible and not report.faster
    assert "stride 2 over three channels" in report.obstacle
    assert str(report).count("cannot run sparse") == 13
    assert str(report).count(report.obstacle) == 1


@pytest.mark.parametrize("sparsity, faster", [(0.6, False), (0.75, True)])
def test_two_thirds_are_counted_before_and_after_export(
    tmp_path, sparsity, faster
):
    sparse, ticket = prune(mobile(), sparsity)
    report = readiness_report(sparse)
    kernels = [
        mask for mask in ticket.masks.values() if mask.shape[:2] == (1, 1)
    ]
    zeros = np.concatenate([mask.ravel() == 0 for mask in kernels])
    assert report.eligible and report.faster == faster
    np.testing.assert_allclose(report.sparsity, zeros.mean())
    path = tmp_path / "mobile.tflite"
    tf_gems.export_litert(sparse, path)
    file = flatbuffer.read(path.read_bytes())
    names = [
        flatbuffer.operator_name(file, o) for o in file.subgraphs[0].operators
    ]
    assert "DENSIFY" in names
    again = readiness_report(path)
    assert (again.eligible, again.sparsity) == (True, report.sparsity)
    assert json.loads(json.dumps(again.to_dict()))["faster"] == faster


@pytest.mark.parametrize(
    "middle, reason",
    [
        (
            layers.MaxPooling2D(name="middle"),
            "the operator MAX_POOL",
        ),
        (
            layers.Conv2D(32, 3, padding="same", name="middle"),
            "the operator CONV_2D",
        ),
    ],
)
def test_layer_that_ends_nchw_part_is_named(middle, reason):
    report = readiness_report(mobile(middle))
    assert reason in report.obstacle
    assert not report.eligible and reason in str(report)
