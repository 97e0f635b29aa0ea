"""Tests network configs in ticket files, including hostile configs."""

import json
import os
import resource

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies

import tf_gems
from tf_gems import ticket_file
from tf_gems.network_config import config_of
from tf_gems.network_config import network_of

layers = keras.layers


def network():
    inputs = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(4, 3, kernel_regularizer="l2")(inputs)
    x = layers.BatchNormalization()(x)
    x = keras.ops.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0)])
    x = layers.Dropout(0.3)(layers.LeakyReLU(0.1)(x))
    y = keras.Sequential([keras.Input((4,)), layers.Dense(6)], name="inner")
    x = y(layers.GlobalAveragePooling2D()(x))
    x = layers.Add()([x, layers.Dense(6, activation="tanh")(x)])
    return keras.Model(inputs, x, name="many")


def shapes(model):
    return [tuple(weight.shape) for weight in model.weights]


def test_ticket_builds_its_network(tmp_path):
    model = network()
    sparse = tf_gems.SparseModel(model, seed=0)
    ticket = tf_gems.methods.RandomPruning(0.8, seed=1).find(sparse)
    path = tmp_path / "many.gem"
    ticket.save(path)
    ticket.apply(sparse)
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype("float32")
    found = tf_gems.Ticket.load(path).network()
    assert type(found) is type(model) and found.name == "many"
    assert [w.path for w in found.weights] == [w.path for w in model.weights]
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found(x)),
        keras.ops.convert_to_numpy(tf_gems.strip(sparse)(x)),
        atol=1e-6,
    )
    assert found.layers[1].kernel_regularizer.l2 == pytest.approx(0.01)
    # Without the config, the file is smaller and builds no network.
    ticket.save(tmp_path / "short.gem", config=False)
    short = tf_gems.Ticket.load(tmp_path / "short.gem")
    assert os.path.getsize(tmp_path / "short.gem") < os.path.getsize(path)
    with pytest.raises(ValueError, match="no model config"):
        short.network()
    for name, said in (("many", "yes"), ("short", "no")):
        summary = tf_gems.Ticket.inspect(tmp_path / f"{name}.gem")
        assert f"config of the network: {said}" in str(summary)
    assert tf_gems.sanity.shuffle(ticket, seed=0).config == ticket.config


def test_resnet20_config_size(tmp_path):
    model = tf_gems.zoo.resnet20()
    sparse = tf_gems.SparseModel.from_preset("paper", model, seed=0)
    ticket = tf_gems.methods.RandomPruning(0.9856, seed=0).find(sparse)
    ticket.save(tmp_path / "with.gem")
    ticket.save(tmp_path / "without.gem", config=False)
    size, less = (
        os.path.getsize(tmp_path / f"{name}.gem")
        for name in ("with", "without")
    )
    assert size < 12_000 and less + 1_000 < size < less + 2_000


def test_custom_layers_have_no_config_in_file():
    def sequential(*parts):
        return keras.Sequential([keras.Input((4,)), layers.Dense(3), *parts])

    class Own(layers.Layer):
        def call(self, x):
            return x

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)
            self.build((None, 3))

        def build(self, shape):
            self.dense.build(shape)

        def call(self, x):
            return self.dense(x)

    assert config_of(sequential()) is not None
    for model in (
        sequential(layers.Lambda(lambda x: x)),
        sequential(Own()),
        sequential(layers.Activation(lambda x: x)),
        Subclassed(),
    ):
        assert config_of(model) is None
    wrapped = keras.Sequential(
        [keras.Input((4,)), tf_gems.GemLayer(layers.Dense(3))]
    )
    ticket = tf_gems.methods.RandomPruning(0.5).find(wrapped)
    assert ticket.config is None


