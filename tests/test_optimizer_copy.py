"""Tests that copies of optimizers have the same settings and no state."""

import keras
import numpy as np
import pytest
from keras import ops

from tf_gems.optimizer_copy import copy_optimizer

KERAS = [
    keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.1, 7)),
    keras.optimizers.RMSprop(0.01, clipnorm=1.0),
    keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.2)),
]


class Warm(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.25


class Half(keras.optimizers.SGD):
    """Halves each step."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate / 2)


def stepped(optimizer):
    """Returns the weight after two steps."""
    weight = keras.Variable(np.array([1.0, -2.0], "float32"))
    for gradient in ([1.0, 2.0], [3.0, -4.0]):
        optimizer.apply([ops.convert_to_tensor(gradient)], [weight])
    return ops.convert_to_numpy(weight)


@pytest.mark.parametrize(
    "build",
    [
        *(lambda o=o: o for o in KERAS),
        lambda: Half(Warm(), momentum=0.5),
        lambda: keras.optimizers.SGD(lambda: 0.3),
    ],
)
def test_copy_steps_like_new_original(build):
    original = build()
    copy = copy_optimizer(original)
    expected = stepped(original)
    np.testing.assert_array_equal(stepped(copy), expected)
    # The copy of a trained optimizer also has no state.
    again = copy_optimizer(original)
    assert int(ops.convert_to_numpy(again.iterations)) == 0
    np.testing.assert_array_equal(stepped(again), expected)


@pytest.mark.parametrize("rate", [0.5, Warm(), lambda: 0.5])
def test_another_learning_rate(rate):
    copy = copy_optimizer(Half(Warm()), rate)
    found = float(ops.convert_to_numpy(copy.learning_rate))
    assert found == (0.25 if isinstance(rate, Warm) else 0.5)


def test_incomplete_config_is_refused():
    class Scaled(keras.optimizers.SGD):
        def __init__(self, learning_rate=0.1, scale=1.0, **kwargs):
            super().__init__(learning_rate, **kwargs)
            self.scale = scale

    assert copy_optimizer(Scaled()).scale == 1.0
    with pytest.raises(ValueError, match="Scaled.*scale=2.0.*get_config"):
        copy_optimizer(Scaled(scale=2.0))
