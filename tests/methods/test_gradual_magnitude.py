"""Compares gradual magnitude pruning with NumPy."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_gems as gems
from tf_gems import methods
from tf_gems import schedules
from tf_gems.methods import GradualMagnitudeCallback
from tf_gems.network import prunable_weights

random = np.random.default_rng(0)
DATA = [
    (
        random.normal(size=(8, 8)).astype("float32"),
        random.normal(size=(8, 4)).astype("float32"),
    )
    for _ in range(3)
]
SIZES = [96, 48]


def plain():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, activation="relu", name="a"),
            layers.Dense(4, name="b"),
        ],
        name="network",
    )


def network():
    sparse = gems.SparseModel(plain(), seed=0)
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return sparse


class Watch(keras.callbacks.Callback):
    """Records the weights and flags at the start of every epoch."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        weights = prunable_weights(self.model)
        self.seen.append(
            (
                np.concatenate([np.ravel(w.weight) for w in weights]),
                np.concatenate([np.ravel(w.alive) for w in weights]) > 0,
            )
        )


def watch(**arguments):
    """Trains for eight epochs with `fit`."""
    sparse = network()
    method = methods.GradualMagnitude(0.75, epochs=8, **arguments)
    method.prepare(sparse)
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    watched = Watch()
    fit = sparse.fit(
        np.concatenate([x for x, _ in DATA]),
        np.concatenate([y for _, y in DATA]),
        batch_size=8,
        epochs=8,
        verbose=0,
        callbacks=[method.callback(), watched],
    )
    return sparse, watched.seen, fit.history


def test_golden_masks_of_every_epoch():
    sparse, seen, history = watch(distribution="global")
    alive = np.ones(144, bool)
    counts = []
    for epoch, (weights, flags) in enumerate(seen):
        # Equation 1 of Zhu & Gupta from epoch 0 to 6, with a final 25 %.
        density = 0.25 + 0.75 * (1 - min(epoch, 6) / 6) ** 3
        counts.append(round(144 * density))
        ranks = np.argsort(-np.where(alive, abs(weights), -1), kind="stable")
        alive = np.zeros(144, bool)
        alive[ranks[: counts[-1]]] = True
        np.testing.assert_array_equal(flags, alive)
    assert counts[0] == 144 and counts[-2:] == [36, 36]
    np.testing.assert_allclose(history["density"], np.array(counts) / 144)
    assert sparse.ticket().kept == 36


