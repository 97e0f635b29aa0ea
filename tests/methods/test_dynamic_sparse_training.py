"""Compares RigL and SET with NumPy implementations."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tf_gems as gems
from tf_gems import methods
from tf_gems import schedules
from tf_gems.methods import RewiringCallback
from tf_gems.network import prunable_weights

RATE, MOMENTUM, PERIOD, FRACTION, END, EPOCHS = 0.05, 0.9, 2, 0.6, 0.8, 3
random = np.random.default_rng(3)
DATA = [
    (
        random.normal(size=(8, 9)).astype("float32"),
        random.normal(size=(8, 5)).astype("float32"),
    )
    for _ in range(5)
]
CLASSES = {"rigl": methods.RigL, "set": methods.SparseEvolutionaryTraining}


def network(**compilation):
    """A linear network with two layers."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((9,)),
            layers.Dense(7, name="a"),
            layers.Dense(5, name="b"),
        ],
        name="network",
    )
    sparse = gems.SparseModel(model, seed=0)
    optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM)
    sparse.compile(optimizer, "mse", **compilation)
    return sparse


def training(name, **arguments):
    settings = {
        "epochs": EPOCHS,
        "update_period": PERIOD,
        "fraction": FRACTION,
        "end": END,
        "seed": 5,
    }
    return CLASSES[name](0.7, **{**settings, **arguments})


def slopes(kernels, biases, batch):
    """Returns the gradients of the mean squared error of a linear network."""
    x, y = batch
    hidden = x @ kernels[0] + biases[0]
    error = hidden @ kernels[1] + biases[1] - y
    error = 2 * error / error.size
    back = error @ kernels[1].T
    return [x.T @ back, hidden.T @ error], [back.sum(0), error.sum(0)]


def restated(name, kernels, masks, steps_per_execution=1):
    """Algorithm 1 of Evci et al. Also counts immediately regrown weights."""
    kernels = [k.astype("float64") for k in kernels]
    biases = [np.zeros(7), np.zeros(5)]
    values = [*kernels, *biases]
    speeds = [np.zeros_like(v) for v in values]
    steps, step, done, back = len(DATA), 0, 0, 0
    for _ in range(EPOCHS):
        for place, batch in enumerate(DATA):
            masked = [k * m for k, m in zip(kernels, masks, strict=True)]
            ofkernels, ofbiases = slopes(masked, biases, batch)
            ofkernels = [g * m for g, m in zip(ofkernels, masks, strict=True)]
            for value, speed, slope in zip(
                values, speeds, [*ofkernels, *ofbiases], strict=True
            ):
                speed *= MOMENTUM
                speed -= RATE * slope
                value += speed
            step += 1
            ends = (place + 1) % steps_per_execution == 0 or place + 1 == steps
            last = END * EPOCHS * steps
            if not ends or step // PERIOD == done:
                continue
            done = step // PERIOD
            if step >= last:
                continue
            fraction = FRACTION / 2 * (1 + np.cos(np.pi * step / last))
            masked = [k * m for k, m in zip(kernels, masks, strict=True)]
            if name == "rigl":
                seen = DATA[(done - 1) % len(DATA)]
                growth = [abs(g) for g in slopes(masked, biases, seen)[0]]
            else:
                draw = np.random.default_rng([5, done])
                growth = [draw.random(m.shape, "float32") for m in masks]
            for kernel, mask, score in zip(kernels, masks, growth, strict=True):
                count = int(fraction * mask.sum())
                alive = np.flatnonzero(mask)
                sizes = abs(kernel.ravel()[alive])
                dropped = alive[np.argsort(sizes)[:count]]
                before = mask.copy()
                mask.flat[dropped] = False
                others = np.flatnonzero(~mask)
                sizes = score.ravel()[others]
                mask.flat[others[np.argsort(-sizes)[:count]]] = True
                back += mask.ravel()[dropped].sum()
                kernel *= before & mask
    assert done > 4
    return [k * m for k, m in zip(kernels, masks, strict=True)], masks, back


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_golden_training(name, steps_per_execution):
    sparse = network(steps_per_execution=steps_per_execution)
    method = training(name)
    method.prepare(sparse)
    masks = [np.array(w.alive) > 0 for w in prunable_weights(sparse)]
    start = [mask.copy() for mask in masks]
    counts = method.distribution([(9, 7), (7, 5)], 0.3)
    assert [mask.sum() for mask in masks] == counts
    kernels = [np.array(w.weight) for w in prunable_weights(sparse)]
    expected, masks, back = restated(name, kernels, masks, steps_per_execution)

    ticket = method.find(sparse, DATA)
    found = list(ticket.masks.items())
    for (path, mask), kernel, other in zip(found, expected, masks, strict=True):
        np.testing.assert_array_equal(mask, other)
        np.testing.assert_allclose(
            ticket.weights[path] * mask, kernel, rtol=1e-3, atol=1e-5
        )
    # The behavior under test did occur.
    assert back > 0
    assert any((a != b).any() for a, b in zip(start, masks, strict=True))
    assert [mask.sum() for _, mask in found] == counts


