"""Tests that an interrupted run resumes without a difference."""

import contextlib
import importlib.util
import itertools
import resource

import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import layers

import tf_gems as gems
from tf_gems import datasets
from tf_gems.callbacks import backup

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(256, size=(60, 8, 8, 3), dtype="uint8")
LABELS = (IMAGES.mean((1, 2, 3)) > 127).astype("int64")
DATA = datasets.ImageData.normalized(
    "cifar10", (IMAGES, LABELS), (IMAGES, LABELS), 2
)  # Selected by the name: images are cropped and flipped.
EPOCHS, STEPS = 6, 4


class Kill(keras.callbacks.Callback):
    """Simulates a kill of the process after some batches."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


class CountEpochs(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)


def network(dropout):
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Flatten(),
            layers.Dense(12, activation="relu"),
            layers.BatchNormalization(),
            *([layers.Dropout(0.3)] if dropout else []),
            layers.Dense(2),
        ]
    )


def fit(seed, callbacks=(), phase="mining", dropout=True, order=1):
    """Trains a new model. Returns all variables that training changes."""
    keras.utils.set_random_seed(seed)
    model = gems.SparseModel(network(dropout), seed=seed)
    ours = [gems.GemMinerCallback(0.8, 1)]
    if phase == "finetuning":
        found = gems.methods.RandomPruning(0.8, seed=1).find(model)
        model.start_finetuning(found)
        ours = []
    model.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batches = DATA.batches(16, seed=0)
    model.fit(
        batches,
        epochs=EPOCHS,
        verbose=0,
        shuffle=False,
        callbacks=[gems.callbacks.SetEpoch(batches), *ours, *callbacks][
            ::order
        ],
    )
    return [
        keras.ops.convert_to_numpy(v)
        for v in (*model.variables, *model.optimizer.variables)
    ]


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def kill_and_resume(callbacks, batches=14, between=None, **arguments):
    with pytest.raises(KeyboardInterrupt):
        fit(0, [*callbacks(), Kill(batches)], **arguments)
    if between:
        between()
    watch = CountEpochs()
    return fit(0, [*callbacks(), watch], **arguments), watch.epochs


@pytest.fixture(scope="module")
def whole():
    """Uninterrupted runs: with dropout, without dropout and of fine-tuning."""
    with_dropout = fit(0)
    without = fit(0, dropout=False)
    assert any((w != 0).any() for w in with_dropout)
    return {
        "with": with_dropout,
        "without": without,
        "finetuning": fit(0, phase="finetuning"),
    }


@pytest.mark.parametrize("kind, order", [("keras", 1), ("ours", -1)])
def test_resumed_run_equals_uninterrupted_run(kind, order, whole, tmp_path):
    def callbacks():
        path = tmp_path / "backup"
        logs = []
        if importlib.util.find_spec("tensorboard"):
            logs = [keras.callbacks.TensorBoard(tmp_path / "logs")]
        return [
            keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
            *logs,
            # Keras' own callback does not save the state of dropout.
            keras.callbacks.BackupAndRestore(path)
            if kind == "keras"
            else gems.callbacks.Backup(path),
        ]

    dropout = kind == "ours"
    found, epochs = kill_and_resume(callbacks, dropout=dropout, order=order)
    assert epochs == [3, 4, 5], "the run was killed in the fourth epoch"
    assert_equal(found, whole["with" if dropout else "without"])


def test_resumed_finetuning(whole, tmp_path):
    found, epochs = kill_and_resume(
        lambda: [gems.callbacks.Backup(tmp_path)], phase="finetuning"
    )
    assert epochs == [3, 4, 5]
    assert_equal(found, whole["finetuning"])


def test_damaged_backup_falls_back_to_previous(whole, tmp_path):
    """All damage is detected, see below."""

    def damaged():
        last, _ = gems.callbacks.Backup(tmp_path).paths
        content = last.read_bytes()
        last.write_bytes(content[: len(content) // 2])

    with pytest.warns(UserWarning, match="000000003.backup' is damaged"):
        found, epochs = kill_and_resume(
            lambda: [gems.callbacks.Backup(tmp_path)], between=damaged
        )
    assert epochs == [2, 3, 4, 5]
    assert_equal(found, whole["with"])


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The bytes of a backup and its contents."""
    path = tmp_path_factory.mktemp("sample") / "000000001.backup"
    keras.utils.set_random_seed(0)
    values = [
        np.arange(6, dtype="float32").reshape(2, 3),
        np.array(7, "int64"),
        np.ones((2, 2), ml_dtypes.bfloat16),
        np.zeros((0, 3), "float16"),
    ]
    with open(path, "wb") as file:
        backup._write(file, {"epoch": 1, "phases": []}, values)
    return path, values


