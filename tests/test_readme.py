"""The README says what the cards and the code say."""

import json
import re
from pathlib import Path

import pytest

import tf_gems

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
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
def test_table_holds_the_figures_of_the_card(path):
    card = json.loads(path.read_text("utf-8"))
    assert row(card) in README
    assert card["command"] in README


def test_comparison_is_that_of_the_results():
    path = RESULTS / "compare_mnist" / "results.json"
    comparison = tf_gems.Comparison.load(path)
    assert comparison.render(0.9856) in README
    assert comparison.provenance["command"] in README
    best = {s["sparsity"]: s["method"] for s in reversed(comparison.summary())}
    assert best.pop(0.0) == "dense"
    assert best.pop(0.9856) == best.pop(0.995) == "gem_miner"
    # At 5 % gradual magnitude pruning is level with it, as is said there.
    accuracies = {
        s["method"]: f"{100 * s['accuracy'][0]:.2f}"
        for s in comparison.summary()
        if s["sparsity"] == 0.95
    }
    mined, trained = accuracies["gem_miner"], accuracies["gradual_magnitude"]
    assert f"{mined} for {trained}" in README
    assert max(accuracies.values()) in (mined, trained)


def test_comparison_on_cifar10_is_that_of_the_results():
    path = RESULTS / "compare_cifar10" / "results.json"
    comparison = tf_gems.Comparison.load(path)
    assert comparison.render(0.9856) in README
    assert comparison.provenance["command"] in README
    names = [s["method"] for s in comparison.summary() if s["sparsity"]]
    assert names[0] == "gem_miner"


def test_links_and_names_exist():
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for recipe in re.findall(r"`(?:recipes/)?(\w+\.py)`", README):
        assert (ROOT / "recipes" / recipe).exists(), recipe


def test_the_golden_path_runs_as_it_is_printed(tmp_path, monkeypatch):
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    import keras
    import numpy as np
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(100, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dense(10),
        ]
    )
    import tensorflow as tf

    names = {
        "model": model,
        "train": tf.data.Dataset.from_tensor_slices(
            ((images / 16).astype(np.float32), labels)
        ).batch(64),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }
    monkeypatch.chdir(tmp_path)
    exec(code, names)
    masks = names["sparse"].ticket().masks.values()
    kept = sum(int(mask.sum()) for mask in masks)
    assert kept == round(0.0144 * 7400)
    kernels = [layer.kernel for layer in (model.layers[0], model.layers[-1])]
    assert kept == sum(np.count_nonzero(kernel) for kernel in kernels)
    assert Path("model.gem").exists() and Path("model.tflite").exists()
