"""Tests fingerprints: equal in every process, different for other contents."""

import functools
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from tf_gems import methods
from tf_gems.fingerprint.data import describe_data
from tf_gems.fingerprint.network import describe_network
from tf_gems.fingerprint.values import describe

SCALE = 1.0


def helper(y):
    return SCALE * y


def loss(y, outputs, margin=0.5):
    return ops.mean(ops.abs(helper(y) - outputs) - margin)


def made(factor):
    def closed(y, outputs):
        return factor * ops.mean(y - outputs)

    return closed


class Plain:
    """A user's callable without a config."""

    def __init__(self, factor):
        self._factor = factor

    def __call__(self, y, outputs):
        return self._factor * ops.mean(y - outputs)


class Hinge(keras.losses.Loss):
    """A loss whose config does not hold its arguments."""

    def __init__(self, margin):
        super().__init__()
        self._margin = margin

    def call(self, y, outputs):
        return ops.mean(y - outputs - self._margin)


class Warm(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, peak):
        self.peak = peak

    def __call__(self, step):
        return self.peak


class Powered(methods.Method):
    def __init__(self, target_sparsity, power=1.0, **kwargs):
        super().__init__(target_sparsity, **kwargs)
        self.power = power

    def scores(self, model, data):
        return []


PAIRS = {
    "closures": (made(1.0), made(2.0)),
    "lambdas of one line": (lambda y, p: y - p, lambda y, p: p - y),
    "defaults": (loss, functools.partial(loss, margin=0.6)),
    "states": (Plain(1.0), Plain(2.0)),
    "losses without config": (Hinge(0.1), Hinge(0.2)),
    "schedules without config": (
        keras.optimizers.SGD(Warm(0.1)),
        keras.optimizers.SGD(Warm(0.2)),
    ),
    "momenta": (
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.optimizers.SGD(0.1),
    ),
    "wrapped functions": (
        keras.losses.MeanSquaredError(),
        keras.losses.MeanAbsoluteError(),
    ),
    "metrics of functions": (
        keras.metrics.MeanMetricWrapper(made(1.0), name="m"),
        keras.metrics.MeanMetricWrapper(made(2.0), name="m"),
    ),
    "methods of one's own": (Powered(0.5), Powered(0.5, 2.0)),
    "batches": (methods.Snip(0.5), methods.Snip(0.5, batches=2)),
    "arrays": (np.arange(3), np.arange(3.0)),
    "sets": ({"a", "b", "c"}, {"a", "b"}),
    "none": (None, 0),
    "nan": (float("nan"), float("inf")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_different_values_have_different_fingerprints(name):
    one, other = (describe(value) for value in PAIRS[name])
    assert one != other
    assert one == describe(PAIRS[name][0])
    assert " at 0x" not in json.dumps([one, other])


def test_globals_of_functions_count(monkeypatch):
    before = describe(loss)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 2.0)
    assert describe(loss) != before


def test_numbered_optimizer_names_are_ignored():
    first, second = (keras.optimizers.Adam(0.1) for _ in range(2))
    second.build([keras.Variable(np.ones(2))])
    assert describe(first) == describe(second)


def test_opaque_objects_are_refused_by_name():
    class Locked:
        def __init__(self):
            self.lock = threading.Lock()

    with pytest.raises(ValueError, match="_thread.lock.*get_config"):
        describe(Locked())


SCRIPT = """
import json, sys
sys.path.insert(0, {folder!r})
import keras, numpy as np
import test_fingerprint as cases
print(json.dumps(cases.everything(), sort_keys=True))
"""


def everything():
    """Returns the fingerprints of all values, of a network and of data."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    return [
        {name: list(map(describe, pair)) for name, pair in PAIRS.items()},
        describe_network(network()),
        describe_data([(np.ones((2, 3)), np.ones(2))], "train"),
    ]


def test_fingerprints_are_equal_across_processes():
    script = textwrap.dedent(SCRIPT).format(folder=str(Path(__file__).parent))
    environment = {**os.environ, "PYTHONHASHSEED": "4321"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert not found.returncode, found.stderr[-2000:]
    text = found.stdout.strip().splitlines()[-1]
    ours = json.loads(json.dumps(everything()).replace(__name__, "test"))
    theirs = json.loads(text.replace("test_fingerprint", "test"))
    assert theirs == ours


class Scaled(layers.Layer):
    """A layer without a config, with a private factor."""

    def __init__(self, factor, activation=None):
        super().__init__(name="scaled")
        self._factor = np.float32(factor)
        self.rule = activation

    def call(self, inputs):
        return self._factor * inputs


class Own(keras.Model):
    def __init__(self, factor=1.0, units=3, rule=None):
        super().__init__(name="own")
        self.scaled = Scaled(factor, rule)
        self.dense = layers.Dense(units, name="dense")
        self.build((None, 4))

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, inputs):
        return self.dense(self.scaled(inputs))


def network(activation="relu", twice=False):
    inputs = keras.Input((4,))
    x = layers.Dense(4, activation=activation, name="a")(inputs)
    x = layers.Add()([x, x] if twice else [x, inputs])
    return keras.Model(inputs, layers.Dense(2, name="b")(x), name="net")


@pytest.mark.parametrize(
    "one, other",
    [
        (network, lambda: network("tanh")),
        (network, lambda: network(twice=True)),
        (
            lambda: network(lambda x: ops.relu(x)),
            lambda: network(lambda x: 2.0 * ops.relu(x)),
        ),
        (Own, lambda: Own(2.0)),
        (Own, lambda: Own(rule=made(1.0))),
    ],
)
def test_networks_are_identified_by_computation(one, other):
    def told(build, seed=0):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(seed)
        return describe_network(build())

    assert told(one)["layers"] != told(other)["layers"]
    assert told(one) == told(one)
    assert told(one)["layers"] == told(one, 1)["layers"]
    assert told(one)["weights"] != told(one, 1)["weights"]


X, Y = np.arange(24.0).reshape(12, 2), np.arange(12)


class Noisy(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        x = X[4 * index : 4 * index + 4]
        return x + np.random.normal(size=x.shape), Y[4 * index : 4 * index + 4]


def test_data_is_identified_by_contents():
    tf = pytest.importorskip("tensorflow")

    def dataset(y=Y, **shuffle):
        data = tf.data.Dataset.from_tensor_slices((X, y))
        return (data.shuffle(12) if shuffle else data).batch(4)

    other = Y[::-1].copy()
    forms = {
        "batch": lambda y: (X, y),
        "batches": lambda y: [(X[:6], y[:6]), (X[6:], y[6:])],
        "dataset": lambda y: dataset(y),
        "shuffled": lambda y: dataset(y, shuffle=True),
    }
    for form in forms.values():
        one = describe_data(form(Y), "train")
        assert one == describe_data(form(Y), "train")
        assert one != describe_data(form(other + 1), "train")
    # The order counts in ordered containers.
    assert describe_data((X, Y), "a") != describe_data((X, other), "a")
    with pytest.warns(UserWarning, match="`train` differ each time"):
        noisy = describe_data(Noisy(), "train")
    kind, labels = noisy["examples"]
    assert kind == "random" and len(labels) == 64


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return X, Y


@pytest.mark.parametrize(
    "data, message",
    [
        (Endless(), "of type Endless, which repeats forever"),
        ([], "train of type ListedBatches, which is empty"),
        ((X[:0], Y[:0]), "which is empty"),
        ((X, np.where(Y > 9, np.nan, Y)), "2 NaN among the targets of train"),
        (iter([(X, Y)]), "list_iterator, which yields each"),
    ],
)
def test_data_without_targets_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        describe_data(data, "train")


def test_infinite_dataset_is_refused():
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    with pytest.raises(ValueError, match="repeats forever"):
        describe_data(data.repeat(), "train")
    assert describe_data(data.repeat(2), "train")["batches"]