@pytest.mark.parametrize(
    "pattern, distribution",
    [
        ("unstructured", "uniform"),
        ("2:4", "global"),
        ("2x1", "erk"),
        ("unstructured", {"a/kernel": 0.9}),
        ("unstructured", "lamp"),
        ("2:4", "layer_normalized"),
    ],
    ids=str,
)
def test_patterns_and_distributions(pattern, distribution):
    sparse, seen, _ = watch(pattern=pattern, distribution=distribution)
    method = methods.GradualMagnitude(
        0.75, pattern=pattern, distribution=distribution
    )
    flags = [flags for _, flags in seen]
    assert all((b <= a).all() for a, b in zip(flags, flags[1:], strict=False))
    assert all(
        a.sum() > b.sum() for a, b in zip(flags[:6], flags[1:6], strict=False)
    )
    masks = sparse.ticket().masks
    assert all(method.pattern.matches(mask) for mask in masks.values())
    counts = method.distribution([(8, 12), (12, 4)], 0.25, list(masks))
    kept = [mask.sum() for mask in masks.values()]
    if counts is None:
        assert sum(kept) == 36
    elif pattern == "2x1":  # Only whole blocks.
        assert kept == [2 * (count // 2) for count in counts]
    else:
        assert kept == counts


def test_per_weight_sparsity_schedules():
    _, seen, _ = watch(distribution={"a/kernel": 0.9})
    share = 1 - (1 - 2 / 6) ** 3  # The progress at the start of epoch 2.
    kept = [part.sum() for part in np.split(seen[2][1], [96])]
    ends = [10, 26]
    assert kept == [
        round(size - share * (size - end))
        for size, end in zip(SIZES, ends, strict=True)
    ]


def test_density_of_every_epoch():
    callback = GradualMagnitudeCallback(
        0.9, begin=0.25, end=0.75, schedule=schedules.Polynomial(1.0, 0.1, 1.0)
    )
    expected = [1.0, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1, 0.1]
    found = [callback.density(epoch, 8) for epoch in range(8)]
    np.testing.assert_allclose(found, expected)
    # For any length of training and any schedule, the last epoch has the final
    # sparsity. By default, the last two epochs do.
    default = GradualMagnitudeCallback(0.9)
    late = GradualMagnitudeCallback(0.9, end=1.0)
    for epochs in range(2, 9):
        found = [default.density(e, epochs) for e in range(epochs)]
        assert found[0] == 1.0
        at_target = min(2, epochs - 1)
        assert found[-at_target:] == pytest.approx([0.1] * at_target)
        assert late.density(epochs - 1, epochs) == pytest.approx(0.1)
        assert epochs < 3 or late.density(epochs - 2, epochs) > 0.1
    assert callback.density(0, 1) == pytest.approx(0.1)
    odd = GradualMagnitudeCallback(0.9, end=1.0, schedule=0.05)
    assert odd.density(1, 5) == pytest.approx(0.1)
    copy = type(odd).from_config(odd.get_config())
    assert copy.get_config() == odd.get_config()


def test_golden_lamp_masks():
    """Compares the masks of every epoch with LAMP as defined in the paper."""
    _, seen, _ = watch()
    alive = np.ones(144, bool)
    for epoch, (weights, flags) in enumerate(seen):
        density = 0.25 + 0.75 * (1 - min(epoch, 6) / 6) ** 3
        scores = np.full(144, -1.0)
        for part in (slice(0, 96), slice(96, 144)):
            chosen = np.flatnonzero(alive[part]) + part.start
            squares = weights[chosen].astype("float64") ** 2
            for place, square in zip(chosen, squares, strict=True):
                scores[place] = square / squares[squares >= square].sum()
        ranks = np.argsort(-scores, kind="stable")
        alive = np.zeros(144, bool)
        alive[ranks[: round(144 * density)]] = True
        np.testing.assert_array_equal(flags, alive)


class CountAlive(keras.callbacks.Callback):
    """Counts the alive weights in every step."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.seen.append(sum(w.alive.count() for w in self.model.gem.prunable))


@pytest.mark.parametrize(
    "epochs, frequency, parts",
    [(3, None, 8), (4, None, 4), (8, None, 1), (8, 2, 2), (1, None, 8)],
)
def test_few_epochs_prune_within_epochs(epochs, frequency, parts, eagerly):
    sparse, counted = network(), CountAlive()
    sparse.optimizer.learning_rate = 1e-3
    # 16 steps in a single epoch.
    x, y = (np.tile(array, (2, 1)) for array in DATA[0])
    sparse.fit(
        x,
        y,
        batch_size=1,
        epochs=epochs,
        verbose=0,
        callbacks=[
            GradualMagnitudeCallback(0.75, frequency=frequency),
            counted,
        ],
    )
    last = {1: 0, 3: 1, 4: 2, 8: 6}[epochs]
    time = np.arange(epochs * 16) // (16 // parts) / parts
    progress = np.minimum(1, time / last) if last else np.ones(16)
    density = 0.25 + 0.75 * (1 - progress) ** 3
    np.testing.assert_allclose(counted.seen, 144 * density, atol=0.6)


def trained(**arguments):
    """A compiled sparse model of a network that was trained for a few steps."""
    model = plain()
    model.compile("sgd", "mse")
    model.fit(*DATA[0], epochs=2, verbose=0)
    sparse = gems.SparseModel(model, **arguments)
    sparse.compile("sgd", "mse")
    return sparse, model


@pytest.mark.parametrize("start", ["initialization", "trained"])
def test_callback_prunes_wrapped_model(start):
    sparse, model = trained(start=start)
    if start == "trained":  # The outputs are those of the trained network.
        np.testing.assert_array_equal(sparse(DATA[0][0]), model(DATA[0][0]))
    sparse.evaluate(*DATA[0], verbose=0)
    before = [np.array(w.weight) for w in prunable_weights(sparse)]
    history = sparse.fit(
        *DATA[0],
        epochs=4,
        validation_data=DATA[1],
        verbose=0,
        callbacks=[gems.GradualMagnitudeCallback(0.75)],
    ).history
    assert history["sparsity"][-2:] == [0.75, 0.75]
    assert len(history["val_loss"]) == 4
    moved = [np.array(w.weight) for w in prunable_weights(sparse)]
    assert all((a != b).any() for a, b in zip(before, moved, strict=True))
    assert sparse.ticket().sparsity == 0.75
    # Validation used the pruned network that the user receives.
    plain = gems.strip(sparse)
    plain.compile("sgd", "mse")
    np.testing.assert_allclose(
        plain.evaluate(*DATA[1], verbose=0), history["val_loss"][-1], rtol=1e-5
    )


def test_model_in_mining_phase_is_refused():
    sparse, _ = trained()
    mining = gems.GemMinerCallback(0.5, freeze_period=1)
    sparse.fit(*DATA[0], epochs=3, verbose=0, callbacks=[mining])
    with pytest.raises(ValueError, match="in the mining phase"):
        sparse.fit(*DATA[0], callbacks=[gems.GradualMagnitudeCallback(0.9)])


def test_training_that_ends_before_pruning_is_reported():
    early = keras.callbacks.EarlyStopping("density", patience=0, mode="max")
    sparse, _ = trained(start="trained")
    callback = gems.GradualMagnitudeCallback(0.75)
    with pytest.warns(UserWarning, match="Training ended before pruning did"):
        sparse.fit(*DATA[0], epochs=8, verbose=0, callbacks=[callback, early])
    with pytest.raises(RuntimeError, match="the 36 weights of the target. Rec"):
        sparse.ticket()
    with pytest.warns(UserWarning, match="less sparse than .* target of 0.75"):
        gems.strip(sparse)


def test_pruned_weights_are_not_restored():
    sparse, _ = trained(start="trained")
    callback = gems.GradualMagnitudeCallback(0.75)
    early = keras.callbacks.EarlyStopping(
        "loss", patience=9, restore_best_weights=True
    )
    with pytest.raises(ValueError, match="Use start_from_epoch=6"):
        sparse.fit(*DATA[0], epochs=8, verbose=0, callbacks=[early, callback])
    early.start_from_epoch = 6
    sparse.fit(*DATA[0], epochs=8, verbose=0, callbacks=[early, callback])
    assert sparse.ticket().sparsity == 0.75


@pytest.mark.parametrize("weights_only", [True, False])
def test_a_checkpoint_keeps_the_best_epoch_at_the_target(
    tmp_path, weights_only
):
    """A network of no zeros is best, and saved first."""
    path = tmp_path / ("best.weights.h5" if weights_only else "best.keras")
    best = keras.callbacks.ModelCheckpoint(
        path,
        monitor="density",
        mode="max",
        save_best_only=True,
        save_weights_only=weights_only,
    )
    sparse, _ = trained(start="trained")
    callback = gems.GradualMagnitudeCallback(0.75)
    sparse.fit(*DATA[0], epochs=8, verbose=0, callbacks=[callback, best])
    if weights_only:
        sparse.load_weights(path)
    else:
        sparse = keras.models.load_model(path)
    assert sparse.ticket().sparsity == 0.75
    kernels = [layer.kernel.numpy() for layer in gems.strip(sparse).layers]
    assert sum(np.count_nonzero(kernel) for kernel in kernels) == 36


def test_averages_of_weights_are_pruned_as_well():
    model = plain()
    sparse = gems.SparseModel(model, start="trained")
    sparse.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    callback = gems.GradualMagnitudeCallback(0.75)
    sparse.fit(*DATA[0], epochs=4, verbose=0, callbacks=[callback])

    def count():
        kernels = [layer.kernel.numpy() for layer in model.layers]
        return sum(np.count_nonzero(kernel) for kernel in kernels)

    assert count() == 36
    sparse.fit(*DATA[0], epochs=1, verbose=0)  # without the callback
    assert count() == 36
    # A step of one's own ends with the average, and the model is unwrapped.
    sparse.optimizer.finalize_variable_values(sparse.trainable_variables)
    gems.unwrap(sparse)
    assert count() == 36


def test_target_below_current_sparsity_is_refused():
    sparse, _ = trained(start="trained")
    fit = {"epochs": 3, "verbose": 0}
    sparse.fit(*DATA[0], **fit, callbacks=[gems.GradualMagnitudeCallback(0.75)])
    with pytest.raises(ValueError, match="of 144 of which 36 are alive"):
        sparse.fit(
            *DATA[0], **fit, callbacks=[gems.GradualMagnitudeCallback(0.5)]
        )
    again = gems.SparseModel(gems.strip(sparse), start="trained")
    again.compile("sgd", "mse")
    with pytest.raises(ValueError, match="of 144 of which 36 are alive"):
        again.fit(
            *DATA[0], **fit, callbacks=[gems.GradualMagnitudeCallback(0.5)]
        )
    with pytest.raises(ValueError, match="of 144 of which 36 are alive"):
        methods.Magnitude(0.5).find(again)
    again.fit(*DATA[0], **fit, callbacks=[gems.GradualMagnitudeCallback(0.75)])
    again.fit(*DATA[0], **fit, callbacks=[gems.GradualMagnitudeCallback(0.9)])
    assert again.ticket().kept == round(0.1 * 144)


def test_layer_at_minimum_is_named():
    sparse, model = trained(start="trained")
    layer = model.get_layer("b")
    layer.kernel.assign(layer.kernel * 1e-3)
    with pytest.warns(UserWarning, match=r"b/kernel' \(1 of 48 weights"):
        sparse.fit(
            *DATA[0],
            epochs=3,
            verbose=0,
            callbacks=[
                gems.GradualMagnitudeCallback(0.75, distribution="global")
            ],
        )


def test_refusals():
    sparse = network()
    sparse.train_on_batch(*DATA[0])
    callback = GradualMagnitudeCallback(0.9)
    with pytest.raises(ValueError, match="in the mining phase.*prepare"):
        sparse.fit(*DATA[0], callbacks=[callback], verbose=0)
    for arguments in ({"begin": 0.8}, {"end": 1.1}, {"begin": -0.1}):
        with pytest.raises(ValueError, match="begin=.*end="):
            methods.GradualMagnitude(0.9, **arguments)
    with pytest.raises(ValueError, match="schedule='cubic'"):
        methods.GradualMagnitude(0.9, schedule="cubic")