class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self._epoch == 1 and batch == 3:
            raise KeyboardInterrupt

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch


@pytest.mark.parametrize("name", CLASSES)
def test_golden_resumed_training(name, tmp_path, monkeypatch):
    expected = training(name).find(network(), DATA)

    method = training(name)
    callbacks = method.callbacks_for
    monkeypatch.setattr(
        method, "callbacks_for", lambda data: [*callbacks(data), Kill()]
    )
    with pytest.raises(KeyboardInterrupt):
        method.find(network(), DATA, directory=tmp_path)
    monkeypatch.undo()
    ticket = method.find(network(), DATA, directory=tmp_path)
    for path, mask in expected.masks.items():
        np.testing.assert_array_equal(ticket.masks[path], mask)
        np.testing.assert_allclose(
            ticket.weights[path] * mask, expected.weights[path] * mask, 1e-5
        )


class Watch(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        weights = prunable_weights(self.model)
        self.seen.append([np.array(w.alive) > 0 for w in weights])


def test_counts_are_constant_and_masks_stop_changing():
    sparse = network()
    method = training("set", fraction=schedules.Constant(1.0), end=0.5)
    method.prepare(sparse)
    sparse.compile("sgd", "mse")
    watch = Watch()
    fit = sparse.fit(
        dataset(),
        epochs=4,
        verbose=0,
        callbacks=[method.callback(), watch],
    )
    counts = method.distribution([(9, 7), (7, 5)], 0.3)
    assert all([m.sum() for m in masks] == counts for masks in watch.seen)
    moved = [
        any((a != b).any() for a, b in zip(*pair, strict=True))
        for pair in zip(watch.seen, watch.seen[1:], strict=False)
    ]
    # Entry `i` states whether step `i + 2` changed the masks. The limit is 10,
    # half of 20.
    assert np.flatnonzero(moved).tolist() == [0, 2, 4, 6]
    kept = sum(counts)
    np.testing.assert_allclose(fit.history["density"], 4 * [kept / 98])
    np.testing.assert_allclose(fit.history["sparsity"], 4 * [1 - kept / 98])


def dataset():
    """Returns the same batches as a dataset."""
    x, y = (np.stack(part) for part in zip(*DATA, strict=True))
    return tf.data.Dataset.from_tensor_slices((x, y))


def test_callbacks_refuse_unsupported_models():
    sparse = network()
    method = training("set")
    with pytest.raises(ValueError, match="mining phase.*prepare"):
        sparse.fit(dataset(), callbacks=[method.callback()], verbose=0)
    method.prepare(sparse)
    sparse.compile("sgd", "mse")
    unknown = dataset().filter(lambda *batch: True)
    with pytest.raises(ValueError, match="unknown length.*steps_per_epoch"):
        sparse.fit(unknown, callbacks=[method.callback()], verbose=0)
    sparse.gem.reset_mining()
    with pytest.raises(ValueError, match="all weights are alive.*prepare"):
        sparse.fit(dataset(), callbacks=[method.callback()], verbose=0)
    plain = sparse.model
    plain.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no `GemLayer`.*Wrap"):
        plain.fit(dataset(), callbacks=[method.callback()], verbose=0)


def test_wrong_arguments_are_refused():
    for build, message in [
        (lambda: methods.RigL(0.9, pattern="2:4"), "RigL.*single.*NOfM"),
        (lambda: methods.RigL(0.9, fraction=0.0), "fraction=0.0"),
        (lambda: methods.RigL(0.9, end=1.5), "end=1.5"),
        (lambda: methods.RigL(0.9, update_period=0), "update_period=0"),
        (lambda: methods.RigL(0.9).callback(), "data=None"),
        (
            lambda: methods.RigL(0.9).callback(iter(DATA)),
            "each batch only once",
        ),
        (lambda: RewiringCallback(None, fraction="cosin"), "fraction='cosin'"),
    ]:
        with pytest.raises(ValueError, match=message):
            build()
