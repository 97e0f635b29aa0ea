"""Tests errors in long runs, and that frozen weights stay frozen."""

import keras
import numpy as np
import pytest
from keras import ops

import tf_gems as gems

pytestmark = pytest.mark.usefixtures("eagerly")

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 10)).astype("float32")
Y = np.argmax(X[:, :3], axis=1)
SIZE = 10 * 16 + 16 * 3


def sparse_model(phase="mining"):
    keras.utils.set_random_seed(0)  # A backup belongs to one initialization.
    model = keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(16, "relu", use_bias=False),
            keras.layers.Dense(3, use_bias=False),
        ]
    )
    return compiled(gems.SparseModel(model, seed=0, phase=phase))


def compiled(model):
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def fit(model, *callbacks, x=X, epochs=6, **kwargs):
    return model.fit(
        x,
        None if x is not X else Y,
        batch_size=None if x is not X else 16,
        epochs=epochs,
        verbose=0,
        callbacks=list(callbacks),
        **kwargs,
    )


def flags(model):
    return [ops.convert_to_numpy(w.alive) for w in model.gem.prunable]


class SpoilIn(keras.callbacks.Callback):
    """Sets the loss to NaN in one epoch, like a step that overflows."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            for weight in self.model.gem.prunable:
                weight.weight.assign(ops.full(weight.weight.shape, np.nan))


def test_nan_stops_mining_before_freeze(tmp_path):
    model, backup = sparse_model(), gems.callbacks.Backup(tmp_path)
    miner = gems.GemMinerCallback(0.8, 1)
    with pytest.raises(RuntimeError) as error:
        fit(model, backup, SpoilIn(3), miner)
    message = str(error.value)
    assert "stopped in epoch 4" in message and "loss=nan" in message
    assert "learning_rate=0.1" in message and "Reduce the" in message
    # After three freezes, the fourth, by scores of NaN, did not happen.
    counts = gems.schedules.geometric_counts(SIZE, 0.2, 5)
    assert sum(int(a.sum()) for a in flags(model)) == counts[3]
    assert backup.epoch == 3, "a state with NaN was backed up"

    # Resuming from such a state raises an error immediately.
    model = sparse_model()
    model.gem.prunable[0].score.assign(ops.full((10, 16), np.nan))
    before = flags(model)
    with pytest.raises(RuntimeError, match="resumed before epoch 3.*dense"):
        fit(model, miner, initial_epoch=2)
    for was, now in zip(before, flags(model), strict=True):
        np.testing.assert_array_equal(was, now)


def test_resumed_run_requires_same_target(tmp_path):
    def backup():
        return gems.callbacks.Backup(tmp_path)

    fit(
        sparse_model(),
        gems.GemMinerCallback(0.8, 1, epochs=6),
        backup(),
        epochs=3,
    )
    for order in (1, -1):
        miner = gems.GemMinerCallback(0.9, 1, epochs=6)
        with pytest.raises(ValueError) as error:
            fit(sparse_model(), *[miner, backup()][::order])
        message = str(error.value)
        assert "target_sparsity=0.9, which keeps 21 of 208" in message
        assert "Use target_sparsity=0.798077" in message
        assert 1 - 42 / 208 == pytest.approx(0.798077, abs=1e-6)
    # The remedy in the message works.
    model = sparse_model()
    fit(model, gems.GemMinerCallback(0.798077, 1, epochs=6), backup())
    assert model.ticket().kept == 42
    # A model that is mined again may have another target.
    fit(model, gems.GemMinerCallback(0.9, 1))
    assert model.ticket().kept == 21


def test_weights_of_other_phase_are_refused(tmp_path):
    mining, tuned = sparse_model(), sparse_model()
    fit(mining, gems.GemMinerCallback(0.8, 1, epochs=6), epochs=3)
    fit(tuned, gems.GemMinerCallback(0.8, 1))
    tuned.start_finetuning()
    paths = [tmp_path / name for name in ("a.weights.h5", "b.weights.h5")]
    for model, path in zip((mining, tuned), paths, strict=True):
        model.save_weights(path)
    before = flags(tuned)
    with pytest.raises(ValueError, match="phase 'mining' for 'gem', which is"):
        tuned.load_weights(paths[0])
    for was, now in zip(before, flags(tuned), strict=True):
        np.testing.assert_array_equal(was, now)
    with pytest.raises(ValueError, match="created with `phase='finetuning'`"):
        mining.load_weights(paths[1])
    other = sparse_model("finetuning")
    other.load_weights(paths[1])
    for was, now in zip(before, flags(other), strict=True):
        np.testing.assert_array_equal(was, now)


def test_restored_weights_are_frozen_again():
    model = sparse_model()
    early = keras.callbacks.EarlyStopping(
        "density", mode="max", patience=9, restore_best_weights=True
    )
    miner = gems.GemMinerCallback(0.8, 1, epochs=6)
    fit(model, miner, early, epochs=4)
    # The masks of the best epoch, the first one, give no ticket.
    assert sum(int(a.sum()) for a in flags(model)) == SIZE
    with pytest.raises(RuntimeError, match="restore_best_weights=True"):
        model.ticket()
    fit(model, miner, initial_epoch=4)
    assert model.ticket().kept == round(0.2 * SIZE)


class ReadOnce:
    """Batches for two epochs only."""

    def __init__(self):
        self.left = 4

    def __call__(self):
        for _ in range(2):
            if self.left:
                self.left -= 1
                yield X[:16], Y[:16]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="needs tf.data"
)
def test_data_ends_early():
    import tensorflow as tf

    spec = (
        tf.TensorSpec((None, 10), "float32"),
        tf.TensorSpec((None,), "int64"),
    )
    data = tf.data.Dataset.from_generator(ReadOnce(), output_signature=spec)
    model = sparse_model()
    with pytest.raises(RuntimeError, match="the data ended before its first"):
        fit(model, gems.GemMinerCallback(0.8, 1), x=data)
    counts = gems.schedules.geometric_counts(SIZE, 0.2, 5)
    assert sum(int(a.sum()) for a in flags(model)) > counts[3]

    # A short epoch counts as an epoch. Keras warns, and mining continues.
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    data = data.repeat(4).filter(lambda x, y: True)  # Of unknown length.
    model = sparse_model()
    with pytest.warns(UserWarning, match="ran out of data"):
        fit(model, gems.GemMinerCallback(0.8, 1), x=data, steps_per_epoch=3)
    assert model.ticket().kept == round(0.2 * SIZE)
