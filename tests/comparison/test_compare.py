"""Tests comparisons: cells, training budget, resuming and files."""

import csv
import json

import keras
import numpy as np
import pytest
from keras import layers

import tf_gems as gems
from tf_gems import methods
from tf_gems.comparison import Comparison

pytestmark = pytest.mark.usefixtures("eagerly")

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
METHODS = {
    "random": "random",
    "snip": "snip",
    "miner": methods.GemMiner(0.5, epochs=2, freeze_period=1),
}
TWO = {name: METHODS[name] for name in ("snip", "miner")}

random = np.random.default_rng(0)
X = random.normal(size=(2, 16, 8)).astype("float32")
TRAIN = [(x, (x[:, 0] > 0).astype("int64")) for x in X]


READINGS = 2  # The data of each seed, which identifies the cells.


class Trainings:
    """Data that counts the epochs that were read.

    Args:
        stop_in: Integer, number of epochs after which reading fails.
        batches: List of batches.
    """

    def __init__(self, stop_in=None, batches=TRAIN):
        self.epochs = 0
        self.stop_in = stop_in
        self.batches = batches

    def __call__(self, seed):
        counter = self

        class Counted(keras.utils.PyDataset):
            def __len__(self):
                return len(counter.batches)

            def __getitem__(self, index):
                if (counter.epochs, index) == (counter.stop_in, 1):
                    raise RuntimeError("stopped here")
                counter.epochs += index == len(counter.batches) - 1
                return counter.batches[index]

        return Counted()


def build(seed):
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, activation="relu", name="hidden"),
            layers.Dense(2, name="output"),
        ]
    )


def several(seed):
    inputs = keras.Input((8,))
    hidden = layers.Dense(4)(inputs)
    outputs = [layers.Dense(2)(hidden), hidden]
    return keras.Model(inputs, outputs, name="several")


def compare(directory, train=TRAIN, build=build, **arguments):
    settings = {
        "methods": METHODS,
        "sparsities": [0.5, 0.8],
        "epochs": 3,
        "seeds": (0, 1),
        "learning_rate": 0.1,
        "verbose": 0,
        **arguments,
    }
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    return gems.compare(
        build,
        train,
        TRAIN,
        directory=directory,
        optimizer=optimizer,
        loss=LOSS,
        **settings,
    )


def without_seconds(rows):
    return [
        {key: value for key, value in row.items() if "seconds" not in key}
        for row in rows
    ]


