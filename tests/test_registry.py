import inspect
import math

import keras
import pytest

from tf_gems import distributions
from tf_gems import gem_miner
from tf_gems import layers
from tf_gems import methods
from tf_gems import patterns
from tf_gems import schedules
from tf_gems.registry import Configurable


class Sine(schedules.Schedule):
    """A schedule of a user, without `get_config`."""

    def __init__(self, height, *, phase=0.0, notify=print):
        self.height = height
        self.phase = phase
        self.notify = notify

    def __call__(self, progress):
        return self.height * abs(math.sin(progress + self.phase))


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
def test_a_config_is_the_arguments_and_gives_an_equal_object(value):
    assert isinstance(value, Configurable)
    config = keras.saving.serialize_keras_object(value)
    with keras.saving.custom_object_scope({"Sine": Sine}):
        copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(value)
    assert keras.saving.serialize_keras_object(copy) == config
    names = inspect.signature(type(value)).parameters
    for name in names:
        if name not in ("kwargs", "notify"):  # a function is no data
            assert name in config["config"]


def test_a_user_class_keeps_what_is_data():
    assert Sine(2.0).get_config() == {"height": 2.0, "phase": 0.0}
