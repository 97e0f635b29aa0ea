import inspect
import math

import keras
import numpy as np
import pytest

from tf_gems import distributions
from tf_gems import gem_miner
from tf_gems import layers
from tf_gems import methods
from tf_gems import patterns
from tf_gems import schedules
from tf_gems.registry import Configurable
from tf_gems.sparse_model import SparseModel


def loud(height):
    return 2 * height


class Sine(schedules.Schedule):
    """A user's schedule without `get_config`."""

    def __init__(self, height, *, phase=0.0, change=loud):
        self.height = height
        self.phase = phase
        self.change = change

    def __call__(self, progress):
        return self.change(self.height) * abs(math.sin(progress + self.phase))


class Mine(methods.Magnitude):
    """A user's method that fixes an argument of its base class."""

    def __init__(self, target_sparsity, power=1, weigh=np.abs):
        super().__init__(target_sparsity, distribution="erk")
        self.power, self.weigh = power, weigh

    def scores(self, model, data):
        return [
            self.weigh(w) ** self.power for w in super().scores(model, data)
        ]


OBJECTS = [
    Sine(2.0, phase=1.0),
    distributions.Lamp(minimum=3),
    distributions.PerPath({"dense": 0.5}),
    gem_miner.GemMinerCallback(0.9, regularization=Sine(0.5), epochs=20),
    layers.TopKMask(0.5, scope="layerwise"),
    methods.ACDCCallback(0.9, pattern="2:4"),
    methods.EdgePopup(0.9, epochs=30, regularization=1e-4),
    methods.GradualMagnitude(
        0.9, learning_rate=keras.optimizers.schedules.CosineDecay(0.1, 10)
    ),
    methods.IterativeMagnitude(0.9, rounds=3, distribution="erk"),
    methods.ProsPr(0.9, steps=2, pattern=patterns.Block(4, 1)),
    methods.RigL(0.9, seed=7),
    patterns.NOfM(1, 4),
]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda v: type(v).__name__)
def test_config_round_trip(value):
    assert isinstance(value, Configurable)
    config = keras.saving.serialize_keras_object(value)
    with keras.saving.custom_object_scope({"Sine": Sine, "loud": loud}):
        copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(value)
    assert keras.saving.serialize_keras_object(copy) == config
    names = inspect.signature(type(value)).parameters
    for name in names:
        if name != "kwargs":
            assert name in config["config"]


def test_user_functions_and_arrays_are_kept():
    sine = Sine(np.array([1.0, 3.0]), change=loud)
    with keras.saving.custom_object_scope({"loud": loud}):
        copy = Sine.from_config(sine.get_config())
    assert copy.change is loud
    np.testing.assert_array_equal(copy(0.5), sine(0.5))


def test_unserializable_arguments_are_named():
    for value in (lambda height: height, object()):
        with pytest.raises(NotImplementedError, match="Sine with argument `ch"):
            Sine(2.0, change=value).get_config()
    one = Sine(2.0)
    del one.height
    with pytest.raises(
        NotImplementedError, match="`height`, which is not an attr"
    ):
        one.get_config()


def test_copy_of_method_keeps_functions():
    """A comparison copies the method for every sparsity and seed."""
    one = Mine(0.5, power=3, weigh=lambda w: -np.abs(w))
    copy = methods.get(one, target_sparsity=0.9)
    assert copy.weigh is one.weigh and copy.power == 3
    assert copy.target_sparsity == 0.9
    assert type(copy.distribution) is type(one.distribution)
    # A method without a config can still be used for a search.
    model = keras.Sequential([keras.Input((9,)), keras.layers.Dense(8)])
    ticket = copy.find(SparseModel(model, seed=0))
    assert ticket.metadata["method"] == {"class_name": "Mine"}