def test_cells_have_equal_budget_files_and_plots(tmp_path):
    checks = {0.8: ("shuffled",)}
    comparison = compare(tmp_path, checks=checks, methods=TWO)
    rows = comparison.rows
    base = [row for row in rows if row["check"] is None]
    places = {(r["method"], r["sparsity"], r["seed"]) for r in base}
    # The dense network has no sparsity.
    assert len(base) == len(places) == 2 + 2 * 2 * 2
    assert len(rows) - len(base) == 2 * 2
    for row in base:
        assert row["epochs_of_search"] + row["epochs_of_finetuning"] == 3
        assert row["epochs_of_search"] == 2 * (row["method"] == "miner")
        assert row["kept"] == round((1 - row["sparsity"]) * row["size"])
        assert row["seconds_of_finetuning"] > 0
    found = {(r["method"], r["sparsity"], r["seed"]): r for r in base}
    for row in rows:
        same = found[row["method"], row["sparsity"], row["seed"]]
        assert row["kept"] == same["kept"]
        assert row["epochs_of_finetuning"] == same["epochs_of_finetuning"]

    text = (tmp_path / "results.json").read_text("utf-8")
    assert gems.Comparison.load(tmp_path / "results.json").rows == rows
    assert json.loads(text)["provenance"]["keras"] == keras.__version__
    with open(tmp_path / "results.csv", newline="") as file:
        assert [float(row["accuracy"]) for row in csv.DictReader(file)] == [
            row["accuracy"] for row in rows
        ]

    summary = {(s["method"], s["sparsity"]): s for s in comparison.summary()}
    miner = [r["accuracy"] for r in base if r["method"] == "miner"][2:]
    mean, spread = summary["miner", 0.8]["accuracy"]
    np.testing.assert_allclose(mean, np.mean(miner))
    np.testing.assert_allclose(spread, np.std(miner, ddof=1))
    assert set(summary["miner", 0.8]["checks"]) == {"ticket", *checks[0.8]}
    assert "verdict" in summary["miner", 0.8]
    assert "verdict" not in summary["miner", 0.5]
    assert "miner" in comparison.render()
    comparison.draw(tmp_path)
    for name in ("accuracy", "layers", "cost"):
        picture = (tmp_path / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 10_000


def test_killed_comparison_resumes_and_finished_one_runs_nothing(tmp_path):
    arguments = {"sparsities": [0.5], "seeds": (0,), "dense": False}
    three = [*TRAIN, TRAIN[0]]
    whole = compare(tmp_path / "whole", three, **arguments)
    # Two cells of three epochs are finished, and the third has started.
    stopped = Trainings(7 + READINGS, three)
    with pytest.raises(Exception, match="stopped here") as error:
        compare(tmp_path / "killed", stopped, **arguments)
    [note] = error.value.__notes__
    assert "method='miner', sparsity=0.5, seed=0" in note
    rest = Trainings(batches=three)
    resumed = compare(tmp_path / "killed", rest, **arguments)
    assert stopped.epochs == 7 + READINGS and rest.epochs == 2 + READINGS
    [*_, miner] = resumed.rows
    assert miner.pop("search_was_interrupted")
    assert without_seconds(resumed.rows) == without_seconds(whole.rows)

    again = Trainings(batches=three)
    assert (
        compare(tmp_path / "killed", again, **arguments).rows[:2]
        == (resumed.rows[:2])
    )
    assert again.epochs == READINGS
    # A comparison with more seeds runs only the new cells.
    more = Trainings(batches=three)
    compare(tmp_path / "killed", more, **{**arguments, "seeds": (0, 1)})
    assert more.epochs == 9 + 2 * READINGS


def test_all_devices_train_each_cell(mirrored_strategy, tmp_path):
    import tensorflow as tf

    tf.config.run_functions_eagerly(False)  # Replicas need compiled functions.
    replicas = []

    def watched(seed):
        here = tf.distribute.get_strategy()
        replicas.append(here.num_replicas_in_sync)
        return build(seed)

    few = {
        "methods": ["snip"],
        "sparsities": [0.5],
        "seeds": (0,),
        "build": watched,
        "dense": False,
    }
    one = compare(tmp_path / "one", **few)
    assert set(replicas) == {1}
    replicas.clear()
    two = compare(tmp_path / "two", strategy=mirrored_strategy, **few)
    assert set(replicas) == {2} and len(replicas) >= len(two.rows)
    for a, b in zip(one.rows, two.rows, strict=True):
        assert a["method"] == b["method"] and a["kept"] == b["kept"]
        assert abs(a["accuracy"] - b["accuracy"]) <= 0.05
    # Tickets that are found before training are equal, bit for bit.
    [one, two] = [
        gems.Ticket.load(next(tmp_path.glob(f"{name}/cells/snip-*.gem")))
        for name in ("one", "two")
    ]
    for name, mask in one.masks.items():
        np.testing.assert_array_equal(mask, two.masks[name])


def test_comparison_within_strategy_scope_is_refused(
    mirrored_strategy, tmp_path
):
    with mirrored_strategy.scope():
        with pytest.raises(ValueError, match="Pass `strategy` instead"):
            compare(tmp_path)
    assert not list(tmp_path.iterdir())


def test_methods_may_be_names_or_functions(tmp_path):
    comparison = compare(
        tmp_path,
        methods=["random", methods.Snip(0.1, batches=2)],
        sparsities=[0.8],
        seeds=(3,),
        epochs=1,
        dense=False,
    )
    assert [row["method"] for row in comparison.rows] == ["random", "snip"]
    comparison = compare(
        tmp_path,
        methods={"mine": lambda s: methods.Magnitude(s, "uniform")},
        sparsities=[0.5],
        seeds=(0,),
        epochs=1,
        dense=False,
    )
    [row] = comparison.rows
    densities = row["density_of_layers"].values()
    np.testing.assert_allclose(list(densities), 0.5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"epochs": 1}, "'miner' takes 2 at sparsity 0.5.*increase `epochs`"),
        ({"epochs": 0}, "`epochs` must be a positive integer"),
        ({"sparsities": [80]}, "Did you mean 0.8"),
        ({"methods": ["snup"]}, "Did you mean 'snip'"),
        ({"checks": ["shufled"]}, "Did you mean 'shuffled'"),
        ({"metric": "mae"}, "metric='mae', which is to be minimized"),
        ({"metric": "crossentropy"}, "which is to be minimized"),
        ({"metric": keras.losses.mean_squared_error}, "to be minimized"),
        ({"metric": "MeanIoU"}, "`metric` must be a Keras metric"),
        ({"build": several}, "'several' with 2 outputs"),
        ({"train": []}, "train of type ListedBatches, which is empty"),
        ({"train": iter(TRAIN)}, "yields each batch only once"),
        (
            {"train": [(x, np.full(len(y), np.nan)) for x, y in TRAIN]},
            "16 NaN among the targets of train",
        ),
    ],
)
def test_invalid_arguments_are_refused_before_training(
    arguments, message, tmp_path
):
    train = Trainings()
    with pytest.raises(ValueError, match=message):
        compare(tmp_path / "new", **{"train": train, **arguments})
    assert train.epochs == 0 and not (tmp_path / "new").exists()


