"""A run that stops anywhere ends as if it had not."""

import importlib.util
import itertools
import resource

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import layers

import tf_gems as gems
from tf_gems import datasets

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(256, size=(60, 8, 8, 3), dtype="uint8")
LABELS = (IMAGES.mean((1, 2, 3)) > 127).astype("int64")
DATA = datasets.ImageData.normalised(
    "cifar10", (IMAGES, LABELS), (IMAGES, LABELS), 2
)  # by its name, images are cropped and flipped
EPOCHS, STEPS = 6, 4


class Kill(keras.callbacks.Callback):
    """Ends the process, as far as `fit` can tell, after some batches."""

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
    """Trains a fresh model, and returns all that training changes."""
    keras.utils.set_random_seed(seed)
    model = gems.SparseModel(network(dropout), seed=seed)
    ours = [gems.GemMinerCallback(0.8, 1)]
    if phase == "finetuning":
        found = gems.methods.RandomPruning(0.8, seed=1).find(model)
        model.finetune(found)
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
    # Another seed shows that all that matters was in the backup.
    return fit(1, [*callbacks(), watch], **arguments), watch.epochs


@pytest.fixture(scope="module")
def whole():
    """Uninterrupted runs: with dropout, without, and of fine-tuning."""
    with_dropout = fit(0)
    without = fit(0, dropout=False)
    assert any((w != 0).any() for w in with_dropout)
    return {
        "with": with_dropout,
        "without": without,
        "finetuning": fit(0, phase="finetuning"),
    }


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("backup", ["keras", "ours"])
def test_a_resumed_run_is_the_uninterrupted_one(backup, order, whole, tmp_path):
    def callbacks():
        path = tmp_path / "backup"
        logs = []
        if importlib.util.find_spec("tensorboard"):
            logs = [keras.callbacks.TensorBoard(tmp_path / "logs")]
        return [
            keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
            *logs,
            # Keras' own does not save the state of dropout.
            keras.callbacks.BackupAndRestore(path)
            if backup == "keras"
            else gems.callbacks.Backup(path),
        ]

    dropout = backup == "ours"
    found, epochs = kill_and_resume(callbacks, dropout=dropout, order=order)
    assert epochs == [3, 4, 5], "killed in the fourth epoch"
    assert_equal(found, whole["with" if dropout else "without"])


def test_finetuning_is_resumed_likewise(whole, tmp_path):
    found, epochs = kill_and_resume(
        lambda: [gems.callbacks.Backup(tmp_path)], phase="finetuning"
    )
    assert epochs == [3, 4, 5]
    assert_equal(found, whole["finetuning"])


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty"])
def test_a_damaged_backup_gives_way_to_the_one_before(damage, whole, tmp_path):
    def damaged():
        last, _ = gems.callbacks.Backup(tmp_path).paths
        content = bytearray(last.read_bytes())
        if damage == "torn":
            content = content[: len(content) // 2]
        elif damage == "flipped":
            content[len(content) // 3] ^= 1
        else:
            content = b""
        last.write_bytes(content)

    with pytest.warns(UserWarning, match="000000003.backup' is damaged"):
        found, epochs = kill_and_resume(
            lambda: [gems.callbacks.Backup(tmp_path)], between=damaged
        )
    assert epochs == [2, 3, 4, 5]
    assert_equal(found, whole["with"])


def test_a_run_that_is_finished_trains_no_more(whole, tmp_path):
    watch = CountEpochs()
    fit(0, [gems.callbacks.Backup(tmp_path)])
    found = fit(1, [watch, gems.callbacks.Backup(tmp_path)])
    assert not watch.epochs
    assert_equal(found, whole["with"])


@settings(deadline=None, max_examples=5)
@given(
    phase=st.sampled_from(["mining", "finetuning"]),
    kills=st.lists(st.integers(1, 2 * STEPS + 1), min_size=1, max_size=3),
    again=st.booleans(),
)
def test_resuming_is_idempotent(phase, kills, again, whole, tmp_path_factory):
    """However often and wherever a run is killed, and if it is done again."""
    path = tmp_path_factory.mktemp("backup")

    def attempt(seed, *kill):
        backup = gems.callbacks.Backup(path)
        # Another seed shows that all that matters was in the backup.
        seed = seed if any(path.iterdir()) else 0
        return fit(seed, [backup, *kill], phase)

    for seed, batches in enumerate(kills):
        with pytest.raises(KeyboardInterrupt):
            attempt(seed, Kill(batches))
    expected = whole["with" if phase == "mining" else "finetuning"]
    for _ in range(1 + again):
        assert_equal(attempt(9), expected)


def test_a_backup_of_another_phase_is_refused(tmp_path):
    callbacks = [gems.callbacks.Backup(tmp_path), Kill(5)]
    with pytest.raises(KeyboardInterrupt):
        fit(0, callbacks)
    with pytest.raises(ValueError, match=r"phases \['mining'\].*'finetuning'"):
        fit(0, callbacks[:1], phase="finetuning")


@pytest.fixture
def small_files():
    """The disk is full, as far as this process can tell, after 4 KiB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size=4096):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_old_files(small_files, tmp_path):
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
    small_files()
    with pytest.raises(OSError, match="2.backup' could not be .* is not there"):
        backup.on_epoch_end(1)
    with pytest.raises(OSError, match="'.*ticket.gem' could .*left as it was"):
        ticket.save(path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_order_of_an_epoch_follows_from_seed_and_epoch():
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
