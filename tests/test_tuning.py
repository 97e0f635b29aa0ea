"""Tests hyperparameter searches for Gem-Miner, with real trials."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import tf_gems as gems

keras_tuner = pytest.importorskip("keras_tuner")

from tf_gems import tuning  # noqa: E402

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="KerasTuner is tested on the TensorFlow backend",
)


def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    train = [(x[i : i + 64], y[i : i + 64]) for i in range(0, 640, 64)]
    return train, (x[640:960], y[640:960])


def build():
    """Returns a compiled Keras model with the same weights each time."""
    kernels = [keras.initializers.HeNormal(seed=s) for s in (0, 1)]
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(64, "relu", kernel_initializer=kernels[0]),
            layers.Dense(10, kernel_initializer=kernels[1]),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def test_search_with_two_trials(tmp_path):
    train, validation = digits()
    tuner = keras_tuner.RandomSearch(
        tuning.GemMinerHyperModel(
            build,
            target_sparsity=0.8,
            epochs=4,
            finetuning_epochs=2,
            finetuning_learning_rate=0.2,
            learning_rate=(0.3, 1.0),
            distribution="uniform",
        ),
        objective="val_accuracy",
        max_trials=2,
        directory=tmp_path,
        project_name="search",
        seed=1,
    )
    with pytest.raises(ValueError, match="'search', without any"):
        tuning.best_ticket(tuner)
    tuner.search(train, validation_data=validation, verbose=0)

    settings = [t.hyperparameters.values for t in tuner.oracle.trials.values()]
    names = {"regularization", "freeze_period", "learning_rate"}
    assert len(settings) == 2 and settings[0] != settings[1]
    for chosen in settings:
        assert set(chosen) == names
        assert 1e-6 <= chosen["regularization"] <= 1e-3
        assert 0.3 <= chosen["learning_rate"] <= 1.0
        assert chosen["freeze_period"] == 1

    # The tickets are those of the trials.
    results = {}
    for trial in tuner.oracle.trials.values():
        directory = tmp_path / "search" / f"trial_{trial.trial_id}"
        ticket = gems.Ticket.load(directory / "ticket.gem")
        results[trial.score] = ticket
        assert ticket.kept == round(0.2 * ticket.size)
        method = gems.methods.get(ticket.metadata["method"])
        chosen = trial.hyperparameters.values
        assert method.get_config()["learning_rate"] == chosen["learning_rate"]
        assert isinstance(method.distribution, gems.distributions.Uniform)
        metrics = ticket.metadata["results"]
        assert metrics["val_accuracy"] == pytest.approx(trial.score)
        stored = json.loads((directory / "trial.json").read_text())
        assert stored["score"] == pytest.approx(trial.score)

        plain = build()
        ticket.apply(plain)
        mined = plain.evaluate(*validation, verbose=0, return_dict=True)
        assert mined["accuracy"] == pytest.approx(
            metrics["val_mined_accuracy"], abs=0.01
        )
        assert metrics["val_accuracy"] > metrics["val_mined_accuracy"]
    best = tuning.best_ticket(tuner)
    for path, mask in best.masks.items():
        np.testing.assert_array_equal(mask, results[max(results)].masks[path])

    # KerasTuner's own way to get the fine-tuned network.
    [model] = tuner.get_best_models(1)
    found = model.evaluate(*validation, verbose=0, return_dict=True)
    assert found["accuracy"] == pytest.approx(max(results), abs=1e-6)


def test_failed_search_reports_reason(tmp_path):
    train, validation = digits()

    class Failing(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise OSError("No space left.")

    tuner = keras_tuner.RandomSearch(
        tuning.GemMinerHyperModel(build, target_sparsity=0.8, epochs=2),
        objective="val_accuracy",
        max_trials=1,
        directory=tmp_path,
        project_name="search",
    )
    tuner.search(
        train, validation_data=validation, callbacks=[Failing()], verbose=0
    )
    with pytest.raises(
        ValueError, match="'search', without any.*No space left"
    ):
        tuning.best_ticket(tuner)


def test_better_run_of_trial_is_kept(tmp_path):
    objective = keras_tuner.Objective("val_accuracy", "max")
    path = tmp_path / "ticket.gem"
    left = tmp_path / "ticket.gem.partial-0123456789ab.lock"
    for accuracy, expected in [(0.5, 0.5), (0.4, 0.5), (0.6, 0.6)]:
        ticket = gems.Ticket(
            {"w": np.ones((2, 2), bool)},
            {"w": np.ones((2, 2), "float32")},
            {"results": {"val_accuracy": accuracy}},
        )
        left.touch()  # From a run that was killed after saving.
        tuning._save_if_best(ticket, path, objective)
        assert not left.exists()
        kept = gems.Ticket.load(path).metadata["results"]["val_accuracy"]
        assert kept == expected


class Slow(keras.optimizers.schedules.LearningRateSchedule):
    """A user's schedule that is not registered and has no config."""

    def __call__(self, step):
        return 0.2


