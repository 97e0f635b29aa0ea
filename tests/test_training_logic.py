"""Tests that a model's own training methods are used or refused."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops
from models import difference
from models import values

import tf_gems
from tf_gems.layers.gem_layer import find_gem_layers

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="custom steps need the TensorFlow backend",
)


def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(32, 6)).astype("float32")
    return x, random.normal(size=(32, 3)).astype("float32")


class Plain(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(8, activation="relu")
        self.norm = layers.BatchNormalization()
        self.drop = layers.Dropout(0.0)
        self.last = layers.Dense(3, use_bias=False)

    def call(self, x, training=False):
        x = self.norm(self.first(x), training=training)
        return self.last(self.drop(x, training=training))


class Same(Plain):
    """Overrides a step with the behavior of Keras."""

    steps = 0

    def train_step(self, data):
        self.steps += 1
        return super().train_step(data)


class ByHand(Plain):
    """Calls its layers directly, and computes its loss itself."""

    def __init__(self):
        super().__init__()
        self.mean = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.mean]

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            z = self.norm(self.first(x), training=True)
            kernel = ops.convert_to_tensor(self.last.kernel)
            loss = ops.mean(ops.square(y - ops.matmul(z, kernel)))
        variables = [
            *self.first.trainable_variables,
            *self.norm.trainable_weights,
            *self.last.trainable_variables,
        ]
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self.mean.update_state(loss)
        return {"loss": self.mean.result()}


def built(kind):
    keras.utils.set_random_seed(1)
    model = kind()
    model(data()[0][:1])
    return model


def with_gem(kind):
    """Returns a user's model that contains a `GemLayer`."""
    model = kind()
    model.first = tf_gems.GemLayer(model.first, seed=0)
    model(data()[0][:1])
    return model


def mine(sparse, x, y, optimizer=None, **kwargs):
    sparse.compile(optimizer or keras.optimizers.SGD(0.3, momentum=0.9), "mse")
    callback = tf_gems.GemMinerCallback(0.6, freeze_period=1)
    return sparse.fit(
        x,
        y,
        epochs=4,
        batch_size=8,
        shuffle=False,
        verbose=0,
        callbacks=[callback],
        **kwargs,
    )


@on_tensorflow
@pytest.mark.parametrize("mask", ["round", "magnitude"])
@pytest.mark.parametrize("phase", ["mining", "finetuning"])
def test_custom_step_matches_keras_step(mask, phase):
    """Compares with Keras' own step, which uses `GemLayer.call`."""
    x, y = data()
    trained = []
    for kind in (Plain, Same, ByHand):
        rule = (
            "round"
            if mask == "round"
            else tf_gems.layers.TopKMask(0.5, magnitude=True)
        )
        sparse = tf_gems.SparseModel(built(kind), mask=rule, seed=0)
        if phase == "finetuning":
            ticket = tf_gems.methods.RandomPruning(0.5, seed=0).find(sparse)
            sparse.start_finetuning(ticket)
        else:
            sparse.gem.penalty.set_constant(0.01, 3)
        sparse.compile(keras.optimizers.SGD(0.3, momentum=0.9), "mse")
        sparse.fit(x, y, epochs=2, batch_size=8, shuffle=False, verbose=0)
        scores = [w.score for w in sparse.gem.prunable]
        trained.append([*values(scores), *values(sparse.model)])
    plain, same, by_hand = trained
    assert difference(plain, same) < 1e-6
    assert difference(plain, by_hand) < 1e-6


@on_tensorflow
def test_custom_step_with_replicas(mirrored_strategy):
    x, y = data()
    trained = []
    for kind in (Plain, Same):
        with mirrored_strategy.scope():
            sparse = tf_gems.SparseModel(built(kind), seed=0)
            sparse.compile(keras.optimizers.SGD(0.3, momentum=0.9), "mse")
        sparse.gem.penalty.set_constant(0.01, 3)
        sparse.fit(x, y, epochs=1, batch_size=8, shuffle=False, verbose=0)
        trained.append(values([w.score for w in sparse.gem.prunable]))
    assert difference(*trained) < 1e-6


