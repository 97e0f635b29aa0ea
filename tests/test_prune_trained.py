"""Runs the guide on trained models, and checks its results."""

import re
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
from tables_of_pages import results
from tables_of_pages import table_under

import tf_gems as gems

pytest.importorskip("sklearn")
PATH = Path(__file__).parents[1] / "docs" / "guides"
PATH /= "prune_a_trained_model.py"
GUIDE = PATH.read_text("utf-8")


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # The guide writes a file.
        patch.chdir(tmp_path_factory.mktemp("guide"))
        return runpy.run_path(PATH)


@pytest.mark.slow
def test_int8_export_keeps_accuracy(guide):
    assert guide["rounded"] > guide["dense"] - 0.05
    zeros = sum(row["zeros"] for row in guide["int8"].tensors)
    assert zeros >= 0.8 * guide["sparse"].ticket().size


@pytest.mark.slow
def test_pruning_keeps_accuracy(guide):
    assert guide["dense"] > 0.85
    assert guide["pruned"] > guide["dense"] - 0.05
    assert guide["sparse"].ticket().sparsity == pytest.approx(0.8, abs=1e-3)


@pytest.mark.slow
def test_stripped_model_is_pruned(guide):
    plain = guide["plain"]
    assert type(plain) is keras.Sequential
    zeros = [float(np.mean(np.array(w) == 0)) for w in plain.weights]
    by_path = dict(zip([w.path for w in plain.weights], zeros, strict=True))
    depthwise = [z for path, z in by_path.items() if "depthwise" in path]
    assert depthwise == [0.0] and max(zeros) > 0.8


def test_policies_in_table_match_code():
    named = set(re.findall(r'^\| `"(\w+)"` \|', GUIDE, re.M))
    assert named == set(gems.filter_policies.POLICIES)


@pytest.mark.slow
def test_one_shot_pruning(guide):
    again, ticket = guide["again"], guide["ticket"]
    assert ticket.sparsity == pytest.approx(0.85, abs=1e-3)
    assert again.phase == "finetuning"
    assert guide["one_shot"] > 0.3  # The model has not been trained since then.


PAGE = "guides/prune_a_trained_model.py"


def mean(rows, **wanted):
    """Returns the mean accuracy of the matching rows, in percent."""
    found = [
        row["accuracy"]
        for row in rows
        if all(row[key] == value for key, value in wanted.items())
    ]
    return f"{100 * np.mean(found):.1f}" if found else "-"


def test_distributions_table_matches_results():
    rows = [r for r in results("trained.json") if r["seed"] == 0]
    head, lines = table_under(PAGE, "Distribution over the layers")
    assert {line[0] for line in lines} == {row["network"] for row in rows}
    for network, dense, *cells in lines:
        of_network = [row for row in rows if row["network"] == network]
        assert dense == f"{100 * of_network[0]['dense']:.1f}"
        for name, cell in zip(head[2:], cells, strict=True):
            wanted = {"way": "gradual", "sparsity": 0.9, "distribution": name}
            assert cell == mean(of_network, **wanted)


def test_optimizers_table_matches_results():
    rows = results("trained_steps.json")
    ways = (
        "gradual",
        "gradual with hyperbolic step",
        "gradual with density scaling",
    )
    for network, zeros, *cells in table_under(
        PAGE, "Optimizers for sparse weights"
    )[1]:
        wanted = {"network": network, "sparsity": int(zeros[:-1]) / 100}
        assert cells == [mean(rows, way=way, **wanted) for way in ways]


def test_tfmot_table_matches_results():
    rows = results("trained_tfmot.json")
    for network, zeros, seeds, dense, *cells in table_under(
        PAGE, "Comparison with TF Model Optimization"
    )[1]:
        wanted = {"network": network, "sparsity": int(zeros[:-1]) / 100}
        of_ours = [
            row
            for row in rows
            if row["network"] == network and row["way"] == "gradual"
        ]
        assert int(seeds) == len({row["seed"] for row in of_ours})
        by_seed = {row["seed"]: row["dense"] for row in of_ours}
        assert dense == f"{100 * np.mean(list(by_seed.values())):.1f}"
        assert cells == [
            mean(rows, way=way, **wanted) for way in ("gradual", "tfmot")
        ]


def test_int8_table_matches_results():
    rows = results("quantization.json")
    keys = ("float", "after_training", "aware")
    lines = table_under(PAGE, "Quantization-aware training")[1]
    assert {line[0] for line in lines} == {row["network"] for row in rows}
    for network, seeds, *cells in lines:
        found = [row for row in rows if row["network"] == network]
        assert int(seeds) == len(found)
        means = [100 * np.mean([row[key] for row in found]) for key in keys]
        assert cells == [f"{value:.1f}" for value in means]
