"""Runs every format in a process that cannot import this library."""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")
pytest.importorskip("sklearn")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def outside():
    """The benchmark that does the same in new environments."""
    spec = importlib.util.spec_from_file_location(
        "outside", BENCHMARKS / "outside.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(outside, tmp_path_factory):
    directory = tmp_path_factory.mktemp("outside") / "dense"
    found = outside.export(outside.dense_network(), directory, 3)
    assert not found["refused"] and found["accuracy"] > 0.85
    return directory, found


@pytest.mark.parametrize("package", ["tensorflow", "ai-edge-litert"])
def test_every_format_runs_without_this_library(outside, files, package):
    directory, found = files
    rows = outside.run_in(sys.executable, package, [directory])
    names = set(outside.TOLERANCES)
    if package != "tensorflow":
        names = {name for name in names if name.endswith(".tflite")}
    assert {row["file"] for row in rows} == names
    for row in rows:
        assert row["within"], row
        assert row["images"] == 359
        exact = row["tolerance"] <= 1e-4
        assert row["accuracy"] == pytest.approx(
            found["accuracy"], abs=1e-4 if exact else 0.03
        )


def test_file_with_wrong_outputs_is_detected(outside, files):
    directory, _ = files
    other = directory.with_name("other")
    other.mkdir()
    for name in ("tolerances.json", "float32.tflite"):
        (other / name).write_bytes((directory / name).read_bytes())
    with np.load(directory / "truth.npz") as truth:
        arrays = dict(truth)
    arrays["outputs"][7, 0] += 0.1 * np.abs(arrays["outputs"]).max()
    np.savez(other / "truth.npz", **arrays)
    [row] = outside.run_in(sys.executable, "ai-edge-litert", [other])
    assert not row["within"] and row["difference"] > 1e-2
