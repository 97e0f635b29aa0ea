"""Tests comparisons whose cells run on executors."""

import multiprocessing
import os
from concurrent import futures

import keras
import numpy as np
import pytest
from keras import layers

import tf_gems as gems
from tf_gems import methods
from tf_gems.comparison import executors
from tf_gems.files import claimed

X = np.random.default_rng(0).normal(size=(2, 16, 8)).astype("float32")
TRAIN = [(x, (x[:, 0] > 0).astype("int64")) for x in X]


class Halved(keras.losses.Loss):
    """Not registered, and with state that is not in its config."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * keras.losses.sparse_categorical_crossentropy(
            y_true, y_pred, from_logits=True
        )


def build(seed):
    return keras.Sequential(
        [keras.Input((8,)), layers.Dense(12, activation="relu", name="a")]
        + [layers.Dense(2, name="b")]
    )


def by_process(seed):
    network = build(seed)
    network.layers[0].kernel.assign_add(np.full((8, 12), os.getpid() % 97))
    return network


def train_by_process(seed):
    return [(x + os.getpid() % 97, y) for x, y in TRAIN]


def compare(directory, executor=None, build=build, train=TRAIN, **arguments):
    mine = methods.GemMiner(0.5, 2, freeze_period=1)
    return gems.compare(
        build,
        train,
        TRAIN,
        sparsities=[0.5],
        epochs=2,
        directory=directory,
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        loss=Halved(0.5),
        metric=keras.metrics.SparseCategoricalAccuracy(name="right"),
        seeds=(0,),
        checks=("shuffled",),
        executor=executor,
        **{
            "methods": {"snip": "snip", "mine": mine},
            "verbose": 0,
            **arguments,
        },
    )


class Here(futures.Executor):
    """Runs calls in this process, and records them."""

    def __init__(self):
        self.called = []

    def submit(self, function, *args):
        self.called.append(function.__name__)
        future = futures.Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def without_seconds(rows):
    return [
        {name: value for name, value in row.items() if "seconds" not in name}
        for row in rows
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Rows and directory of the comparison without an executor."""
    directory = tmp_path_factory.mktemp("whole")
    return compare(directory).rows, directory


@pytest.fixture(scope="module")
def processes():
    spawn = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(1, mp_context=spawn) as executor:
        yield executor


def test_processes_return_same_rows(whole, processes, tmp_path, capsys):
    found = compare(tmp_path, processes, verbose=1).rows
    assert without_seconds(found) == without_seconds(whole[0])
    assert capsys.readouterr().out.count("after fine-tuning") == len(found)
    for path in (tmp_path / "cells").glob("*.gem"):
        ours = whole[1] / "cells" / path.name
        assert path.read_bytes() == ours.read_bytes()
    # Finished cells are read without a worker in both modes.
    here = Here()
    assert compare(tmp_path, here).rows == found and not here.called
    assert compare(tmp_path).rows == found


def test_workers_with_other_network_or_data_are_refused(processes, tmp_path):
    with pytest.raises(ValueError, match="different initial weights"):
        compare(tmp_path / "a", processes, by_process)
    with pytest.raises(ValueError, match="seed=0, whose training data differs"):
        compare(tmp_path / "b", processes, train=train_by_process)
    assert not list(tmp_path.glob("*/cells/*.json"))


@pytest.mark.slow
def test_loky_runs_functions_without_module(whole, tmp_path):
    loky = pytest.importorskip("joblib.externals.loky")
    executor = loky.ProcessPoolExecutor(1)
    local = [TRAIN]
    try:
        found = compare(tmp_path, executor, train=lambda seed: local[0]).rows
    finally:
        executor.shutdown()
    assert without_seconds(found) == without_seconds(whole[0])


def test_cells_of_a_ticket_run_in_one_call(whole, tmp_path):
    here = Here()
    found = compare(tmp_path, here, methods=["snip"], dense=False).rows
    assert without_seconds(found) == without_seconds(whole[0][1:3])
    assert here.called.count("run_cells") == 1


def test_error_cancels_other_cells(tmp_path):
    class Late(Here):
        """Fails in its first cell, and never starts the others."""

        futures_ = []

        def submit(self, function, *args):
            if function is not executors.run_cells:
                return super().submit(function, *args)
            future = futures.Future()
            if not self.futures_:
                future.set_exception(RuntimeError("out of memory"))
            self.futures_.append(future)
            return future

    with pytest.raises(RuntimeError, match="out of memory"):
        compare(tmp_path, Late())
    assert [f.cancelled() for f in Late.futures_] == [False, True, True]
    locks = list(tmp_path.glob("cells/*.lock"))
    for lock in locks:
        with claimed(lock) as mine:
            assert mine
    assert len(locks) in (0, 3)  # Some systems remove a file with its lock.


def test_invalid_executors_are_refused_before_training(
    mirrored_strategy, tmp_path
):
    fork = multiprocessing.get_context("fork")
    with futures.ThreadPoolExecutor(2) as threads:
        with pytest.raises(ValueError, match="Cells must run in separate"):
            compare(tmp_path, threads)
    with pytest.raises(ValueError, match="must be a `concurrent.futures.Exec"):
        compare(tmp_path, 2)
    with pytest.raises(ValueError, match="Leave one of them out"):
        compare(tmp_path, Here(), strategy=mirrored_strategy)
    with futures.ProcessPoolExecutor(1, mp_context=fork) as forked:
        with pytest.raises(ValueError, match="Pass `mp_context="):
            compare(tmp_path, forked)
    assert not list(tmp_path.glob("cells/*"))


def test_unpicklable_objects_are_named(processes, tmp_path):
    with pytest.raises(ValueError, match="Define functions and classes in a"):
        compare(tmp_path, processes, lambda seed: build(seed))
    assert not list(tmp_path.glob("cells/*"))