@on_tensorflow
def test_mine_finetune_and_strip_with_custom_steps():
    x, y = data()
    model = built(ByHand)
    before = values(model)
    sparse = tf_gems.SparseModel(model, seed=0)
    history = mine(sparse, x, y, validation_data=(x, y)).history
    assert len(history["loss"]) == 4 and len(history["val_loss"]) == 4
    kernels = [i for i, w in enumerate(before) if w.ndim > 1]
    assert all(np.array_equal(before[i], values(model)[i]) for i in kernels)
    assert sparse.ticket().kept == round(0.4 * sparse.gem.size)
    assert [id(v) for v in model.first.weights] == [
        id(model.first.kernel),
        id(model.first.bias),
    ]
    sparse.start_finetuning()
    sparse.compile("adam", "mse")
    sparse.fit(x, y, verbose=0)
    expected = sparse.predict(x, verbose=0)
    assert tf_gems.strip(sparse) is model
    assert difference(model.predict(x, verbose=0), expected) == 0.0
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0)


class OwnLoss(Plain):
    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs) + 1000.0


class OwnMetrics(Plain):
    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        found = super().compute_metrics(x, y, y_pred, sample_weight)
        return {**found, "one": 1.0}


class OwnCompile(Plain):
    def compile(self, factor, **kwargs):
        super().compile(keras.optimizers.SGD(0.1), "mse", **kwargs)
        self.factor = factor

    def test_step(self, data):
        logs = super().test_step(data)
        return {**logs, "factor": self.factor}


@on_tensorflow
def test_custom_losses_metrics_and_compile():
    x, y = data()
    sparse = tf_gems.SparseModel(built(OwnLoss), seed=0)
    assert min(mine(sparse, x, y).history["loss"]) > 999
    sparse = tf_gems.SparseModel(built(OwnMetrics), seed=0)
    assert mine(sparse, x, y).history["one"] == [1.0] * 4
    sparse = tf_gems.SparseModel(built(OwnCompile), seed=0)
    sparse.compile(factor=3.0)
    assert sparse.evaluate(x, y, verbose=0, return_dict=True)["factor"] == 3


class TwoOptimizers(Plain):
    def compile(self, one, two):
        super().compile()
        self.one, self.two = one, two


class OtherOptimizer(Plain):
    def train_step(self, data):
        return {"loss": 0.0}


class NoGradient(Plain):
    def train_step(self, data):
        gradients = [None for _ in self.trainable_variables]
        self.optimizer.apply(gradients, self.trainable_variables)


class OwnFit(Plain):
    def fit(self, *args, **kwargs):
        return super().fit(*args, **kwargs)


class OwnTestLoop(Plain):
    def make_test_function(self, force=False):
        return super().make_test_function(force)


def test_unsupported_models_are_refused_before_training():
    x, y = data()
    for kind, name in ((OwnFit, "fit"), (OwnTestLoop, "make_test_function")):
        sparse = tf_gems.SparseModel(built(kind), seed=0)
        with pytest.raises(ValueError, match=f"'own_.*overrides `{name}`"):
            sparse.compile("sgd", "mse")
    sparse = tf_gems.SparseModel(built(Same), seed=0)
    if keras.backend.backend() != "tensorflow":
        with pytest.raises(ValueError, match="overrides `train_step`, on"):
            sparse.compile("sgd", "mse")
        return
    sparse = tf_gems.SparseModel(built(TwoOptimizers), seed=0)
    with pytest.raises(ValueError, match="`one`, `two`.*training_loops"):
        sparse.compile(keras.optimizers.SGD(), keras.optimizers.SGD())
    for kind, match in (
        (OtherOptimizer, "`train_step` of 'other_optimizer'"),
        (NoGradient, "does not depend on any prunable weight"),
    ):
        sparse = tf_gems.SparseModel(built(kind), seed=0)
        before = values(sparse)
        with pytest.raises(ValueError, match=match):
            mine(sparse, x, y)
        assert all(map(np.array_equal, before[:2], values(sparse)))