def test_every_flipped_bit_and_truncation_is_detected(sample, tmp_path):
    path, values = sample
    header, found = backup._read(path)
    assert header["epoch"] == 1
    for value, read in zip(values, found, strict=True):
        assert read.dtype == value.dtype and read.shape == value.shape
        assert read.tobytes() == value.tobytes()
    data = path.read_bytes()
    damaged = tmp_path / "000000001.backup"
    for place in range(8 * len(data)):
        other = bytearray(data)
        other[place // 8] ^= 1 << place % 8
        damaged.write_bytes(other)
        with pytest.raises(ValueError, match="checksum is wrong"):
            backup._read(damaged)
    for length in range(len(data)):
        damaged.write_bytes(data[:length])
        with pytest.raises(ValueError, match="checksum is wrong"):
            backup._read(damaged)
    assert gems.callbacks.Backup(tmp_path).epoch == 0


def test_epoch_of_last_complete_backup(sample, tmp_path):
    """A training log that is cut at this epoch holds no epoch twice."""
    data = sample[0].read_bytes()
    (tmp_path / "000000001.backup").write_bytes(data)
    (tmp_path / "000000002.backup").write_bytes(data[:-1])
    found = gems.callbacks.Backup(tmp_path)
    assert found.epoch == 1 and len(found.paths) == 2


def plain(seed=0, rate=0.1, units=3, loss="mse", optimizer="SGD", dropout=0.1):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(units),
            layers.Dropout(dropout, seed=seed),
            layers.Dense(1),
        ]
    )
    model.compile(getattr(keras.optimizers, optimizer)(rate), loss)
    return model


def train(model, path, belongs_to=(), epochs=2):
    x = np.random.default_rng(0).normal(size=(16, 4))
    callback = gems.callbacks.Backup(path, belongs_to)
    model.fit(x, x[:, :1], epochs=epochs, verbose=0, callbacks=[callback])
    return model


def test_backup_of_another_training_is_refused(tmp_path):
    train(plain(), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for change, name in (
        ({"seed": 1}, "starting weights, the seeds of its random layers"),
        ({"rate": 0.2}, "differs in the optimizer"),
        ({"optimizer": "RMSprop"}, ""),
        ({"units": 4}, "restored to the same model"),
        ({"loss": "mae"}, "differs in the loss"),
        ({"loss": keras.losses.Huber(0.5)}, "differs in the loss"),
    ):
        model = plain(**change)
        values = model.get_weights()
        with pytest.raises(ValueError, match="A backup can only be .*" + name):
            train(model, tmp_path)
        assert_equal(model.get_weights(), values)
        assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    train(plain(), tmp_path, epochs=3)


def test_backup_of_other_data_or_settings_is_refused(tmp_path):
    def belongs_to(labels=LABELS, patience=3, seed=0):
        data = datasets.ImageData.normalized(
            "cifar10", (IMAGES, labels), (IMAGES, labels), 2
        ).batches(16, seed)
        stop = keras.callbacks.EarlyStopping(patience=patience)
        return [data, stop, {"note": 1}, labels]

    train(plain(), tmp_path, belongs_to())
    for other in (
        belongs_to(1 - LABELS),
        belongs_to(patience=4),
        belongs_to(seed=1),
        [],
    ):
        with pytest.raises(ValueError, match="differs in the data or the set"):
            train(plain(), tmp_path, other)
    train(plain(), tmp_path, belongs_to(), epochs=3)


def test_same_model_resumes_after_interrupt_and_after_completion(
    tmp_path,
):
    """As in a notebook, where the cell is run again."""
    expected = train(plain(), tmp_path / "whole", epochs=4).get_weights()
    model, callback = plain(), gems.callbacks.Backup(tmp_path / "stopped")
    x = np.random.default_rng(0).normal(size=(16, 4))
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            *(x, x[:, :1]),
            epochs=4,
            batch_size=16,
            verbose=0,
            callbacks=[callback, Kill(3)],
        )
    train(model, tmp_path / "stopped", epochs=3)
    assert_equal(
        train(model, tmp_path / "stopped", epochs=4).get_weights(), expected
    )


