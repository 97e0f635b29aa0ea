"""Tests that the deployment table shows the measured results."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RESULTS = BENCHMARKS / "results" / "deployment.json"


@pytest.fixture(scope="module")
def deployment():
    """The benchmark program, which imports modules of its directory."""
    pytest.importorskip("absl")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location(
            "deployment", BENCHMARKS / "deployment.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def test_table_shows_every_format_of_every_cell(deployment):
    results = json.loads(RESULTS.read_text("utf-8"))
    table = deployment.render(results)
    lines = [line for line in table.splitlines() if line.startswith("| 9")]
    assert len(lines) == len(results["cells"])
    for cell, line in zip(results["cells"], lines, strict=True):
        assert f"{cell['target_sparsity']:.2%}" in line
        assert deployment.NAMES[cell["route"]] in line
        sparse = deployment.pick(cell, "float32", "sparse")
        assert f"{sparse['bytes'] / 1e3:,.1f}" in line
        # The counted fraction of pruned weights is the target.
        kept = 1 - cell["kept"] / cell["size"]
        assert kept == pytest.approx(cell["target_sparsity"], abs=1e-3)


def test_sparse_files_are_smaller(deployment):
    cells = json.loads(RESULTS.read_text("utf-8"))["cells"]
    for cell in cells:
        sparse, dense = (
            deployment.pick(cell, "float32", encoding)
            for encoding in ("sparse", "dense")
        )
        assert sparse["bytes"] < dense["bytes"] / 3
        assert sparse["accuracy"] == pytest.approx(dense["accuracy"], abs=2e-3)
        if cell["route"] != "gem_miner":
            continue
        gem = deployment.pick(cell, "gem", "sparse")
        assert gem["bytes"] < sparse["bytes"] and gem["refused"] is None
        assert gem["accuracy"] == sparse["accuracy"]
        for form in ("float16", "dynamic_int8", "int8", "saved_model"):
            row = deployment.pick(cell, form, None)
            # Every file has either an accuracy or an error message.
            assert (row["accuracy"] is None) == (row["refused"] is not None)


def test_page_shows_measured_results(deployment):
    page = (BENCHMARKS.parent / "docs" / "sizes.md").read_text("utf-8")
    assert deployment.render(json.loads(RESULTS.read_text("utf-8"))) in page