def changed(change):
    """Returns a valid config with a change."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    config = json.loads(json.dumps(config_of(model)))
    change(config)
    return config


def layer(name, module="keras.layers", **config):
    return {"class_name": name, "module": module, "config": config}


@pytest.mark.parametrize(
    "add",
    [
        layer("Lambda", function="f"),
        layer("TFSMLayer", filepath="/tmp"),
        layer("StringLookup", vocabulary="/etc/passwd"),
        layer("system", "os", command="true"),
        layer("load_model", "keras.src.saving.saving_api", filepath="a"),
        layer("get_file", "keras.utils", origin="http://localhost"),
        layer("Popen", "subprocess", args=["true"]),
        {**layer("Dense", units=3), "registered_name": "evil>Dense"},
        layer("Dense", units=3, activation=layer("function", "builtins")),
        layer("Dense", units={"class_name": "eval", "config": "1"}),
        layer("Dense"),
        layer(3),
        3,
        None,
    ],
)
def test_code_in_file_is_not_executed(add):
    config = changed(lambda c: c["config"]["layers"].append(add))
    with pytest.raises(ValueError, match="that of its network, with Keras"):
        network_of(config, [(4, 3), (3,)])


def test_config_of_larger_network_takes_no_memory():
    def change(config):
        config["config"]["layers"][1]["config"]["units"] = 10**10

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="arrays of shape"):
        network_of(changed(change), [(4, 3), (3,)])
    with pytest.raises(ValueError, match="weights of the ticket"):
        network_of(changed(lambda c: None), [(4, 2), (2,)])
    with keras.StatelessScope():  # A rejected layer is not built later either.
        network()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 200_000  # Kilobytes.


@keras.saving.register_keras_serializable(package="mine")
class Registered(layers.Layer):
    """A class of the user, which no file may build."""

    def __init__(self, command=None, **kwargs):
        raise AssertionError("a class of the user was built")


def named(name, module="keras.layers", registered=None, **config):
    return {**layer(name, module, **config), "registered_name": registered}


@pytest.mark.parametrize(
    "add, message",
    [
        (named("mine>Registered", registered="mine>Registered"), "Registered"),
        (named("Registered", registered="mine>Registered"), "Registered"),
        (named("Dense", registered="mine>Registered", units=3), "Registered"),
        (named("tf_gems>GemLayer", registered="tf_gems>GemLayer"), "GemLayer"),
        (
            named("tf_gems>SparseModel", registered="tf_gems>SparseModel"),
            "SparseModel",
        ),
        (named("GemLayer", "tf_gems.layers.gem_layer"), "GemLayer"),
        (named("IndexLookup"), "IndexLookup"),
        (named("Hashing", num_bins=3), "Hashing"),
        (named("TextVectorization"), "TextVectorization"),
        (named("Dense", units=3, activation="mine>Registered"), "activation"),
        (named("Dense", units=3, kernel_regularizer="mine>Registered"), "regu"),
        (named("RNN", cell="mine>Registered"), "Registered"),
        (named("StackedRNNCells", cells=["mine>Registered"]), "Registered"),
        (
            named("TimeDistributed", layer=named("Lambda", function="f")),
            "Lambda",
        ),
        (
            named(
                "Dense",
                units=3,
                dtype=named(
                    "DTypePolicyMap", "keras.dtype_policies", policy_map={}
                ),
            ),
            "DTypePolicyMap",
        ),
        (named("Dense", units=3, dtype="(a+)+$"), "not a dtype"),
        ({**named("Dense", units=3), "compile_config": {}}, "compile_config"),
        (named("Map", "keras.src.ops.core", function="f"), "Map"),
        (named("Dense", units=float("nan")), "nan"),
        (named("Permute", dims="x" * 2000), "2000 characters"),
        (named("Permute", dims="a\0b"), "that a file cannot contain"),
        (named("Permute", dims="a\ud800"), "that a file cannot contain"),
    ],
)
def test_only_listed_parts_of_keras_are_built(add, message):
    config = changed(lambda c: c["config"]["layers"].append(add))
    with pytest.raises(ValueError, match="that of its network") as error:
        network_of(config, [(4, 3), (3,)])
    assert message in str(error.value)


def test_redefined_name_is_refused():
    config = changed(lambda c: None)
    config["config"]["layers"][1]["config"]["activation"] = "relu"
    with keras.saving.custom_object_scope({"Dense": Registered}):
        with pytest.raises(ValueError, match="'Dense' is registered"):
            network_of(config, [(4, 3), (3,)])
    with keras.saving.custom_object_scope({"relu": Registered}):
        with pytest.raises(ValueError, match="'relu' is registered"):
            network_of(config, [(4, 3), (3,)])


def test_single_layer_config_is_refused():
    for config in (layer("Dense", units=3), {}, {"class_name": "Dense"}):
        with pytest.raises(ValueError, match="that of its network"):
            network_of(config, [(4, 3), (3,)])


def doubled(levels):
    """A network in which each level doubles the number of layer calls."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    config = json.loads(json.dumps(config_of(model)))
    for level in range(levels):
        tensor = {
            "class_name": "__keras_tensor__",
            "config": {
                "shape": [None, 3],
                "dtype": "float32",
                "keras_history": ["outer", 0, 0],
            },
        }
        call = {"args": [tensor], "kwargs": {}}
        again = json.loads(json.dumps(call))
        inner = config["config"]["name"]
        again["args"][0]["config"]["keras_history"] = [inner, 0, 0]
        config = {
            "module": "keras.src.models.functional",
            "class_name": "Functional",
            "config": {
                "name": f"level{level}",
                "layers": [
                    {
                        **named("InputLayer", batch_shape=[None, 3]),
                        "name": "outer",
                        "inbound_nodes": [],
                    },
                    {**config, "name": inner, "inbound_nodes": [call, again]},
                ],
                "input_layers": [["outer", 0, 0]],
                "output_layers": [[inner, 1, 0]],
            },
        }
        config["config"]["layers"][0]["config"]["name"] = "outer"
    return config


