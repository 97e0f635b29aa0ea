import keras
import numpy as np
import pytest
from keras import ops

import tf_gems as gems
from tf_gems.schedules import Polynomial
from tf_gems.schedules import geometric_counts

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 10)).astype("float32")
Y = np.argmax(X @ RANDOM.normal(size=(10, 3)), axis=1)
SIZE = 10 * 16 + 16 * 3


def read(variable):
    return np.array(ops.convert_to_numpy(variable))


def network():
    return keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(16, "relu", use_bias=False, name="hidden"),
            keras.layers.Dense(3, use_bias=False, name="output"),
        ],
        name="network",
    )


def sparse_model(optimizer=None, seed=0):
    keras.utils.set_random_seed(seed)
    model = gems.SparseModel(network(), seed=seed)
    return compiled(model, optimizer)


def compiled(model, optimizer=None):
    model.compile(
        optimizer or keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def fit(model, *callbacks, epochs=8, **kwargs):
    return model.fit(
        X,
        Y,
        batch_size=16,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=list(callbacks),
        **kwargs,
    )


class Watch(keras.callbacks.Callback):
    """Records scores and flags of all `GemLayer`s at the end of every epoch."""

    def __init__(self):
        super().__init__()
        self.scores, self.alive = [], []

    def on_epoch_end(self, epoch, logs=None):
        weights = [w for g in self.find(self.model) for w in g.prunable]
        self.scores.append([read(w.score) for w in weights])
        self.alive.append([read(w.alive) for w in weights])

    @staticmethod
    def find(model):
        layers = model._flatten_layers()
        return [x for x in layers if isinstance(x, gems.GemLayer)]

    def counts(self):
        return [sum(int(a.sum()) for a in flags) for flags in self.alive]


class Kill(keras.callbacks.Callback):
    """Simulates a kill of the process."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("rounding", ["exact", "reference"])
def test_freezes_happen_on_schedule_with_exact_counts(rounding):
    model, watch = sparse_model(), Watch()
    callback = gems.GemMinerCallback(0.9, 2, rounding=rounding)
    # 11 epochs with a period of 2: freezes before epochs 2, 4, 6 and 8.
    fit(model, callback, watch, epochs=11)
    counts = geometric_counts(SIZE, 1 - 0.9, 4, rounding)
    expected = [counts[min(epoch // 2, 4)] for epoch in range(11)]
    assert watch.counts() == expected
    assert model.ticket().kept == counts[-1]
    if rounding == "exact":
        assert counts[-1] == round(0.1 * SIZE)
    for before, after in zip(watch.alive, watch.alive[1:], strict=False):
        for was, now in zip(before, after, strict=True):
            assert not (now & ~was).any(), "a frozen weight returned"


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_scores_stay_in_unit_interval(optimizer):
    rates = {
        "sgd": keras.optimizers.SGD(50.0, momentum=0.9),
        "adam": keras.optimizers.Adam(3.0),
    }
    model, watch = sparse_model(rates[optimizer]), Watch()
    fit(
        model,
        gems.GemMinerCallback(0.5, 1, regularization=0.0),
        watch,
        epochs=3,
    )
    scores = np.concatenate([s.ravel() for e in watch.scores for s in e])
    assert scores.min() == 0.0 and scores.max() == 1.0


def test_logs_match_variables():
    schedule = Polynomial(initial=1e-3, final=0.0, power=1)
    model, watch = sparse_model(), Watch()
    callback = gems.GemMinerCallback(0.8, 2, regularization=schedule)
    logs = fit(model, callback, watch, epochs=8).history
    for epoch in range(8):
        scores = [s.astype("float64").ravel() for s in watch.scores[epoch]]
        alive = np.concatenate([a.ravel() for a in watch.alive[epoch]])
        scores = np.concatenate(scores)
        density = np.mean((scores > 0.5) & alive)
        weight = 1e-3 * (1 - epoch / 8)
        expected = {
            "density": density,
            "sparsity": 1 - density,
            "alive_density": np.mean(alive),
            "regularization": weight,
            "score_penalty": weight * np.sum(scores**2),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(
                logs[name][epoch], value, rtol=1e-5, err_msg=name
            )
    # The loss of the last step includes the penalty, not just the logs.
    np.testing.assert_allclose(read(model.gem.penalty.weight), 1.25e-4)


@pytest.mark.parametrize("saturates", [True, False])
def test_last_epochs_train_the_ticket_network(saturates):
    rate = keras.optimizers.schedules.CosineDecay(0.5, 8 * 4)
    model = sparse_model(keras.optimizers.SGD(rate, momentum=0.9))
    miner = gems.GemMinerCallback(
        0.8,
        2,
        regularization=0.005,
        stop_at_target=saturates,
        saturate_scores=saturates,
    )
    logs = fit(model, miner, epochs=8).history
    # Momentum moved it below the threshold, but the last freeze kept it.
    assert logs["density"][5] < 0.9 * logs["alive_density"][6]
    if not saturates:  # As in the paper, it stays there.
        assert max(logs["density"][6:]) < 0.9 * logs["alive_density"][6]
        return
    assert logs["density"][6:] == logs["alive_density"][6:]
    mined = model.evaluate(X, Y, verbose=0)
    model.start_finetuning()
    assert compiled(model).evaluate(X, Y, verbose=0) == mined


def test_epochs_argument_covers_several_fits():
    whole, parts = sparse_model(), sparse_model()
    fit(whole, gems.GemMinerCallback(0.8, 2), epochs=8)
    callback = gems.GemMinerCallback(0.8, 2, epochs=8)
    fit(parts, callback, epochs=3)
    with pytest.raises(RuntimeError, match="stopped before its last freeze"):
        parts.ticket()
    fit(parts, callback, epochs=5, initial_epoch=3)
    fit(parts, callback, epochs=8, initial_epoch=5)
    assert_equal_tickets(whole.ticket(), parts.ticket())


def assert_equal_tickets(one, other):
    assert list(one.masks) == list(other.masks)
    assert list(one.weights) == list(other.weights)
    for path in one.weights:
        np.testing.assert_array_equal(one.weights[path], other.weights[path])
    for path in one.masks:
        np.testing.assert_array_equal(one.masks[path], other.masks[path])


def test_same_seed_gives_same_ticket():
    callbacks = [gems.GemMinerCallback(0.8, 2) for _ in range(3)]
    models = [sparse_model(seed=seed) for seed in (7, 7, 8)]
    for model, callback in zip(models, callbacks, strict=True):
        fit(model, callback, epochs=6)
    tickets = [model.ticket() for model in models]
    assert_equal_tickets(tickets[0], tickets[1])
    for one, other in zip(
        models[0].gem.prunable, models[1].gem.prunable, strict=True
    ):
        np.testing.assert_array_equal(read(one.score), read(other.score))
    assert any(
        (a != b).any()
        for a, b in zip(
            tickets[0].masks.values(), tickets[2].masks.values(), strict=True
        )
    )


@pytest.mark.parametrize("order", [1, -1])
def test_resumed_run_gives_same_ticket(order, tmp_path):
    uninterrupted = sparse_model(keras.optimizers.Adam(0.05))
    fit(uninterrupted, gems.GemMinerCallback(0.8, 2))

    def callbacks():
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        return [gems.GemMinerCallback(0.8, 2), backup][::order]

    for epoch in (3, 4):  # Within a period, and in an epoch with a freeze.
        killed = sparse_model(keras.optimizers.Adam(0.05))
        with pytest.raises(KeyboardInterrupt):
            fit(killed, *callbacks(), Kill(epoch))
    # Another seed shows that the backup holds the complete state.
    resumed = sparse_model(keras.optimizers.Adam(0.05), seed=99)
    watch = Watch()
    fit(resumed, *callbacks(), watch)
    assert len(watch.alive) == 4, "the run did not resume"
    assert_equal_tickets(uninterrupted.ticket(), resumed.ticket())
    for one, other in zip(
        uninterrupted.gem.prunable, resumed.gem.prunable, strict=True
    ):
        np.testing.assert_array_equal(read(one.score), read(other.score))


def test_gem_layers_of_plain_model_share_budget():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            gems.GemLayer(keras.layers.Dense(16, activation="relu"), seed=1),
            keras.layers.Dense(8, activation="relu"),
            gems.GemLayer(keras.layers.Dense(3), seed=2),
        ]
    )
    # All scores of the second layer are larger.
    for layer, score in zip(Watch.find(model), (0.6, 0.9), strict=True):
        [prunable] = layer.prunable
        prunable.score.assign(ops.full(prunable.score.shape, score))
    compiled(model, keras.optimizers.SGD(1e-4))
    dense = read(model.layers[1].kernel)
    watch = Watch()
    fit(
        model, gems.GemMinerCallback(0.85, 2, regularization=0), watch, epochs=6
    )
    ticket = gems.Ticket.from_model(model)
    kept = round(0.15 * (160 + 24))
    assert ticket.kept == watch.counts()[-1] == kept
    first, second = (int(m.sum()) for m in ticket.masks.values())
    assert (first, second) == (kept - 24, 24)
    assert (read(model.layers[1].kernel) != dense).any(), (
        "the layer was not trained"
    )


def test_dead_network_raises_error():
    model = sparse_model(keras.optimizers.SGD(1.0))
    with pytest.raises(RuntimeError) as error:
        fit(
            model,
            gems.GemMinerCallback(
                0.5,
                2,
                regularization=10.0,
                stop_at_target=False,
                saturate_scores=False,
            ),
        )
    message = str(error.value)
    assert "epoch 1" in message and "no longer depends" in message
    assert "regularization=10" in message
    assert "Reduce the regularization or the learning rate" in message
    assert model.gem.prunable[0].path in message


def test_layer_with_shortcut_may_die():
    inputs = keras.Input((10,))
    bridged = keras.layers.Dense(10, name="bridged")(inputs)
    outputs = keras.layers.Dense(3)(keras.layers.add([inputs, bridged]))
    keras.utils.set_random_seed(0)
    model = compiled(gems.SparseModel(keras.Model(inputs, outputs), seed=0))
    for prunable in model.gem.prunable:
        score = 0.0 if "bridged" in prunable.path else 1.0
        prunable.score.assign(ops.full(prunable.score.shape, score))
    fit(model, gems.GemMinerCallback(0.9, 2, regularization=0.0), epochs=4)
    assert model.ticket().kept == 13


def test_restored_weights_give_no_ticket():
    model = sparse_model()
    early = keras.callbacks.EarlyStopping(
        "regularization", patience=100, mode="max", restore_best_weights=True
    )
    # The best epoch is at the start.
    schedule = Polynomial(initial=1e-3, final=1e-4)
    fit(model, gems.GemMinerCallback(0.8, 2, schedule), early)
    with pytest.raises(
        RuntimeError, match="restore_best_weights=True"
    ) as error:
        model.ticket()
    assert f"keep the {round(0.2 * SIZE)} weights" in str(error.value)
    assert f"{SIZE} are alive" in str(error.value)
    with pytest.raises(RuntimeError, match="restore_best_weights=True"):
        model.start_finetuning()
    rounded = model.ticket(masks="rounded")
    np.testing.assert_allclose(rounded.density, model.density)


def test_config_round_trip():
    callback = gems.GemMinerCallback(
        0.9, 3, Polynomial(1e-3, 1e-5), False, epochs=20, verbose=1
    )
    config = keras.saving.serialize_keras_object(callback)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is gems.GemMinerCallback
    assert copy.get_config() == callback.get_config()
    assert copy.regularization.get_config() == (
        callback.regularization.get_config()
    )


def test_from_preset():
    callback = gems.GemMinerCallback.from_preset("paper", 0.98)
    assert callback.regularization(0.5) == 1e-4
    assert (callback.freeze_period, callback.target_sparsity) == (5, 0.98)
    callback = gems.GemMinerCallback.from_preset("paper", 0.98, freeze_period=8)
    assert callback.freeze_period == 8
    with pytest.raises(ValueError, match="'papers'.*Did you mean 'paper'"):
        gems.GemMinerCallback.from_preset("papers", 0.98)


@pytest.mark.parametrize(
    "value, remedy",
    [
        (98, "Did you mean 0.98?"),
        (1.0, "0.99 keeps 1 %"),
        (-0.1, "Did you mean 0.1, or 0.9?"),
        (float("nan"), "such as 0.98"),
        (float("inf"), "such as 0.98"),
        ("0.9", "such as 0.98"),
        (True, "such as 0.98"),
        (None, "such as 0.98"),
    ],
)
def test_refuses_sparsity(value, remedy):
    with pytest.raises(ValueError) as error:
        gems.GemMinerCallback(target_sparsity=value)
    message = str(error.value)
    assert "fraction of zeros, in [0, 1)" in message
    assert f"Received: target_sparsity={value!r}" in message
    assert remedy in message


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"freeze_period": 0}, "Received: freeze_period=0"),
        ({"freeze_period": 2.5}, "Received: freeze_period=2.5"),
        ({"freeze_period": True}, "Received: freeze_period=True"),
        ({"epochs": 0}, "Received: epochs=0"),
        ({"regularization": -1e-4}, "Received: regularization=-0.0001"),
        ({"regularization": "cubic"}, "regularization='cubic'.*'polynomial'"),
        ({"rounding": "exakt"}, "rounding='exakt'.*Did you mean 'exact'"),
    ],
)
def test_refuses_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        gems.GemMinerCallback(0.9, **arguments)


def test_refuses_unsupported_fit_arguments():
    model = sparse_model()
    with pytest.raises(RuntimeError, match="no ticket before mining"):
        model.ticket()
    with pytest.raises(RuntimeError, match="no ticket before mining"):
        model.start_finetuning()
    with pytest.raises(ValueError, match="freeze_period=5, epochs=8.*=2 or"):
        fit(model, gems.GemMinerCallback(0.9), epochs=8)
    with pytest.raises(ValueError, match=f"at least 2 of {SIZE}.*Use 0.990385"):
        fit(model, gems.GemMinerCallback(0.999, 2), epochs=8)

    plain = compiled(network())
    with pytest.raises(
        ValueError, match=r"contains no `GemLayer`.*SparseModel\("
    ):
        fit(plain, gems.GemMinerCallback(0.9, 2), epochs=4)

    fit(model, gems.GemMinerCallback(0.9, 2), epochs=4)
    model.start_finetuning()
    compiled(model)
    with pytest.raises(ValueError, match="is for the mining phase.*Leave"):
        fit(model, gems.GemMinerCallback(0.9, 2), epochs=4)


def test_single_epoch_loop_warns_then_raises():
    model = sparse_model()
    callback = gems.GemMinerCallback(0.8, 2, epochs=8)
    with pytest.warns(UserWarning, match="first freeze.*initial_epoch=1"):
        fit(model, callback, epochs=1)
    with pytest.raises(ValueError, match=r"loop.*fit\(initial_epoch=1"):
        fit(model, callback, epochs=1)
    fit(model, callback, epochs=8, initial_epoch=1)
    assert model.ticket().kept == round(0.2 * SIZE)
    whole = sparse_model()
    fit(whole, gems.GemMinerCallback(0.8, 2), epochs=8)
    assert_equal_tickets(whole.ticket(), model.ticket())


def test_next_fit_requires_larger_sparsity():
    model = sparse_model()
    fit(model, gems.GemMinerCallback(0.6, 2), epochs=6)
    before = model.ticket().masks
    for sparsity in (0.5, 0.6):
        with pytest.raises(ValueError, match="stay pruned|already zero"):
            fit(model, gems.GemMinerCallback(sparsity, 2), epochs=6)
    logs = fit(model, gems.GemMinerCallback(0.9, 2), epochs=6).history
    ticket = model.ticket()
    assert ticket.kept == round(0.1 * SIZE)
    assert logs["density"][3] < 0.3, "the penalty was reset"
    for path, mask in ticket.masks.items():
        assert not (mask & ~before[path]).any(), "a frozen weight returned"
    model.gem.reset_mining()
    fit(model, gems.GemMinerCallback(0.5, 2), epochs=6)
    assert model.ticket().kept == round(0.5 * SIZE)
