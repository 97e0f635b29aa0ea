import operator
import os
import subprocess
import sys

import keras
import models
import numpy as np
import pytest
from keras import layers
from keras import ops
from models import difference
from models import mine
from models import values

import tf_gems
from tf_gems.network import masked_network
from tf_gems.network import network_weights


def gem_network():
    """A functional model with `GemLayer`s, one of which is shared."""
    encoder = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(5, activation="tanh"),
            layers.BatchNormalization(),
        ],
        name="encoder",
    )
    left, right = (
        keras.Input((3,), name="left"),
        keras.Input((3,), name="right"),
    )
    shared = tf_gems.GemLayer(encoder, seed=0)
    x = layers.Concatenate()([shared(left), shared(right)])
    x = layers.Dense(4, activation="relu", name="dense_of_user")(x)
    x = layers.Reshape((2, 2))(x)
    inner = tf_gems.GemLayer(layers.Dense(3, name="inside"), seed=1)
    x = layers.TimeDistributed(inner)(x)
    x = layers.Flatten()(x)
    outputs = tf_gems.GemLayer(layers.Dense(2, name="top"), seed=2)(x)
    return keras.Model([left, right], outputs, name="siamese")


def gem_data():
    generator = np.random.default_rng(0)
    x = [generator.normal(size=(16, 3)).astype("float32") for _ in range(2)]
    return x, generator.normal(size=(16, 2)).astype("float32")


def test_functional_model_with_gem_layers(tmp_path, eagerly):
    x, y = gem_data()
    model = gem_network()
    user = model.get_layer("dense_of_user")
    before = values(user)
    history = mine(model, x, y, target_sparsity=0.5)
    # A layer that is not wrapped is trained.
    assert difference(values(user), before) > 0
    ticket = tf_gems.Ticket.from_model(model)
    assert ticket.kept == round(ticket.size / 2) and len(ticket.masks) == 3
    assert history.history["alive_density"][-1] == ticket.density
    parts = list(model._flatten_layers())
    expected, stored = model.predict(x, verbose=0), values(model)
    with masked_network(model) as plain:
        assert is_plain(plain)
        assert difference(plain.predict(x, verbose=0), expected) == 0.0
        plain.save(tmp_path / "plain.keras")
    assert all(map(operator.is_, parts, model._flatten_layers()))
    assert all(map(np.array_equal, values(model), stored))
    assert difference(model.predict(x, verbose=0), expected) == 0.0
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    assert difference(loaded(x), expected) < 1e-6

    path = str(tmp_path / "model.keras")
    model.save(path)
    loaded = keras.models.load_model(path)
    assert difference(model(x), loaded(x)) == 0.0
    loaded.fit(x, y, verbose=0)

    ticket.apply(model)
    with pytest.raises(ValueError, match="compile"):
        model.fit(x, y, verbose=0)
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0)
    assert difference(model.predict(x, verbose=0), expected) > 0
    for gem in tf_gems.layers.gem_layer.find_gem_layers(model):
        for prunable in gem.prunable:
            weight = ops.convert_to_numpy(prunable.weight)
            assert np.all(weight[~ticket_mask(ticket, prunable)] == 0.0)
    model.save(path)
    loaded = keras.models.load_model(path)
    assert difference(model(x), loaded(x)) == 0.0

    expected = model.predict(x, verbose=0)
    plain = tf_gems.strip(model)
    assert plain is model and is_plain(plain) and not plain.compiled
    assert plain.get_layer("encoder") and plain.get_layer("top")
    assert plain.get_layer("dense_of_user") is user
    assert difference(plain.predict(x, verbose=0), expected) == 0.0
    top = keras.Model(plain.inputs, plain.get_layer("top").output)
    assert difference(top.predict(x, verbose=0), expected) == 0.0
    plain.save(path)
    assert difference(keras.models.load_model(path)(x), expected) < 1e-6
    # A ticket can be applied to the plain network.
    ticket.apply(plain)
    ticket.apply(loaded)
    assert difference(plain(x), loaded(x)) == 0.0


def is_plain(model):
    parts = [*model._flatten_layers(), *model.weights]
    parts += getattr(model, "operations", [])
    return not any("tf_gems" in type(part).__module__ for part in parts)


def ticket_mask(ticket, prunable):
    name = "/".join(prunable.weight.path.split("/")[-2:])
    [mask] = [m for path, m in ticket.masks.items() if path.endswith(name)]
    return mask