def test_finished_run_does_not_train(whole, tmp_path):
    watch = CountEpochs()
    fit(0, [gems.callbacks.Backup(tmp_path)])
    found = fit(0, [watch, gems.callbacks.Backup(tmp_path)])
    assert not watch.epochs
    assert_equal(found, whole["with"])


@pytest.mark.slow
@settings(deadline=None, max_examples=2)
@given(
    phase=st.sampled_from(["mining", "finetuning"]),
    kills=st.lists(st.integers(1, 2 * STEPS + 1), min_size=1, max_size=3),
    again=st.booleans(),
)
def test_resuming_is_idempotent(phase, kills, again, whole, tmp_path_factory):
    """The result is the same for any number and place of kills."""
    path = tmp_path_factory.mktemp("backup")

    def attempt(*kill):
        return fit(0, [gems.callbacks.Backup(path), *kill], phase)

    for batches in kills:
        with pytest.raises(KeyboardInterrupt):
            attempt(Kill(batches))
    expected = whole["with" if phase == "mining" else "finetuning"]
    for _ in range(1 + again):
        assert_equal(attempt(), expected)


def test_backup_of_another_phase_is_refused(tmp_path):
    callbacks = [gems.callbacks.Backup(tmp_path), Kill(5)]
    with pytest.raises(KeyboardInterrupt):
        fit(0, callbacks)
    with pytest.raises(ValueError, match=r"phases \['mining'\].*'finetuning'"):
        fit(0, callbacks[:1], phase="finetuning")


@contextlib.contextmanager
def small_files(size=4096):
    """Simulates a full disk: no file of this process can exceed 4 KiB.

    The limit applies only within the test, since pytest may write a report.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk_keeps_old_files(tmp_path):
    model = gems.SparseModel(network(dropout=False), seed=0)
    model.compile("sgd", "mse")
    backup = gems.callbacks.Backup(tmp_path)
    backup.set_model(model)
    ticket = gems.methods.RandomPruning(0.1, seed=0).find(model)
    path = tmp_path / "ticket.gem"
    ticket.save(path)
    backup.on_epoch_end(0)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert min(map(len, before.values())) > 4096
    message = "2.backup' could not be .* is not there"
    with small_files(), pytest.raises(OSError, match=message):
        backup.on_epoch_end(1)
    message = "'.*ticket.gem' could .*left as it was"
    with small_files(), pytest.raises(OSError, match=message):
        ticket.save(path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_order_depends_on_seed_and_epoch():
    def epoch(number, seed=0, batch_size=16):
        batches = DATA.batches(batch_size, seed)
        assert len(batches) == -(-60 // batch_size)
        batches.set_epoch(number)
        parts = [(x.numpy(), y.numpy()) for x, y in batches]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    assert_equal(epoch(3), epoch(3))
    assert_equal(epoch(3), epoch(3, batch_size=7))
    different = [epoch(3), epoch(4), epoch(3, seed=1)]
    for (a, _), (b, _) in itertools.combinations(different, 2):
        assert (a != b).any()
    for _, labels in different:
        np.testing.assert_array_equal(np.sort(labels), np.sort(LABELS))
    with pytest.raises(ValueError, match="Received: data=.*by_epoch"):
        gems.callbacks.SetEpoch(DATA.batches(16).map(lambda x, y: (x, y)))