def test_unrelated_cells_are_reported_and_not_used(tmp_path):
    arguments = {
        "methods": ["magnitude"],
        "sparsities": [0.5],
        "epochs": 1,
        "seeds": (0,),
        "dense": False,
    }
    [before] = compare(tmp_path, **arguments).rows

    def wider(seed):
        return keras.Sequential(
            [keras.Input((8,)), layers.Dense(30), layers.Dense(2)]
        )

    with pytest.warns(UserWarning, match="1 cells .* in: network, initial w"):
        [other] = compare(tmp_path, build=wider, **arguments).rows
    assert other["size"] != before["size"]
    with pytest.warns(UserWarning, match="2 cells .* in: epochs, network, ini"):
        compare(tmp_path, **{**arguments, "epochs": 2})
    fewer = Trainings()
    # The first comparison is still there, and is found.
    assert compare(tmp_path, fewer, **arguments).rows == [before]
    assert fewer.epochs == READINGS
    # So is a cell of an earlier version without these fields.
    for path in (tmp_path / "cells").glob("*.json"):
        record = json.loads(path.read_text())
        del record["key"]
        path.rename(path.with_name(f"old-{path.name}"))
        (path.with_name(f"old-{path.name}")).write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="a version that did not record it"):
        compare(tmp_path, **arguments)
    # A damaged cell is named, and is not mistaken for another cell.
    [path, *_] = (tmp_path / "cells").glob("magnitude*.json")
    path.write_text(path.read_text()[:50])
    with pytest.raises(ValueError, match=f"{path.name}.*Remove this file"):
        compare(tmp_path, **arguments)


def test_diverged_cells_are_marked_and_excluded(tmp_path):
    def train(seed):
        if seed:
            return TRAIN
        return [(np.full_like(x, np.nan), y) for x, y in TRAIN]

    comparison = compare(
        tmp_path,
        train,
        methods={
            "magnitude": "magnitude",
            "miner": methods.GemMiner(0.5, epochs=2, freeze_period=1),
        },
        sparsities=[0.5],
        dense=False,
    )
    lost = {row["method"]: row for row in comparison.rows if not row["seed"]}
    assert lost["magnitude"]["accuracy"] is None
    assert "fine-tuning" in lost["magnitude"]["diverged"]
    assert "search: Mining stopped in epoch 1" in lost["miner"]["diverged"]
    [good] = [
        row["accuracy"]
        for row in comparison.rows
        if row["seed"] and row["method"] == "magnitude"
    ]
    for found in comparison.summary():
        assert (found["seeds"], found["diverged"]) == (2, 1)
        assert found["accuracy"][1] is None
        if found["method"] == "magnitude":
            assert found["accuracy"][0] == good
    text = comparison.render()
    assert text.count("1 of 2 diverged") == 2
    assert json.loads((tmp_path / "results.json").read_text())
    comparison.draw(tmp_path)
    # The cell is not run again.
    rows = compare(
        tmp_path, train, methods=["magnitude"], sparsities=[0.5], dense=False
    ).rows
    assert rows == [r for r in comparison.rows if r["method"] == "magnitude"]


