import keras
import numpy as np
import pytest
from keras import ops

import tf_gems as gems

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")


class Watch(keras.callbacks.Callback):
    """Records masks and scores at the start and the end of every epoch."""

    def __init__(self):
        super().__init__()
        self.masks, self.scores = [], []

    def on_epoch_begin(self, epoch, logs=None):
        if not self.masks:
            self.read()

    def on_epoch_end(self, epoch, logs=None):
        self.read()

    def read(self):
        gem = self.model.gem
        self.masks.append([np.array(m) > 0 for m in map(to_numpy, gem.masks())])
        self.scores.append(
            [
                to_numpy(w.score)[to_numpy(w.alive) > 0].copy()
                for w in gem.prunable
            ]
        )


def to_numpy(variable):
    return ops.convert_to_numpy(variable)


def test_event_files_contain_densities_flips_and_scores(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    import tensorflow as tf

    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.Dense(2, name="output"),
        ]
    )
    sparse = gems.SparseModel(model, seed=0)
    sparse.compile(keras.optimizers.SGD(0.5, momentum=0.9), "mse")
    watch = Watch()
    sparse.fit(
        X,
        X[:, :2],
        epochs=5,
        verbose=0,
        shuffle=False,
        callbacks=[
            watch,  # Before the first freeze.
            gems.callbacks.GemTensorBoard(tmp_path, histogram_freq=2),
            gems.GemMinerCallback(0.5, 1),
        ],
    )
    events = accumulator.EventAccumulator(
        str(tmp_path), size_guidance={"tensors": 0}
    )
    events.Reload()

    def read(name):
        found = events.Tensors(name)
        return {e.step: tf.make_ndarray(e.tensor_proto) for e in found}

    paths = [w.path for w in sparse.gem.prunable]
    before, after = watch.masks[:-1], watch.masks[1:]
    for index, path in enumerate(paths):
        densities, flips = read(f"density/{path}"), read(f"flips/{path}")
        assert sorted(densities) == sorted(flips) == list(range(5))
        for epoch in range(5):
            was, now = before[epoch][index], after[epoch][index]
            np.testing.assert_allclose(densities[epoch], now.mean(), rtol=1e-6)
            np.testing.assert_allclose(flips[epoch], (was != now).mean())
        histograms = read(f"scores/{path}")
        assert sorted(histograms) == [0, 2, 4]
        for epoch, buckets in histograms.items():
            scores = watch.scores[epoch + 1][index]
            assert buckets[:, 2].sum() == scores.size
            # The edges of the buckets (left, right, count) are the extremes.
            np.testing.assert_allclose(
                (buckets[0, 0], buckets[-1, 1]), (scores.min(), scores.max())
            )
    total = read("alive_density")
    assert total[4] == pytest.approx(0.5)
    assert max(read("flips").values()) > 0
    densities = [np.concatenate([m.ravel() for m in x]).mean() for x in after]
    np.testing.assert_allclose(
        [read("density")[epoch] for epoch in range(5)], densities, rtol=1e-6
    )


def test_model_without_masks_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="contains no `GemLayer`"):
        model.fit(
            X,
            X[:, :2],
            verbose=0,
            callbacks=[gems.callbacks.GemTensorBoard(tmp_path)],
        )