def test_number_of_calls_and_depth_are_bounded():
    assert network_of(doubled(3), [(3, 3), (3,)]).count_params() == 12
    with pytest.raises(ValueError, match="called more than 2,048 times"):
        network_of(doubled(10), [(3, 3), (3,)])
    with pytest.raises(ValueError, match="parts are nested more than"):
        network_of(doubled(60), [(3, 3), (3,)])

    def many(config):
        config["config"]["layers"] += [named("ReLU")] * 15_000

    with pytest.raises(ValueError, match="called more than 2,048 times"):
        network_of(changed(many), [(4, 3), (3,)])

    def split(config):
        config["config"]["layers"].append(
            named("Split", "keras.src.ops.numpy", indices_or_sections=10**9)
        )

    with pytest.raises(ValueError, match="more than 1024 parts"):
        network_of(changed(split), [(4, 3), (3,)])


def test_constants_are_bounded_and_round_trip():
    def spoil(config):
        config["config"]["layers"] += [
            named("RepeatVector", n=300_000_000),
            named("Normalization", axis=[1, 2], mean=[0.0], variance=[1.0]),
        ]
        config["config"]["layers"][-1]["config"]["name"] = "large"

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="normalizes by constants"):
        network_of(changed(spoil), [(4, 3), (3,)])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 200_000  # Kilobytes.

    norm = layers.Normalization(mean=[1.0, 2.0], variance=[4.0, 9.0])
    model = keras.Sequential([keras.Input((2,)), norm, layers.Dense(1)])
    copy = network_of(config_of(model), shapes(model))
    copy.set_weights(model.get_weights())
    x = np.array([[3.0, -1.0]], "float32")
    np.testing.assert_array_equal(copy(x), model(x))


def test_initializers_in_file_are_not_called():
    """An orthogonal initializer of this size would take minutes."""
    model = keras.Sequential([keras.Input((4, 4)), layers.LSTM(64)])
    config = config_of(model)
    lstm = config["config"]["layers"][1]["config"]
    lstm["recurrent_initializer"] = named("mine>Registered", "keras.x")
    found = network_of(config, shapes(model))
    assert not any(np.any(value) for value in found.get_weights())
    # It is used when the user initializes the network.
    assert isinstance(
        found.layers[0].cell.recurrent_initializer,
        keras.initializers.Orthogonal,
    )


PLACES = ["class_name", "module", "config", "units", "batch_shape", "name"]
VALUES = strategies.one_of(
    strategies.none(),
    strategies.integers(-3, 10**12),
    strategies.text(max_size=5),
    strategies.lists(strategies.integers(-2, 9), max_size=3),
    strategies.sampled_from(["os", "keras.layers", "Lambda", "Dense", {}]),
)


def places(value, found):
    """Adds every dict and key of a config to a list."""
    if isinstance(value, dict):
        found += [(value, key) for key in value]
        for item in value.values():
            places(item, found)
    elif isinstance(value, list):
        for item in value:
            places(item, found)
    return found


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(strategies.data())
def test_damaged_configs_are_refused_or_valid(data):
    config = changed(lambda c: None)
    known = places(config, [])
    part, key = known[data.draw(strategies.integers(0, len(known) - 1))]
    part[key] = data.draw(VALUES)
    try:
        model = network_of(config, [(4, 3), (3,)])
    except ValueError as error:
        assert "The config of a ticket must be that of its" in str(error)
    else:
        assert shapes(model) == [(4, 3), (3,)]


def test_non_dict_config_is_refused():
    masks = {"k": np.array([True, False])}
    weights = {"k": np.ones(2, "float32")}
    data = ticket_file.encode(masks, weights, {}, config={"a": [1]})
    assert ticket_file.decode(data).config == {"a": [1]}
    with pytest.raises(ValueError, match="The config of a ticket must"):
        ticket_file.encode(masks, weights, {}, config=[1])