def test_single_seed_has_no_spread():
    row = {
        "method": "snip",
        "check": None,
        "sparsity": 0.5,
        "seed": 0,
        "accuracy_before": 0.25,
        "accuracy": 0.75,
        "epochs_of_search": 0,
    }
    one = gems.Comparison([row], {"epochs": 3}, {})
    assert "±" not in one.render() and "75.00" in one.render()
    assert "One seed" in one.render()
    two = gems.Comparison(
        [row, {**row, "seed": 1, "accuracy": 0.73}], {"epochs": 3}, {}
    )
    assert "74.00 ±1.41" in two.render()


def test_build_function_must_return_new_networks(tmp_path):
    shared, calls = build(0), []

    def drawn(seed):
        calls.append(build(seed))
        calls[-1].layers[0].kernel.assign_add(len(calls) * np.ones((8, 12)))
        return calls[-1]

    for wrong, message in (
        (lambda seed: shared, "seed=0.*the same model as an earlier"),
        (drawn, "seed=0.*different initial weights"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(
                tmp_path,
                build=wrong,
                methods=["magnitude"],
                sparsities=[0.5],
                seeds=(0,),
            )


def test_metric_objects(tmp_path):
    """It counts the examples of each cell separately."""
    metric = keras.metrics.SparseCategoricalAccuracy(name="right")
    settings = {
        "methods": ["snip"],
        "sparsities": [0.5],
        "seeds": (0,),
        "epochs": 1,
    }
    found = compare(tmp_path / "object", metric=metric, **settings).rows
    named = compare(tmp_path / "name", **settings).rows
    assert without_seconds(found) == without_seconds(named)


def test_method_with_incomplete_config_is_refused(tmp_path):
    class Powered(methods.Magnitude):
        def __init__(self, target_sparsity, power=1.0, **kwargs):
            super().__init__(target_sparsity, **kwargs)
            self.exponent = power

    with pytest.raises(ValueError, match="Powered.*exponent=2.0.*get_config"):
        compare(tmp_path, methods={"mine": Powered(0.5, 2.0)})


def test_only_results_are_replaced(tmp_path):
    """Results of other programs often have the same names."""
    comparison = Comparison([], {"epochs": 1}, {})
    for name in ("results.json", "results.csv"):
        path = tmp_path / name
        path.write_text('{"of": "another program"}')
        with pytest.raises(FileExistsError, match=name):
            compare(tmp_path)
        with pytest.raises(FileExistsError, match=name):
            comparison.save(tmp_path)
        assert path.read_text() == '{"of": "another program"}'
        assert [p.name for p in tmp_path.iterdir()] == [name]
        path.unlink()
    # Also in directories of earlier versions.
    text = json.dumps(comparison.to_dict())
    (tmp_path / "results.json").write_text(text)
    (tmp_path / "results.csv").write_text("older")
    comparison.save(tmp_path)
    assert (tmp_path / "results.csv").read_text() != "older"


def test_method_names_stay_in_directory(tmp_path):
    directory = tmp_path / "deep" / "er"
    names = ["../../x", "/etc/x", "a\x00", "a_"]
    comparison = compare(
        directory,
        methods=dict.fromkeys(names, "random"),
        sparsities=[0.5],
        seeds=(0,),
        epochs=1,
        dense=False,
    )
    assert [row["method"] for row in comparison.rows] == names
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["er"]
    assert len(list((directory / "cells").glob("*.json"))) == len(names)
