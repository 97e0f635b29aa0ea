"""The guide on trained models runs, and does what it says."""

import json
import re
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_gems as gems

pytest.importorskip("sklearn")
PATH = Path(__file__).parents[1] / "docs" / "guides"
PATH /= "prune_a_trained_model.py"
GUIDE = PATH.read_text("utf-8")


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("guide"))  # it writes a file
        return runpy.run_path(PATH)


def test_eight_bits_keep_it_too(guide):
    assert guide["rounded"] > guide["dense"] - 0.05
    zeros = sum(row["zeros"] for row in guide["int8"].tensors)
    assert zeros >= 0.8 * guide["sparse"].ticket().size


def test_it_keeps_the_accuracy(guide):
    assert guide["dense"] > 0.85
    assert guide["pruned"] > guide["dense"] - 0.05
    assert guide["sparse"].ticket().sparsity == pytest.approx(0.8, abs=1e-3)


def test_the_plain_model_is_the_pruned_one(guide):
    plain = guide["plain"]
    assert type(plain) is keras.Sequential
    zeros = [float(np.mean(np.array(w) == 0)) for w in plain.weights]
    by_path = dict(zip([w.path for w in plain.weights], zeros, strict=True))
    depthwise = [z for path, z in by_path.items() if "depthwise" in path]
    assert depthwise == [0.0] and max(zeros) > 0.8


def test_policies_of_the_table_are_those_of_the_code():
    named = set(re.findall(r'^\| `"(\w+)"` \|', GUIDE, re.M))
    assert named == set(gems.filter_policies.POLICIES)


def test_in_one_shot(guide):
    again, ticket = guide["again"], guide["ticket"]
    assert ticket.sparsity == pytest.approx(0.85, abs=1e-3)
    assert again.phase == "finetuning"
    assert guide["one_shot"] > 0.3  # nothing has been trained since


def test_the_table_holds_the_figures_of_the_results():
    path = Path(gems.__file__).parents[1] / "benchmarks/results/trained.json"
    rows = json.loads(path.read_text("utf-8"))["rows"]
    found = {
        (row["network"], row["distribution"]): row
        for row in rows
        if (row["seed"], row["way"], row["sparsity"]) == (0, "gradual", 0.9)
    }
    lines = [line for line in GUIDE.splitlines() if line.startswith("| ")]
    head = next(x for x in lines if x.startswith("| network"))
    names = [cell.strip(" `") for cell in head.split("|")[3:-1]]
    networks = dict.fromkeys(network for network, _ in found)
    for network in networks:
        [line] = [x for x in lines if x.startswith(f"| {network} ")]
        dense, *cells = [cell.strip() for cell in line.split("|")[2:-1]]
        for name, cell in zip(names, cells, strict=True):
            row = found.get((network, name))
            assert cell == (f"{100 * row['accuracy']:.1f}" if row else "-")
            if row:
                assert dense == f"{100 * row['dense']:.1f}"
