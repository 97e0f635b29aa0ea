"""Compares optimizers for scores and sparse weights with their formulas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras import ops

import tf_gems as gems
from tf_gems.optimizers import ScoreOptimizer
from tf_gems.optimizers import density_scaling
from tf_gems.optimizers import hyperbolic_step

random = np.random.default_rng(0)
X = random.normal(size=(16, 6)).astype("float32")
Y = random.normal(size=(16, 3)).astype("float32")


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        keras.optimizers.AdamW(0.01, weight_decay=0.1, clipnorm=0.5),
        keras.optimizers.Lion(0.01),
        keras.optimizers.Adam(
            keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
        ),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_hyperbolic_step_multiplies_optimizer_step(optimizer):
    start = random.normal(size=(4, 3)).astype("float32")
    weight, bias = keras.Variable(start), keras.Variable(start[0])
    kind = type(optimizer)
    plain = kind.from_config(optimizer.get_config())
    optimizer = hyperbolic_step(optimizer, alpha=2.0, beta=0.5)
    assert isinstance(optimizer, getattr(keras.optimizers, kind.__name__))
    copies = [keras.Variable(start), keras.Variable(start[0])]
    for _ in range(4):
        gradient = random.normal(size=(4, 3)).astype("float32")
        gradients = [ops.array(gradient), ops.array(gradient[0])]
        # The truth is the step of the plain optimizer, changed by the formula.
        rate = float(ops.convert_to_numpy(optimizer.learning_rate))
        copies[0].assign(weight)
        copies[1].assign(bias)
        plain.apply(gradients, copies)
        optimizer.apply(gradients, [weight, bias])
        if getattr(optimizer, "clipnorm", None):
            norm = np.linalg.norm(gradient)
            gradient = gradient * min(1, optimizer.clipnorm / norm)
        w = np.array(copies[0])
        factor = np.exp(rate * (-2.0 * np.sign(w) * gradient - 0.5))
        np.testing.assert_allclose(weight, w * factor, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(bias, copies[1])


def test_step_with_backend_that_updates_all_weights():
    """Keras' own optimizers do so on torch, and do not call `update_step`."""

    class AllAtOnce(keras.optimizers.SGD):
        __module__ = "keras.src.backend.torch.optimizers.torch_sgd"

        def _backend_update_step(self, grads, trainable_variables, rate):
            for gradient, weight in zip(
                grads, trainable_variables, strict=True
            ):
                weight.assign_sub(rate * gradient)

    optimizer = hyperbolic_step(AllAtOnce(0.1), alpha=1.0, beta=0.0)
    weight = keras.Variable([[1.0, -1.0]])
    optimizer.apply([ops.array([[0.5, 0.5]])], [weight])
    expected = [[0.95 * np.exp(-0.05), -1.05 * np.exp(0.05)]]
    np.testing.assert_allclose(weight, expected, rtol=1e-5)


def test_single_step_is_bounded():
    optimizer = hyperbolic_step(keras.optimizers.SGD(1e-3))
    weight = keras.Variable([[1.0, -1.0]])
    optimizer.apply([ops.array([[-1e3, -1e3]])], [weight])
    # SGD adds 1 to both. exp(0.2 * 1e3) would overflow.
    np.testing.assert_allclose(weight, [[2 * np.e, 0.0]], rtol=1e-6)


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, "relu", name="a"),
            layers.Dense(3, name="b"),
        ]
    )


def test_pruned_weights_stay_zero_and_signs_change():
    sparse = gems.SparseModel(network(), start="trained")
    adam = keras.optimizers.Adam(0.05)
    sparse.compile(hyperbolic_step(adam, alpha=10.0), "mse")
    sparse.fit(
        X,
        Y,
        epochs=6,
        verbose=0,
        callbacks=[gems.GradualMagnitudeCallback(0.5)],
    )
    kernels = [w for w in gems.strip(sparse).weights if len(w.shape) == 2]
    assert sum(np.count_nonzero(np.array(k)) for k in kernels) == 36