class Own(keras.optimizers.SGD):
    """A user's optimizer that is not registered."""


class OwnLoss(keras.losses.Loss):
    def call(self, y, outputs):
        y = keras.ops.one_hot(keras.ops.cast(y, "int32"), 3)
        return keras.losses.categorical_crossentropy(y, outputs, True)


def right(y, outputs):
    return keras.metrics.sparse_categorical_accuracy(y, outputs)


def small(hp):
    """A user's `build` function with a hyperparameter and custom classes."""
    units = hp.Choice("units", [8, 8])
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(units, "relu", kernel_initializer=_constant()),
            layers.Dense(3, kernel_initializer=_constant()),
        ]
    )
    model.compile(Own(Slow(), momentum=0.9), OwnLoss(), metrics=[right])
    return model


def _constant():
    return keras.initializers.GlorotUniform(seed=3)


def few(count=24):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 4)).astype("float32")
    return x, generator.integers(0, 3, count)


class Epochs(keras.callbacks.Callback):
    """Records in files what a search trained, since tuners copy callbacks."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch, logs=None):
        number = len(list(self.folder.iterdir()))
        (self.folder / f"{number:03d}").write_text(json.dumps(logs))

    def __deepcopy__(self, memo):
        return Epochs(self.folder)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_hyperband_takes_search_arguments(tmp_path):
    x, y = few()
    tuner = keras_tuner.Hyperband(
        tuning.GemMinerHyperModel(small, 0.5),
        objective=keras_tuner.Objective("val_right", "max"),
        max_epochs=3,
        factor=3,
        directory=tmp_path / "tuning",
        seed=0,
        max_consecutive_failed_trials=1,
    )
    (tmp_path / "seen").mkdir()
    tuner.search(
        x,
        y,
        batch_size=8,
        validation_split=0.25,
        callbacks=[
            Epochs(tmp_path / "seen"),
            keras.callbacks.EarlyStopping("val_loss", patience=0),
        ],
        verbose=0,
    )
    trials = list(tuner.oracle.trials.values())
    assert {t.hyperparameters.values["units"] for t in trials} == {8}
    assert {t.hyperparameters.values["tuner/epochs"] for t in trials} == {1, 3}
    tickets = []
    for trial in trials:
        directory = tuner.get_trial_dir(trial.trial_id)
        ticket = gems.Ticket.load(f"{directory}/ticket.gem")
        asked = trial.hyperparameters.values["tuner/epochs"]
        epochs = ticket.metadata["method"]["config"]["epochs"]
        assert epochs == max(2, asked)
        assert ticket.kept == round(0.5 * ticket.size)
        assert trial.score == ticket.metadata["results"]["val_right"]
        assert "loss" in ticket.metadata["results"]
        tickets.append((epochs, ticket))
    # Every trial mined the initial weights, including continued trials.
    model = small(keras_tuner.HyperParameters())
    for _, ticket in tickets:
        for value, weight in zip(
            ticket.weights.values(), model.weights, strict=True
        ):
            mask = np.asarray(value) != 0
            np.testing.assert_array_equal(value[mask], np.array(weight)[mask])
    # The user's callback was called for all epochs, with validation data.
    seen = sorted((tmp_path / "seen").iterdir())
    assert len(seen) == sum(epochs for epochs, _ in tickets)
    assert "val_right" in json.loads(seen[0].read_text())


@pytest.mark.usefixtures("eagerly")
def test_search_without_validation_data_is_refused(tmp_path):
    tuner = keras_tuner.RandomSearch(
        tuning.GemMinerHyperModel(small, 0.5),
        objective=keras_tuner.Objective("val_right", "max"),
        directory=tmp_path,
    )
    with pytest.raises(ValueError, match="'val_right'.*validation_split"):
        tuner.search(*few(), epochs=2, verbose=0)
    with pytest.raises(ValueError, match="Pass `epochs` to `search`"):
        tuner.search(*few(), validation_data=few(), verbose=0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"target_sparsity": 98}, "Did you mean 0.98"),
        ({"epochs": 0}, "epochs=0"),
        ({"learning_rate": (0.1, 0.01)}, r"learning_rate=\(0.1, 0.01\)"),
        ({"regularization": (0.0, 1e-3)}, "regularization=.*0.0, 0.001"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tuning.GemMinerHyperModel(
            build, **{"target_sparsity": 0.9, "epochs": 4, **arguments}
        )