def test_mining_needs_a_loss():
    x, y = data()
    sparse = tf_gems.SparseModel(built(Plain), seed=0)
    sparse.compile("sgd")
    with pytest.raises(ValueError, match="Mining requires a loss"):
        sparse.fit(x, y, verbose=0)


class AddsLoss(Plain):
    def call(self, x, training=False):
        y = super().call(x, training)
        self.add_loss(ops.mean(ops.square(y)))
        return y


@pytest.mark.parametrize("kind", [Plain, AddsLoss])
def test_model_with_gem_layers_needs_a_loss(kind):
    x, y = data()
    model = with_gem(kind)
    model.compile("sgd")
    callback = tf_gems.GemMinerCallback(0.6, freeze_period=1)
    arguments = {"epochs": 4, "verbose": 0, "callbacks": [callback]}
    if kind is AddsLoss:
        model.fit(x, y, **arguments)
        return
    with pytest.raises(
        ValueError, match=f"Mining requires a loss.*{model.name}"
    ):
        model.fit(x, y, **arguments)


class FullBatch(Plain):
    """Keras reports a loss of 0 here, since the step updates no metric."""

    training = True

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self(x, training=self.training) - y))
        variables = self.trainable_variables
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"loss": loss}


@on_tensorflow
def test_steps_count_batches_with_data():
    """One batch per epoch is data, whatever the step returns."""
    x, y = data()
    wrapped = tf_gems.SparseModel(built(FullBatch), seed=0)
    for sparse in (wrapped, with_gem(FullBatch)):
        mine(sparse, x[:8], y[:8])
        [gem] = find_gem_layers(sparse)
        assert int(gem.penalty.steps) == 4
    model = with_gem(FullBatch)
    model.training = False
    with pytest.raises(RuntimeError, match="`training=True`"):
        mine(model, x, y)


class Scaled(FullBatch):
    """A custom step in mixed precision."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            found = ops.cast(self(x, training=True), "float32")
            loss = ops.mean(ops.square(found - y))
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"own": loss}


@on_tensorflow
@pytest.mark.parametrize("phase", ["mining", "finetuning"])
def test_loss_scaling_matches_unscaled_training(phase):
    x, y = data()
    trained = []
    for policy in ("float32", "mixed_float16"):
        keras.config.set_dtype_policy(policy)
        try:
            sparse = tf_gems.SparseModel(built(Scaled), seed=0)
        finally:
            keras.config.set_dtype_policy("float32")
        if phase == "finetuning":
            method = tf_gems.methods.RandomPruning(0.5, seed=0)
            sparse.start_finetuning(method.find(sparse))
        # A small initial loss scale skips no step.
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, 8.0)
        sparse.compile(optimizer, "mse")
        sparse.fit(x, y, epochs=2, batch_size=8, shuffle=False, verbose=0)
        variables = [w.score for w in sparse.gem.prunable]
        if phase == "finetuning":
            variables = [w.weight for w in sparse.gem.prunable]
        trained.append(values(variables))
    assert difference(*trained) < 1e-2


class Follows(keras.Model):
    """A target network that copies the trained network, as in BYOL."""

    def __init__(self, follower_trains=False):
        super().__init__()
        self.online, self.target = Plain(), Plain()
        self.target.trainable = follower_trains

    def call(self, x, training=False):
        self.target(x)
        return self.online(x, training=training)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            z = self.online(x, training=True) - self.target(x)
            loss = ops.mean(ops.square(z - y))
        variables = self.online.trainable_variables
        squares = sum(ops.sum(ops.square(v)) for v in variables)
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        for theirs, ours in zip(
            self.target.weights, self.online.weights, strict=True
        ):
            theirs.assign(ours)
        return {"own": loss, "squares": squares}


@on_tensorflow
def test_custom_step_reads_masked_weights():
    """Scores, which replace weights in training, are not masked."""
    x, y = data()
    model = built(Follows)
    sparse = tf_gems.SparseModel(model, seed=0)
    assert len(sparse.gem.prunable) == 2
    sparse.compile(keras.optimizers.SGD(0.0), "mse")
    history = sparse.fit(x, y, batch_size=32, verbose=0).history
    expected = {v.path: np.array(v) for v in model.online.weights}
    for prunable, mask in zip(
        sparse.gem.prunable, sparse.gem.masks(), strict=True
    ):
        expected[prunable.weight.path] *= np.asarray(mask)
    found = values(model.target)
    assert difference(found, list(expected.values())) == 0.0
    squares = [
        np.sum(np.square(expected[w.weight.path])) for w in sparse.gem.prunable
    ]
    assert history["squares"] == [pytest.approx(sum(squares), rel=1e-5)]
    # A network cannot be trained, copied to and pruned at the same time.
    keras.utils.set_random_seed(1)
    model = Follows(follower_trains=True)
    model(x[:1])
    sparse = tf_gems.SparseModel(model, seed=0)
    with pytest.raises(ValueError, match="assigns to '.*trainable=False"):
        mine(sparse, x, y)


class Distills(keras.Model):
    """Learns from a teacher, which its step only reads."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = Plain(), Plain()

    def call(self, x, training=False):
        self.teacher(x)
        return self.student(x, training=training)

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as tape:
            theirs, ours = self.teacher(x), self.student(x, training=True)
            loss = ops.mean(ops.square(theirs - ours))
        variables = self.student.trainable_variables
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"loss": loss}