def test_strip_nested_sparse_model():
    inner = tf_gems.SparseModel(models.dense_network(), seed=0)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    tf_gems.methods.RandomPruning(0.5).find(model).apply(model)
    [x] = models.dense_data()[:1]
    expected = model.predict(x, verbose=0)
    plain = tf_gems.strip(model)
    assert plain is model and is_plain(plain)
    assert inner.model in plain.layers
    assert difference(plain.predict(x, verbose=0), expected) == 0.0


class Unregistered(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(units)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return ops.relu(self.dense(x))

    def get_config(self):
        return {**super().get_config(), "units": self.dense.units}


def square(x):
    return x**2


class Weird(keras.regularizers.Regularizer):
    def __call__(self, x):
        return ops.sum(x**4)

    def get_config(self):
        return {}


def test_strip_keeps_inline_operations():
    init = tf_gems.initializers.SignedConstant(seed=0)
    inputs = keras.Input((6,))
    x = layers.Dense(5, kernel_initializer=init, name="signed")(inputs)
    x = layers.Lambda(lambda t: t * 2.0)(x)
    x = Unregistered(4)(x) + 1.0
    x = layers.Dense(3, activation=square, kernel_regularizer=Weird())(x)
    model = keras.Model(inputs, x)
    model.compile("sgd", "mse")
    sparse = tf_gems.SparseModel(model, seed=0)
    sparse.start_finetuning(tf_gems.methods.RandomPruning(0.5).find(sparse))
    plain = tf_gems.strip(sparse)
    assert plain is model
    [data] = models.dense_data()[:1]
    assert difference(sparse(data), plain(data)) == 0.0
    assert not plain.compiled
    initializer = plain.get_layer("signed").kernel_initializer
    assert not type(initializer).__module__.startswith("tf_gems")


@keras.saving.register_keras_serializable(package="tests")
class MakesGemLayers(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gem = tf_gems.GemLayer(layers.Dense(3), seed=0)
        self.dense = layers.Dense(2)

    def call(self, x, training=None):
        return self.dense(self.gem(x, training=training))


def test_subclassed_model_with_gem_layers_is_stripped():
    x, _ = models.dense_data()
    model = MakesGemLayers()
    y = np.zeros((32, 2))
    if keras.backend.backend() == "tensorflow":  # The first step builds it.
        with pytest.raises(ValueError, match="must be built before"):
            mine(model, x, y)
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0)  # The call builds it.
    mine(model, x, y, target_sparsity=0.5)
    assert tf_gems.Ticket.from_model(model).density == 0.5
    expected = model.predict(x, verbose=0)
    before = [v.path for v in network_weights(model)]
    plain = tf_gems.strip(model)
    assert plain is model and is_plain(model)
    assert [v.path for v in plain.weights] == before
    assert type(model.gem) is layers.Dense
    assert difference(model.predict(x, verbose=0), expected) == 0.0


class WithoutConfig(keras.Model):
    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def call(self, x):
        return self.dense(x)


def test_unsupported_models_are_not_stripped():
    with pytest.raises(ValueError, match="'dense' of type Sequential, which"):
        tf_gems.strip(models.dense_network())
    sparse = tf_gems.SparseModel(models.dense_network())
    with pytest.raises(RuntimeError, match="no ticket before mining"):
        tf_gems.strip(sparse)


def test_strip_without_config():
    model = WithoutConfig(layers.Dense(3))
    x = np.ones((1, 4))
    model(x)
    sparse = tf_gems.SparseModel(model)
    tf_gems.methods.RandomPruning(0.5).find(sparse).apply(sparse)
    expected = sparse.predict(x, verbose=0)
    assert tf_gems.strip(sparse) is model
    assert difference(model.predict(x, verbose=0), expected) == 0.0


class Nested(keras.Model):
    """`GemLayer`s in every attribute type that Keras tracks."""

    def __init__(self):
        super().__init__()
        gems = [tf_gems.GemLayer(layers.Dense(4), seed=i) for i in range(6)]
        self.one, self.many = gems[0], [gems[1]]
        self.named = {"a": gems[2], "deep": [gems[3]]}
        self.pair = (gems[4], "text")
        self.wrapper = layers.TimeDistributed(gems[5])

    def call(self, x, training=False):
        x = self.one(x, training=training)
        for layer in (*self.many, self.named["a"], *self.named["deep"]):
            x = layer(x)
        return self.wrapper(self.pair[0](x)[:, None])


def test_gem_layers_in_attributes_are_replaced_and_restored():
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    model = Nested()
    model(x)
    tf_gems.methods.RandomPruning(0.5).find(model).apply(model)
    expected = model.predict(x, verbose=0)
    paths = [v.path for v in network_weights(model)]
    parts = list(model._flatten_layers())
    with pytest.raises(KeyError), masked_network(model) as plain:
        assert plain is model and is_plain(model)
        assert [v.path for v in plain.weights] == paths
        raise KeyError
    assert all(map(operator.is_, parts, model._flatten_layers()))
    assert difference(tf_gems.strip(model).predict(x, verbose=0), expected) == 0
    assert is_plain(model) and [v.path for v in model.weights] == paths


@keras.saving.register_keras_serializable(package="tests")
class Parts(keras.Model):
    """A functional model with equal layers as attributes, in another order."""

    def __init__(self, **kwargs):
        inputs = keras.Input((4,))
        self.head, self.trunk = layers.Dense(4), layers.Dense(4)
        super().__init__(inputs, self.head(self.trunk(inputs)), **kwargs)
        self.scale = 2.0

    def get_config(self):
        return {"name": self.name}


def test_strip_returns_original_model(tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    norm = layers.Normalization()
    norm.adapt(10 * x + 3)
    table = np.random.default_rng(1).normal(size=(4, 4)).astype("float32")
    inputs = keras.Input((4,))
    y = layers.Lambda(lambda t: t @ table)(norm(inputs))
    for model in (Parts(), keras.Model(inputs, layers.Dense(3)(y))):
        trainable = [v.trainable for v in model.weights]
        kinds = [type(v) for v in model.weights]
        sparse = tf_gems.SparseModel(model, seed=0)
        tf_gems.methods.RandomPruning(0.5).find(sparse).apply(sparse)
        expected = sparse.predict(x, verbose=0)
        assert not is_plain(model)
        assert tf_gems.strip(sparse) is model
        assert is_plain(model) and [type(v) for v in model.weights] == kinds
        assert [v.trainable for v in model.weights] == trainable
        assert difference(model.predict(x, verbose=0), expected) == 0.0
        model.compile("sgd", "mse")
        model.fit(x, expected, verbose=0)


def test_strip_while_mining_ends_mining():
    x, y = models.dense_data()
    model = models.dense_network()
    sparse = tf_gems.SparseModel(model, seed=0)
    mine(sparse, x, y, target_sparsity=0.5)
    with pytest.raises(
        ValueError, match="A model that is being mined.*'dense'"
    ):
        model.compile("sgd", "mse")
        model.fit(x, y, verbose=0)
    sparse.gem.prunable[0].score.assign(
        0.4 * ops.ones(sparse.gem.prunable[0].score.shape)
    )
    expected = sparse.predict(x, verbose=0)
    plain = tf_gems.strip(sparse)
    assert sparse.phase == "finetuning"
    assert difference(plain.predict(x, verbose=0), expected) == 0.0
    assert difference(sparse.predict(x, verbose=0), expected) == 0.0
    with pytest.raises(RuntimeError, match="taken before `strip`"):
        sparse.ticket()
    assert sparse.ticket("rounded").kept == np.count_nonzero(
        ops.convert_to_numpy(plain.get_layer("last").kernel)
    )
    with pytest.raises(ValueError, match="is for the mining phase"):
        mine(sparse, x, y)


def test_unwrapped_model_trains():
    x, y = models.dense_data()
    model = models.dense_network()
    before = values(model)
    sparse = tf_gems.SparseModel(model, seed=0)
    with pytest.raises(ValueError, match="one `GemLayer` or `SparseModel` at"):
        tf_gems.SparseModel(model)
    assert tf_gems.unwrap(sparse) is model and is_plain(model)
    assert all(map(np.array_equal, values(model), before))
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0)
    assert difference(values(model)[0], before[0]) > 0


IN_A_FRESH_PROCESS = """
import sys
import keras
import numpy as np

data = np.load("data.npz")
plain = keras.models.load_model("plain.keras")
assert not any(name.startswith("tf_gems") for name in sys.modules)
assert np.all(plain(data["x"]) == data["y"])

import tf_gems

for name in ("mining", "finetuning"):
    model = keras.models.load_model(f"{name}.keras")
    assert model.phase == name
    model.fit(data["x"], data["y"], verbose=0)
"""


def test_files_load_in_new_process(tmp_path):
    x, y = models.dense_data()
    sparse = tf_gems.SparseModel(models.dense_network(), mask="round", seed=0)
    mine(sparse, x, y)
    sparse.save(tmp_path / "mining.keras")
    sparse.start_finetuning()
    sparse.compile("adam", "mse")
    sparse.save(tmp_path / "finetuning.keras")
    plain = tf_gems.strip(sparse)
    plain.save(tmp_path / "plain.keras")
    np.savez(tmp_path / "data.npz", x=x, y=ops.convert_to_numpy(plain(x)))
    root = os.path.dirname(os.path.dirname(tf_gems.__file__))
    subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        check=True,
    )
