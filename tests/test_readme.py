"""Tests that the README agrees with the model cards and the code."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import tf_gems

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *(ROOT / "docs").glob("*.md"),
]
METHODS = (ROOT / "docs" / "methods.md").read_text("utf-8")
PUBLISHED = (ROOT / "docs" / "results.md").read_text("utf-8")
CARDS = sorted((ROOT / "savedmodels").glob("*.json"))
RESULTS = ROOT / "benchmarks" / "results"


def row(card):
    accuracy, size = card["accuracy"], card["bytes"]
    cells = [
        f"{card['settings']['network']}, {card['settings']['dataset']}",
        f"{card['kept'] / card['size']:.2%}",
        f"{accuracy['dense']:.2%}",
        f"{accuracy['random']:.2%}",
        f"{accuracy['before_finetuning']:.2%}",
        f"**{accuracy['after_finetuning']:.2%}**",
        f"{size['dense_tflite']:,}",
        f"**{size['sparse_tflite']:,}**",
        f"{size['ticket']:,}",
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_table_matches_model_cards(path):
    card = json.loads(path.read_text("utf-8"))
    assert row(card) in README
    assert row(card) in PUBLISHED
    assert card["command"] in PUBLISHED


def test_comparison_matches_results():
    path = RESULTS / "compare_mnist" / "results.json"
    comparison = tf_gems.Comparison.load(path)
    assert comparison.render(0.9856) in METHODS
    assert comparison.provenance["command"] in METHODS
    best = {s["sparsity"]: s["method"] for s in reversed(comparison.summary())}
    assert best.pop(0.0) == "dense"
    assert best.pop(0.9856) == best.pop(0.995) == "gem_miner"
    # At 5 %, gradual magnitude pruning is as accurate, as the page says.
    accuracies = {
        s["method"]: f"{100 * s['accuracy'][0]:.2f}"
        for s in comparison.summary()
        if s["sparsity"] == 0.95
    }
    mined, trained = accuracies["gem_miner"], accuracies["gradual_magnitude"]
    assert f"({mined} % and {trained} %)" in METHODS
    assert max(accuracies.values()) in (mined, trained)


def test_cifar10_comparison_matches_results():
    path = RESULTS / "compare_cifar10" / "results.json"
    comparison = tf_gems.Comparison.load(path)
    assert comparison.render(0.9856) in METHODS
    assert comparison.provenance["command"] in METHODS
    names = [s["method"] for s in comparison.summary() if s["sparsity"]]
    assert names[0] == "gem_miner"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_names_exist(page):
    text = page.read_text("utf-8")
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    for recipe in re.findall(r"`recipes/(\w+\.py)`", text):
        assert (ROOT / "recipes" / recipe).exists(), recipe


def test_readme_is_short():
    assert len(README.encode()) <= 8000


SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", SNIPPETS, ids=["trained", "gem"])
def test_snippets_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    sparsity = float(re.search(r"target_sparsity=([\d.]+)", code)[1])
    plain = names["model"]  # The result of `strip`.
    kernels = [layer.kernel for layer in plain.layers]
    size = sum(math.prod(kernel.shape) for kernel in kernels)
    kept = sum(np.count_nonzero(kernel) for kernel in kernels)
    assert kept == round((1 - sparsity) * size)
    plain.compile(loss=names["loss"], metrics=["accuracy"])
    assert plain.evaluate(*names["test"], verbose=0)[1] > 0.9
    assert list(tmp_path.glob("*.tflite")) and list(tmp_path.glob("*.keras"))
