"""Tests the program that reproduces the paper's tables."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "recipes"))

import figures  # noqa: E402
import tables  # noqa: E402

TABLE = ["--table=4", "--only=Gem-Miner, ours"]
RESULTS = ROOT / "benchmarks" / "results" / "reproduce"


@pytest.mark.parametrize(
    "part", ["table2", "table3", "table4", "figure6", "figure7"]
)
def test_every_row_creates_method_at_its_density(part):
    whole, reduced = tables.Scale(), tables.Scale(0.1, 0.5)
    dense, *rows = tables.rows(part)
    assert dense.method is None
    for row in rows:
        for scale in (whole, reduced):
            method = row.method(scale)
            density = 100 * (1 - method.target_sparsity)
            np.testing.assert_allclose(density, row.density, rtol=1e-6)
        keras.saving.serialize_keras_object(method)


def test_numbers_of_the_paper():
    after = {
        row.name: row.after
        for part in ("table2", "table3", "table4")
        for row in tables.rows(part)
        if row.after
    }
    assert after["edge-popup, gradual, regularized"] == 63.72
    assert after["learning rate rewinding"] == 80.21
    [checked] = {row.after for row in tables.rows("table2") if row.check} & {
        78.73
    }
    assert checked == 78.73


def test_reduced_run_scales_learning_rate_but_not_penalty():
    theirs, ours = (
        next(r for r in tables.rows("table4") if r.name == name)
        for name in (tables.THEIRS, "Gem-Miner, ours")
    )
    for scale, rate in (
        (tables.Scale(), 0.1),
        (tables.Scale(0.5), 0.2),
        (tables.Scale(0.02, 0.5), 1.5),
    ):
        method = theirs.method(scale)
        assert method.learning_rate == pytest.approx(rate)
        assert method.regularization(0.0) == 1e-4 and not method.stop_at_target
        by_hand = tables.by_hand(theirs, 5e-5).method(scale)
        assert by_hand.regularization(0.0) == 5e-5 and by_hand.stop_at_target
        config = ours.method(scale).get_config()
        assert config["regularization"]["class_name"] == "Adaptive"


def test_settings_missing_in_paper_are_refused():
    with pytest.raises(ValueError, match="resnet20"):
        tables.rows("table4", "vgg16")
    with pytest.raises(ValueError, match="figure3"):
        tables.rows("figure4")
    names = {row.name for row in tables.rows("figure3", "vgg16")}
    assert {"dense", "Gem-Miner, ours", "IMP", "smart ratio"} <= names


@pytest.mark.parametrize(
    "path",
    sorted(RESULTS.glob("*/*.json")),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_page_shows_results(path):
    cells = json.loads(path.read_text("utf-8"))
    epochs, fraction = path.parent.name.split("-")[-2:]
    text = figures.render(cells, tables.Scale(float(epochs), float(fraction)))
    assert path.with_suffix(".txt").read_text("utf-8") == text + "\n"
    page = (ROOT / "docs" / "paper.md").read_text("utf-8")
    assert path.stem.startswith("figure") or text in page
    for cell in cells:
        assert cell["command"].startswith("python recipes/reproduce.py --")
        assert cell["provenance"]["processor"]


def start(directory, *arguments, part=TABLE, backend="jax"):
    """Starts the program on a few synthetic images."""
    random = np.random.default_rng(0)
    data = directory / "images.npz"
    if not data.exists():
        np.savez(
            data,
            x_train=random.integers(0, 256, (96, 32, 32, 3), "uint8"),
            y_train=random.integers(0, 10, 96),
            x_test=random.integers(0, 256, (20, 32, 32, 3), "uint8"),
            y_test=random.integers(0, 10, 20),
        )
    return subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "recipes" / "reproduce.py"),
            *(*part, "--seeds=1", f"--backend={backend}"),
            *("--epochs=0.02", "--batch_size=32"),
            *(f"--data_dir={data}", f"--output_dir={directory}", *arguments),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments, **keywords):
    """Runs the program to completion."""
    with start(*arguments, **keywords) as process:
        try:
            output, errors = process.communicate(timeout=500)
        finally:
            process.kill()
    return subprocess.CompletedProcess(
        process.args, process.returncode, output, errors
    )


@pytest.mark.slow
def test_time_limited_run_resumes(tmp_path):
    pytest.importorskip("jax")
    first = run(tmp_path, "--minutes=0.2")
    for _ in range(3):
        if first.returncode == 0:
            break
        assert first.returncode == 75, first.stderr
        first = run(tmp_path)
    assert "Gem-Miner, ours" in first.stdout and "REDUCED" in first.stdout
    [results] = tmp_path.glob("reproduce-*/table*.json")
    [cell] = json.loads(results.read_text("utf-8"))
    assert cell["epochs_of_search"] == cell["epochs_of_finetuning"] == 3
    assert len(cell["layers"]) == 20 and min(cell["layers"]) > 0

    # A finished cell is not run again.
    [file] = tmp_path.glob("reproduce-*/cells/*.json")
    changed = {**json.loads(file.read_text("utf-8")), "after": 0.125}
    file.write_text(json.dumps(changed), "utf-8")
    assert "12.50" in run(tmp_path).stdout


@pytest.mark.slow
def test_fused_cells_are_separate(tmp_path):
    refused = run(tmp_path, "--fuse")
    assert refused.returncode and "Received: --fuse" in refused.stderr
    process = run(tmp_path, "--fuse", backend="tensorflow")
    assert process.returncode == 0, process.stderr
    [file] = tmp_path.glob("reproduce-*/cells/*.json")
    cell = json.loads(file.read_text("utf-8"))
    assert "--fuse" in cell["command"] and 0 < cell["after"] < 1
    # The same command without `--fuse` does not use these cells.
    [fused] = tmp_path.glob("reproduce-*/tickets/*.gem")
    with start(tmp_path, backend="tensorflow") as other:
        try:
            while {p.stem for p in file.parent.iterdir()} == {file.stem}:
                assert other.poll() is None, "it did not run a separate cell"
                time.sleep(0.05)
            locks = {p.stem for p in fused.parent.glob("*.lock")}
        finally:
            other.kill()
    assert locks - {fused.stem}, "it did not search for a separate ticket"


@pytest.mark.slow
def test_mining_curves_by_penalty(tmp_path):
    pytest.importorskip("jax")
    part = ["--figure=5", "--only=penalty 0.0001"]
    process = run(tmp_path, part=part)
    assert process.returncode == 0, process.stderr
    [results] = tmp_path.glob("reproduce-*/figure5.json")
    [cell] = json.loads(results.read_text("utf-8"))
    curve = cell["curve"]
    assert curve["epoch"] == [0, 1, 2]
    assert 1 > curve["density"][0] > curve["density"][1] > 0
    assert len(curve["accuracy"]) == 3 and cell["before"] is not None
    assert (results.parent / "figure5.png").stat().st_size > 10_000


@pytest.mark.parametrize("part", ["figure3", "figure6"])
def test_accuracies_are_plotted_by_density(part, tmp_path):
    cells = [
        {
            "name": row.name,
            "density": row.density,
            "paper_after": row.after,
            "after": 0.5 + seed / 100,
            "seed": seed,
        }
        for row in tables.rows(part)
        for seed in range(2)
    ]
    cells.append({**cells[0], "after": None, "failure": "dead"})
    figures.draw(part, cells, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_repeated_epoch_counts_once(tmp_path):
    curve = figures.Curve(tmp_path / "curve.csv", lambda model: 0.5)
    for epoch, density in enumerate((0.9, 0.8, 0.7)):
        curve.on_epoch_end(epoch, {"density": density})
    curve.on_epoch_end(1, {"density": 0.75})
    assert figures.read_curve(tmp_path / "curve.csv") == {
        "epoch": [0, 1, 2],
        "density": [0.9, 0.75, 0.7],
        "accuracy": [0.5] * 3,
    }
