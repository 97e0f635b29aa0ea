"""Tests the table of the authors' settings."""

import importlib
import math
from pathlib import Path

import keras
import pytest

import tf_gems as gems

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture(scope="module")
def recipes():
    """The modules `paper` and `settings` of the recipes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(RECIPES)
        yield (
            importlib.import_module("paper"),
            importlib.import_module("settings"),
        )


def values(settings, *names):
    return tuple(getattr(settings, name) for name in names)


SCORES = ("optimizer", "learning_rate", "regularization", "freeze_period")
WEIGHTS = ("finetuning_optimizer", "finetuning_learning_rate", "masks")
LENGTH = ("mining_epochs", "finetuning_epochs", "batch_size")


# Copied from the authors' files, independently of the table.
@pytest.mark.parametrize(
    "network, sparsity, scores, weights, length",
    [
        (
            "cifar10 resnet20",
            0.9941,
            ("sgd", 0.1, 1e-4, 8),
            ("sgd", 0.01, "alive"),
            (150, 150, 128),
        ),
        (
            "cifar10 resnet20",
            0.8,
            ("sgd", 0.1, 5e-6, 5),
            ("sgd", 0.01, "rounded"),
            (150, 150, 128),
        ),
        (
            "cifar10 mobilenet_v2",
            0.986,
            ("sgd", 0.1, 1.5e-5, 5),
            ("sgd", 0.01, "alive"),
            (300, 300, 128),
        ),
        (
            "cifar10 vgg16",
            0.995,
            ("adam", 0.001, 1e-6, 5),
            ("sgd", 0.05, "alive"),
            (200, 200, 128),
        ),
        (
            "cifar10 wide_resnet28_2",
            0.977,
            ("sgd", 0.5, 5e-6, 10),
            ("sgd", 0.01, "alive"),
            (150, 150, 128),
        ),
        (
            "tiny_imagenet resnet18",
            0.995,
            ("adam", 0.001, 1e-5, 5),
            ("sgd", 0.1, "alive"),
            (200, 200, 256),
        ),
        (
            "tiny_imagenet resnet50",
            0.986,
            ("adam", 0.01, 1e-6, 5),
            ("nesterov", 0.1, "alive"),
            (150, 150, 128),
        ),
        (
            "caltech101 resnet50_affine",
            0.98,
            ("adam", 0.001, 5e-6, 5),
            ("adam", 1e-4, "alive"),
            (50, 50, 16),
        ),
    ],
)
def test_spot_values(recipes, network, sparsity, scores, weights, length):
    _, module = recipes
    row = (*network.split(), sparsity)
    settings = module.Settings.from_paper(*row)
    assert values(settings, "dataset", "network", "target_sparsity") == row
    assert values(settings, *SCORES) == scores
    assert values(settings, *WEIGHTS) == weights
    assert values(settings, *LENGTH) == length
    assert settings.weight_decay == 1e-4


@pytest.mark.parametrize(
    "row, epochs",
    [
        (("cifar10", "resnet20", 0.9856), (80, 120)),
        (("cifar10", "vgg16", 0.95), (100, 150)),
        (("cifar10", "mobilenet_v2", 0.5), (150, 250)),
        (("caltech101", "resnet50_affine", 0.95), (20, 40)),
    ],
)
def test_milestones_in_epochs(recipes, row, epochs):
    _, module = recipes
    settings = module.Settings.from_paper(*row)
    parts = values(settings, "first_milestone", "second_milestone")
    for part, epoch in zip(parts, epochs, strict=True):
        assert math.isclose(part * settings.finetuning_epochs, epoch)


def test_rows_are_valid_settings_with_known_status(recipes):
    paper, module = recipes
    for (*names, density), (_, status) in paper.ROWS.items():
        settings = module.Settings.from_paper(*names, 1 - density / 100)
        assert math.isclose(100 * (1 - settings.target_sparsity), density)
        assert status in ("final", "first", "grid", "extra")
        # At least two freezes, and training continues after the last one.
        assert settings.mining_epochs // settings.freeze_period >= 3
    status = {key: status for key, (_, status) in paper.ROWS.items()}
    assert status["cifar10", "resnet20", 1.44] == "first"
    assert status["cifar10", "mobilenet_v2", 5] == "final"
    assert status["cifar100", "resnet32_double", 2] == "grid"


def test_initial_adaptive_penalty_is_near_authors_weights(recipes):
    """The weights agree within a factor of 3 for all SGD settings.

    With SGD, a penalty `weight * sum(p ** 2)` reduces a score in each step by
    the fraction `2 * weight * rate / (1 - momentum)`.
    """
    paper, _ = recipes
    examples = {"cifar10": 50_000, "cifar100": 50_000, "tiny_imagenet": 1e5}
    compared = []
    for (dataset, _, density), (row, _) in paper.ROWS.items():
        rate, found = row["learning_rate"], row["regularization"]
        if row["optimizer"] != "sgd" or not found or density == 50:
            continue  # At density 50 %, uniform scores need no penalty.
        sparse = gems.SparseModel(
            keras.Sequential(
                [keras.Input((100,)), keras.layers.Dense(100, use_bias=False)]
            ),
            seed=0,
        )
        freezes = row["mining_epochs"] // row["freeze_period"] - 1
        batches = math.ceil(examples[dataset] / row["batch_size"])
        gems.gem_miner.Adaptive().begin_epoch(
            sparse.gem,
            round(100 * density),
            batches * row["freeze_period"] * freezes,
        )
        weight = float(sparse.gem.penalty.weight.numpy()) * 0.1 / (2 * rate)
        assert found / 3 < weight < 3 * found, (dataset, density)
        compared.append(weight / found)
    assert len(compared) == 15
    logarithms = [math.log(ratio) for ratio in compared]
    assert abs(sum(logarithms) / len(logarithms)) < math.log(1.5)


def test_settings_missing_in_paper_are_refused_with_alternatives(recipes):
    _, module = recipes
    with pytest.raises(ValueError, match="resnet18 at 0.5, 0.8, 0.95, 0.986"):
        module.Settings.from_paper("tiny_imagenet", "resnet18", 0.9)
    with pytest.raises(ValueError, match="on 'cifar100', for which it has res"):
        module.Settings.from_paper("cifar100", "resnet20", 0.95)
    with pytest.raises(ValueError, match="Did you mean 0.986?"):
        module.Settings.from_paper("cifar10", "resnet20", 98.6)
    with pytest.raises(ValueError, match="Did you mean .*'resnet20'"):
        module.Settings.from_paper("cifar10", "resnet21", 0.95)


def test_new_settings_do_not_rename_old_runs(recipes):
    _, module = recipes
    # The names of runs before the optimizer was a setting.
    assert module.Settings("cifar10", "resnet20").hash() == "2ca12faedfd3"
    row = module.Settings.from_paper("cifar10", "resnet20", 0.9856)
    assert row.hash() == "2ca12faedfd3"
    other = module.Settings("cifar10", "resnet20", optimizer="adam")
    assert other.hash() != "2ca12faedfd3"


def test_incompatible_settings_are_refused(recipes):
    _, module = recipes
    with pytest.raises(ValueError, match="in order. Received: first_mil"):
        module.Settings("cifar10", "vgg16", first_milestone=0.9)
    with pytest.raises(ValueError, match="Did you mean 'adam'"):
        module.Settings("cifar10", "vgg16", optimizer="adamw")
