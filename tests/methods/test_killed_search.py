"""Tests that a killed search resumes with the same result.

This file is also the program that is killed: `NAME DIRECTORY READS`.
"""

import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from interruption import Interrupted
from keras import layers

import tf_gems as gems
from tf_gems import methods
from tf_gems.files import lock

SETTINGS = {  # Each trains for 6 epochs.
    "imp": {"epochs": 3, "rounds": 2, "rewind_steps": 3},
    "gem_miner": {"epochs": 6, "freeze_period": 1},
}
random = np.random.default_rng(0)
DATA = [
    (
        random.normal(size=(8, 5)).astype("float32"),
        random.normal(size=(8, 3)).astype("float32"),
    )
    for _ in range(4)
]


def search(name, data, directory=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(10, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(3),
        ]
    )
    sparse = gems.SparseModel(model, seed=0)
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    method = methods.get(
        name, target_sparsity=0.7, learning_rate=0.1, **SETTINGS[name]
    )
    return method.find(sparse, data, directory=directory)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9 needs POSIX")
@pytest.mark.parametrize("name", SETTINGS)
def test_killed_search_resumes(name, tmp_path):
    tests = pathlib.Path(__file__).parents[1]
    paths = tests.parent, tests
    run = subprocess.run(
        # The search needs 24 batches. Each `fit` with a backup reads one more,
        # and a `fit` may prefetch some.
        [sys.executable, __file__, name, str(tmp_path), "23"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr[-2000:]
    part = {"imp": "round_2", "gem_miner": "training"}[name]
    assert list((tmp_path / part).glob("*.backup"))

    ticket = search(name, DATA, tmp_path)
    whole = search(name, DATA)
    assert ticket.kept == round(0.3 * ticket.size)
    for a, b in ((ticket.masks, whole.masks), (ticket.weights, whole.weights)):
        for x, y in zip(a.values(), b.values(), strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", SETTINGS)
def test_search_removes_only_its_files(name, tmp_path):
    """Files and directories of the user are kept, and backups are removed."""
    part = {"imp": "round_1", "gem_miner": "training"}[name]
    notes = tmp_path / part / "thesis" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    search(name, DATA, tmp_path)
    assert notes.read_text() == "mine"
    assert not list(tmp_path.rglob("*.backup"))
    found = {path.name for path in tmp_path.iterdir()}
    rounds = {"rewind.gem", "round_1.gem", "round_2.gem"}
    assert found == {part, *(rounds if name == "imp" else ())}


@pytest.mark.parametrize("file", ["rewind.gem", "round_1.gem"])
def test_user_ticket_is_not_replaced(file, tmp_path):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
    other = methods.Magnitude(0.7).find(gems.SparseModel(model, seed=0))
    for save in (other.save, lambda path: path.write_text("no ticket")):
        save(tmp_path / file)
        before = (tmp_path / file).read_bytes()
        with pytest.raises((FileExistsError, ValueError), match=file):
            search("imp", DATA, tmp_path)
        assert (tmp_path / file).read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == [file]


def test_empty_user_directory_is_kept(tmp_path):
    (tmp_path / "training").mkdir()
    search("gem_miner", DATA, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["training"]
    search("gem_miner", DATA, tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_two_searches_in_one_directory_are_refused(tmp_path):
    with lock(tmp_path):
        with pytest.raises(
            RuntimeError, match="in which another process works"
        ):
            search("gem_miner", DATA, tmp_path)


if __name__ == "__main__":
    _, chosen, backups, reads = sys.argv
    search(chosen, Interrupted(DATA, int(reads), kill=True), backups)
