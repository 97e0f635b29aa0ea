"""Runs the guides and builds the docs from them."""

import inspect
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_gems as gems

pytest.importorskip("sklearn")
if keras.backend.backend() != "tensorflow":
    pytest.skip("guides export models", allow_module_level=True)

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.py"))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda name: runpy.run_path(ROOT / "docs" / "guides" / f"{name}.py")


@pytest.mark.slow
def test_mine_a_gem(run):
    names = run("mine_a_gem")
    assert names["ticket"].kept == round(0.05 * names["ticket"].size)
    assert names["gem_accuracy"] > 0.8 and names["tuned_accuracy"] > 0.9
    dense = [x for x in names["plain"].layers if hasattr(x, "kernel")]
    kernels = [layer.kernel for layer in dense]
    kept = sum(np.count_nonzero(kernel) for kernel in kernels)
    assert kept == names["ticket"].kept
    loaded = gems.Ticket.load("digits.gem")
    assert loaded.kept == kept and Path("digits.keras").exists()


@pytest.mark.slow
def test_choose_a_method(run):
    names = run("choose_a_method")
    accuracy = names["accuracy"]
    assert accuracy[0.5] > 0.85 and accuracy[0.95] < accuracy[0.5]
    for mask in names["ticket"].masks.values():
        assert names["gems"].patterns.get("2:4").matches(mask)


@pytest.mark.slow
def test_deploy(run):
    names = run("deploy")
    files = {path.name: path.stat().st_size for path in Path().glob("*.tflite")}
    assert files["int8.tflite"] == names["int8"].bytes
    assert files["half.tflite"] < files["model.tflite"]
    assert names["micro"].bytes == files["micro.tflite"]
    before, after = names["compaction"].parameters
    assert after < before
    assert Path("saved_model").is_dir() and Path("exported").is_dir()


@pytest.mark.slow
def test_compare_methods(run):
    names = run("compare_methods")
    methods = {row["method"] for row in names["comparison"].rows}
    assert methods == {"dense", "snip", "random"}
    assert names["ticket"].density == pytest.approx(0.1, abs=1e-3)


@pytest.mark.slow
def test_training_loops(run):
    names = run("training_loops")
    assert names["plain"] is names["gan"]


@pytest.mark.slow
def test_many_devices(tmp_path):
    # Runs in a separate process, since the guide creates a strategy.
    guide = ROOT / "docs" / "guides" / "many_devices.py"
    done = subprocess.run(
        [sys.executable, guide],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "10.0%"
    assert list((tmp_path / "backup").glob("*.backup"))


@pytest.mark.slow
def test_reproduce_the_paper(run):
    names = run("reproduce_the_paper")
    assert names["ticket"].density == pytest.approx(0.05, abs=1e-3)
    assert names["accuracy"] > 0.5
    assert names["preset"] == gems.gem_miner.get_preset("paper")


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_guides_convert_to_notebooks_with_valid_links(guide):
    jupytext = pytest.importorskip("jupytext")
    nbformat = pytest.importorskip("nbformat")
    text = jupytext.writes(jupytext.read(guide), fmt="ipynb")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    kinds = {cell.cell_type for cell in notebook.cells}
    assert kinds == {"markdown", "code"}
    first = notebook.cells[0].source
    assert first.startswith("# ")  # The title of its page.
    for cell in notebook.cells:
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", cell.source):
            assert (guide.parent / link).exists(), link
    assert f"guides/{guide.name}" in (ROOT / "docs/index.md").read_text("utf-8")


def test_site_builds_without_warnings(tmp_path):
    mkdocs = shutil.which("mkdocs", path=Path(sys.executable).parent)
    if mkdocs is None:
        pytest.skip("needs the extra `docs`")
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site/guides/deploy/index.html").read_text("utf-8")
    assert "export_litert" in page and 'href="../../speed/"' in page
    api = "".join(
        path.read_text("utf-8")
        for path in (tmp_path / "site/api").glob("*/index.html")
    )
    packages = {
        "tf_gems": gems,
        "tf_gems.datasets": gems.datasets,
        "tf_gems.export": gems.export,
        "tf_gems.methods": gems.methods,
        "tf_gems.page": gems.page,
        "tf_gems.sanity": gems.sanity,
        "tf_gems.zoo": gems.zoo,
    }
    titles = re.findall(r"</code>\s+(tf_gems\S+)\s", api)
    for package, module in packages.items():
        for name in module.__all__:
            found = getattr(module, name)
            # Names of `tf_gems.export` can be listed at the top level.
            paths = {f"{package}.{name}", f"tf_gems.{name}"}
            if inspect.isclass(found) or inspect.isfunction(found):
                ids = {path for path in paths if f'id="{path}"' in api}
                assert ids or paths & set(titles), name