def test_compiled_model_file_round_trip(tmp_path):
    model = network()
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    model.compile(
        hyperbolic_step(keras.optimizers.SGD(schedule, momentum=0.9), 3.0),
        "mse",
    )
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.hyperbolic == {"alpha": 3.0, "beta": 1e-3}
    assert isinstance(loaded.optimizer, keras.optimizers.SGD)
    for one in (model, loaded):
        one.fit(X, Y, shuffle=False, verbose=0)
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "optimizer, arguments, message",
    [
        ("sgd", {}, "Keras optimizer"),
        (keras.optimizers.Ftrl(), {}, "Ftrl"),
        (
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
            {},
            "wrap the result",
        ),
        (keras.optimizers.SGD(), {"alpha": -1}, "alpha=-1"),
        (keras.optimizers.SGD(), {"beta": float("nan")}, "beta=nan"),
        (hyperbolic_step(keras.optimizers.SGD()), {}, "not one of"),
    ],
)
def test_invalid_arguments_are_refused(optimizer, arguments, message):
    with pytest.raises(ValueError, match=message):
        hyperbolic_step(optimizer, **arguments)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        keras.optimizers.Adam(0.01),
        keras.optimizers.RMSprop(0.01),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_learning_rate_scales_with_neuron_density(optimizer):
    start = random.normal(size=(3, 4, 3)).astype("float32")
    start[:, 1:, 1] = 0.0
    start[0, :2, 2] = 0.0
    scaled = density_scaling(optimizer)
    assert isinstance(scaled, type(optimizer))
    density = np.array([12, 3, 10]) / 12
    rates = np.sqrt(density / density.mean()) * float(optimizer.learning_rate)
    # Each neuron trained separately, by the plain optimizer at its rate.
    columns = [keras.Variable(start[..., i]) for i in range(3)]
    plain = []
    for rate in rates:
        config = {**optimizer.get_config(), "learning_rate": float(rate)}
        plain.append(type(optimizer).from_config(config))
    weight = keras.Variable(start)
    for _ in range(4):
        gradient = random.normal(size=start.shape).astype("float32")
        gradient[start == 0] = 0.0
        scaled.apply([ops.array(gradient)], [weight])
        for i, column in enumerate(columns):
            plain[i].apply([ops.array(gradient[..., i])], [column])
    found = np.stack([np.array(column) for column in columns], -1)
    np.testing.assert_allclose(weight, found, rtol=1e-5, atol=1e-7)


def test_masked_weights_count_as_pruned():
    sparse = gems.SparseModel(network(), start="trained")
    sparse.compile(keras.optimizers.SGD(0.05), "mse")
    gems.methods.Magnitude(0.75).find(sparse).apply(sparse)
    sparse.compile(density_scaling(keras.optimizers.SGD(0.05)), "mse")
    before = [np.array(w.weight) for w in sparse.gem.prunable]
    with tf.GradientTape() as tape:
        loss = sparse.compute_loss(X, Y, sparse(X, training=True))
    kernels = [w.weight for w in sparse.gem.prunable]
    gradients = tape.gradient(loss, [kernel.value for kernel in kernels])
    sparse.train_on_batch(X, Y)
    for old, gradient, kernel, prunable in zip(
        before, gradients, kernels, sparse.gem.prunable, strict=True
    ):
        alive = np.array(prunable.alive.read())
        density = alive.mean(0)
        step = 0.05 * np.sqrt(density / density.mean()) * gradient
        expected = old - np.where(alive, step, 0)
        np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-6)


def test_density_scaling_file_round_trip(tmp_path):
    model = network()
    model.compile(density_scaling(keras.optimizers.SGD(0.1)), "mse")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(model.optimizer)


@pytest.mark.parametrize("step", [hyperbolic_step, density_scaling])
def test_scores_use_plain_optimizer(step):
    sparse = gems.SparseModel(network(), seed=0)
    sparse.compile(step(keras.optimizers.SGD(0.1)), "mse")
    with pytest.raises(ValueError, match="Mine with the plain optimizer"):
        sparse.fit(
            X,
            Y,
            epochs=4,
            verbose=0,
            callbacks=[gems.GemMinerCallback(0.5, freeze_period=1)],
        )