@on_tensorflow
@pytest.mark.parametrize("phase", ["mining", "finetuning"])
def test_what_a_step_does_not_train_is_told(phase):
    x, y = data()
    model = built(Distills)
    sparse = tf_gems.SparseModel(model, seed=0, phase=phase)
    sparse.compile(keras.optimizers.SGD(0.1), "mse")
    with pytest.warns(UserWarning, match="did not update") as told:
        sparse.fit(x, y, verbose=0)
    [message] = {str(w.message) for w in told if "not update" in str(w.message)}
    for weight in sparse.gem.prunable:
        is_teacher = any(weight.weight is v for v in model.teacher.weights)
        assert (weight.path in message) == is_teacher
    model = built(Distills)
    model.teacher.trainable = False
    sparse = tf_gems.SparseModel(model, seed=0, phase=phase)
    sparse.compile(keras.optimizers.SGD(0.1), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sparse.fit(x, y, verbose=0)


class SharpnessAware(Plain):
    """Computes gradients at perturbed weights and restores the weights."""

    def train_step(self, data):
        x, y = data
        variables = self.trainable_variables
        for sign in (1.0, -1.0):
            with tf.GradientTape() as tape:
                loss = ops.mean(ops.square(self(x, training=True) - y))
            gradients = tape.gradient(loss, variables)
            if sign > 0:
                steps = [0.05 * g for g in gradients]
            for variable, step in zip(variables, steps, strict=True):
                variable.assign_add(sign * step)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"own": loss}


@on_tensorflow
def test_perturbed_weights_are_restored():
    x, y = data()
    sparse = tf_gems.SparseModel(built(SharpnessAware), seed=0)
    sparse.compile(keras.optimizers.SGD(0.0), "mse")
    before = values([w.score for w in sparse.gem.prunable])
    sparse.fit(x, y, batch_size=8, verbose=0)
    after = values([w.score for w in sparse.gem.prunable])
    assert difference(before, after) < 1e-6
    history = mine(sparse, x, y).history
    assert history["own"][-1] < history["own"][0]