class Rates(keras.callbacks.Callback):
    """Records the learning rate of every step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        [part] = gems.optimizers.optimizer_parts(self.model.optimizer)
        self.seen.append(float(ops.convert_to_numpy(part.learning_rate)))


def mined(optimizer, epochs=8, batch_size=4, kind=keras.Sequential):
    sparse = gems.SparseModel(network(), kernel_initializer="signed_constant")
    sparse.compile(optimizer, "mse")
    rates = Rates()
    sparse.fit(
        X,
        Y,
        batch_size=batch_size,
        epochs=epochs,
        verbose=0,
        callbacks=[gems.GemMinerCallback(0.5, 2), rates],
    )
    return sparse, rates.seen


@pytest.mark.parametrize("epochs, batch_size", [(4, 2), (10, 5)])
def test_score_travel_does_not_depend_on_epochs(epochs, batch_size):
    sparse, rates = mined("auto", epochs, batch_size)
    steps = epochs * -(-len(X) // batch_size)
    progress = (np.repeat(np.arange(epochs), steps // epochs) + 0.5) / epochs
    expected = 20 / steps * (1 + np.cos(np.pi * progress)) / 2
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    np.testing.assert_allclose(sum(rates), 10, rtol=1e-5)
    assert sparse.ticket().kept == round(0.5 * sparse.gem.size)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.LossScaleOptimizer(ScoreOptimizer(10)),
        keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(ScoreOptimizer(10))
        ),
    ],
    ids=["scaled", "many"],
)
def test_rate_is_set_within_wrapping_optimizers(optimizer, eagerly):
    _, rates = mined(optimizer, 4, 8)
    expected = 10 / 8 * (1 + np.cos(np.pi * 3.5 / 4)) / 2
    np.testing.assert_allclose(rates[-1], expected, rtol=1e-5)


def test_nan_loss_is_reported_with_any_rate(eagerly):
    sparse = gems.SparseModel(network(), kernel_initializer="signed_constant")
    adam = keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.5))
    sparse.compile(keras.optimizers.MultiOptimizer(adam), "mse")
    miner = gems.GemMinerCallback(0.5, 1)
    with pytest.raises(RuntimeError, match="learning_rate=0.5"):
        sparse.fit(X, Y * np.nan, epochs=2, verbose=0, callbacks=[miner])


def test_given_learning_rate_is_kept(eagerly):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    _, rates = mined(ScoreOptimizer(learning_rate=schedule), 4, 8)
    np.testing.assert_allclose(rates, 0.1 * 0.5 ** np.arange(1, 9), rtol=1e-5)


def test_auto_with_custom_train_step(eagerly):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            variables = self.trainable_variables
            self.optimizer.apply_gradients(
                zip(tape.gradient(loss, variables), variables, strict=True)
            )
            return {"mse": loss}

    model = Own()
    model(X)
    sparse = gems.SparseModel(model, kernel_initializer="signed_constant")
    sparse.compile(optimizer="auto", loss="mse")
    before = np.array(sparse.gem.prunable[0].score)
    miner = gems.GemMinerCallback(0.5, 1)
    sparse.fit(X, Y, epochs=2, verbose=0, callbacks=[miner])
    assert isinstance(model.optimizer, ScoreOptimizer)
    assert np.any(np.array(sparse.gem.prunable[0].score) != before)


def test_auto_file_round_trip(tmp_path):
    sparse, _ = mined("auto", 4, 8)
    sparse.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.travel == 20.0


def test_method_restores_compiled_optimizer():
    by_callback, _ = mined("auto", 8, 4)
    sparse = gems.SparseModel(network(), kernel_initializer="signed_constant")
    optimizer = keras.optimizers.SGD(0.1)
    sparse.compile(optimizer, "mse")
    method = gems.methods.GemMiner(0.5, 8, "auto", 2)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    found = method.find(sparse, data, verbose=0)
    assert sparse.optimizer is optimizer
    assert found.metadata["method"]["config"]["learning_rate"] == "auto"
    assert method.from_config(method.get_config()).learning_rate == "auto"
    # The same rates train the same scores, in another order of the data.
    assert found.kept == by_callback.ticket().kept


def test_data_of_unknown_length(eagerly):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    data = data.filter(lambda x, y: True)
    sparse = gems.SparseModel(network(), kernel_initializer="signed_constant")
    sparse.compile("auto", "mse")
    rates = Rates()
    miner = gems.GemMinerCallback(0.5, 1)
    sparse.fit(data, epochs=4, verbose=0, callbacks=[miner, rates])
    progress = (np.arange(1, 4) + 0.5) / 4
    expected = 20 / 16 * (1 + np.cos(np.pi * progress)) / 2
    np.testing.assert_allclose(rates.seen[:4], 0.01, rtol=1e-6)
    np.testing.assert_allclose(rates.seen[4::4], expected, rtol=1e-5)


def test_weights_are_refused():
    sparse = gems.SparseModel(network(), start="trained")
    sparse.compile("auto", "mse")
    pruner = gems.GradualMagnitudeCallback(0.5)
    with pytest.raises(ValueError, match="variables .*which are weights"):
        sparse.fit(X, Y, verbose=0, callbacks=[pruner])
    with pytest.raises(ValueError, match="travel=0"):
        ScoreOptimizer(0)