class OwnLoops(Plain):
    calls = 0

    def evaluate(self, *args, **kwargs):
        self.calls += 1
        return super().evaluate(*args, **kwargs)

    def predict(self, *args, **kwargs):
        return super().predict(*args, **kwargs) + 100.0


@on_tensorflow
@pytest.mark.parametrize("mined", [False, True])
def test_custom_evaluate_and_predict_are_called(mined):
    x, y = data()
    model = built(OwnLoops)
    sparse = tf_gems.SparseModel(model, seed=0)
    if mined:
        history = mine(sparse, x, y, validation_data=(x, y)).history
        assert model.calls == len(history["val_loss"]) == 4
    sparse.compile("sgd", "mse")
    outputs = np.asarray(sparse(x))
    before = model.calls
    loss = sparse.evaluate(x, y, verbose=0)
    assert model.calls == before + 1
    assert loss == pytest.approx(np.mean((outputs - y) ** 2), rel=1e-5)
    found = sparse.predict(x, verbose=0)
    np.testing.assert_allclose(found, outputs + 100, rtol=1e-5)
    sparse.fit(x, y, verbose=0)  # The scores are still trained.


@keras.saving.register_keras_serializable("tests")
class Factor(FullBatch):
    """A model whose `compile` has additional arguments."""

    def compile(self, optimizer, factor):
        super().compile(optimizer, "mse")
        self.factor = factor

    def compute_loss(self, *args, **kwargs):
        return self.factor * super().compute_loss(*args, **kwargs)

    def get_compile_config(self):
        optimizer = keras.optimizers.serialize(self.optimizer)
        return {"optimizer": optimizer, "factor": self.factor}

    def compile_from_config(self, config):
        optimizer = keras.optimizers.deserialize(config["optimizer"])
        self.compile(optimizer, config["factor"])


@keras.saving.register_keras_serializable("tests")
class NoConfig(OwnCompile):
    """A model that Keras cannot compile after loading, with a warning."""


@on_tensorflow
def test_files_of_models_with_custom_compile(tmp_path):
    x, y = data()
    path, weights = tmp_path / "a.keras", tmp_path / "a.weights.h5"
    sparse = tf_gems.SparseModel(built(Factor), seed=0)
    sparse.compile(keras.optimizers.Adam(0.01), factor=2.0)
    sparse.fit(x, y, epochs=2, verbose=0)
    sparse.save(path)
    sparse.save_weights(weights)
    loaded = keras.saving.load_model(path)
    assert loaded.model.factor == 2.0
    for model in (sparse, loaded):
        model.load_weights(weights)
        model.fit(x, y, verbose=0, shuffle=False)
    assert difference(values(sparse), values(loaded)) == 0.0

    sparse = tf_gems.SparseModel(built(NoConfig), seed=0)
    sparse.compile(factor=2.0)
    sparse.fit(x, y, verbose=0)
    sparse.save(path)
    with pytest.warns(UserWarning, match="`compile\\(\\)` was not called"):
        loaded = keras.saving.load_model(path)
    assert difference(values(sparse), values(loaded)) == 0.0
    loaded.compile(factor=2.0)
    loaded.fit(x, y, verbose=0)


def test_stripped_model_can_be_quantized():
    x, y = data()
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8)])
    sparse = tf_gems.SparseModel(model, seed=0)
    sparse.start_finetuning(tf_gems.methods.RandomPruning(0.5).find(sparse))
    expected = np.asarray(sparse(x))
    plain = tf_gems.strip(sparse)
    zeros = np.asarray(plain.layers[0].kernel) == 0
    plain.quantize("int8")
    kernel = np.asarray(plain.layers[0].kernel)
    assert kernel.dtype == np.int8 and not kernel[zeros].any()
    np.testing.assert_allclose(plain(x), expected, atol=0.05)


def test_no_weight_trains_during_mining():
    x, y = data()
    model = built(Plain)
    model.first.trainable = False
    sparse = tf_gems.SparseModel(model, seed=0)
    assert len(sparse.gem.prunable) == 1
    for part in (model, model.last, model.last.kernel, sparse):
        part.trainable = False
        part.trainable = True
        assert not model.trainable_variables
        assert len(sparse.trainable_variables) == 1
    before = values([model.first.kernel, model.last.kernel])
    mine(sparse, x, y)
    after = values([model.first.kernel, model.last.kernel])
    assert difference(before, after) == 0.0
    tf_gems.unwrap(sparse)
    assert model.first.kernel.trainable and model.last.kernel.trainable


class Captures(layers.Layer):
    """Its function captures the variable in the first trace."""

    def build(self, shape):
        self.w = self.add_weight(
            shape=(shape[-1], 5), name="kernel", constraint="unit_norm"
        )
        if keras.backend.backend() == "tensorflow":
            self.product = tf.function(lambda x: ops.matmul(x, self.w))

    def call(self, x):
        return self.product(x)


@on_tensorflow
def test_captured_variable_is_masked():
    x, y = data()
    model = keras.Sequential([keras.Input((6,)), Captures(), layers.Dense(3)])
    model(x)  # Traces the function with the variable.
    sparse = tf_gems.SparseModel(model, seed=0)
    mine(sparse, x, y)
    expected = sparse.predict(x, verbose=0)
    assert difference(tf_gems.strip(sparse)(x), expected) < 1e-6


class Converted(Captures):
    """Its function needs AutoGraph."""

    def build(self, shape):
        super().build(shape)

        def call(x):
            y = ops.matmul(x, self.w)
            return y if ops.sum(y) > 0 else -y

        self.product = tf.function(call)


@on_tensorflow
def test_function_with_autograph_is_refused_by_name():
    x, y = data()
    own = Converted(name="own")
    model = keras.Sequential([keras.Input((6,)), own, layers.Dense(3)])
    sparse = tf_gems.SparseModel(model, seed=0)
    with pytest.raises(ValueError, match="`product` of layer 'own'.*ops.cond"):
        mine(sparse, x, y)


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "lion"])
def test_stored_kernels_keep_their_zeros(optimizer):
    x, y = data()
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(
                8, "relu", kernel_constraint=keras.constraints.MaxNorm(1)
            ),
            layers.Dense(3, kernel_constraint="unit_norm"),
        ]
    )
    constraints = [v.constraint for v in model.weights]
    sparse = tf_gems.SparseModel(model, seed=0)
    sparse.start_finetuning(tf_gems.methods.RandomPruning(0.5).find(sparse))
    sparse.compile(optimizer, "mse")
    before = values([w.weight for w in sparse.gem.prunable])
    sparse.fit(x, y, epochs=2, batch_size=8, verbose=0)
    for prunable, value in zip(sparse.gem.prunable, before, strict=True):
        found = ops.convert_to_numpy(prunable.weight)
        assert not found[~np.asarray(prunable.alive)].any()
        assert not np.array_equal(found, value)
    norm = np.linalg.norm(ops.convert_to_numpy(model.layers[1].kernel), axis=0)
    np.testing.assert_allclose(norm, 1.0, atol=1e-3)
    tf_gems.strip(sparse)
    assert [v.constraint for v in model.weights] == constraints


class Outer(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x, training=False):
        return self.inner(x, training=training)


@pytest.mark.parametrize("wrap", [tf_gems.SparseModel, tf_gems.GemLayer])
def test_phase_change_of_part_requires_compile(wrap):
    x, y = data()
    outer = Outer(wrap(built(Plain), seed=0))
    outer(x[:1])
    mine(outer, x, y)
    [gem] = find_gem_layers(outer)
    ticket = tf_gems.Ticket.from_model(outer)
    ticket.apply(outer.inner)
    with pytest.raises(ValueError, match="compile"):
        outer.fit(x, y, verbose=0)
    before = values(gem.layer)
    outer.compile("sgd", "mse")
    outer.fit(x, y, verbose=0)
    assert difference(values(gem.layer)[0], before[0]) > 0
