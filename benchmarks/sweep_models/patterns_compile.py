"""User patterns: losses, metrics, optimizers and ways to compile."""

import keras
import numpy as np
from keras import ops

from sweep_models.case import PACKAGE
from sweep_models.case import Problem
from sweep_models.case import classes_of
from sweep_models.case import normal
from sweep_models.case import perceptron
from sweep_models.case import register

CASES = []
pattern = register(CASES)
serializable = keras.saving.register_keras_serializable(PACKAGE)


@pattern
def no_loss_at_all():
    """Compiled without a loss."""
    x = normal(32, 10)
    return Problem(
        perceptron(10, 16, 3),
        x,
        classes_of(x, 3),
        loss=None,
        must_refuse="no loss is there to mine with",
        mentions="loss",
    )


@serializable
def focal(y_true, y_pred):
    """A custom loss function."""
    chances = ops.softmax(y_pred)
    wanted = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), 3)
    chance = ops.sum(chances * wanted, axis=-1)
    return -ops.square(1.0 - chance) * ops.log(chance + 1e-6)


class LargestLogit(keras.metrics.Metric):
    """A custom metric that is not registered."""

    def __init__(self, name="largest_logit", **kwargs):
        super().__init__(name=name, **kwargs)
        self.most = self.add_variable((), initializer="zeros", name="most")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.most.assign(ops.maximum(self.most, ops.max(y_pred)))

    def result(self):
        return self.most.value


@pattern
def own_loss_and_metric():
    """A custom loss function and an unregistered metric class."""
    x = normal(32, 10)
    return Problem(
        perceptron(10, 16, 3),
        x,
        classes_of(x, 3),
        loss=focal,
        metrics=[LargestLogit()],
        logs=("largest_logit",),
    )


class Signs(keras.optimizers.Optimizer):
    """A custom optimizer that is not registered."""

    def update_step(self, gradient, variable, learning_rate):
        rate = ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * ops.sign(gradient))


@pattern
def own_optimizer():
    """An unregistered custom optimizer."""
    x = normal(32, 10)
    return Problem(
        perceptron(10, 16, 3),
        x,
        classes_of(x, 3),
        optimizer=lambda: Signs(0.01),
    )


@pattern
def adafactor():
    """Adafactor assigns weights behind masks."""
    x = normal(32, 10)
    return Problem(
        perceptron(10, 24, 3),
        x,
        classes_of(x, 3),
        optimizer=lambda: keras.optimizers.Adafactor(0.05),
    )


@pattern
def muon():
    """Muon assigns weights behind masks."""
    x = normal(32, 10)
    return Problem(
        perceptron(10, 24, 24, 3),
        x,
        classes_of(x, 3),
        optimizer=lambda: keras.optimizers.Muon(0.02),
    )


@pattern
def decay_average_and_clipping():
    """AdamW with weight decay, a moving average and clipped gradients."""
    x = normal(32, 10)
    return Problem(
        perceptron(10, 24, 3),
        x,
        classes_of(x, 3),
        optimizer=lambda: keras.optimizers.AdamW(
            0.01, weight_decay=0.01, use_ema=True, clipnorm=1.0
        ),
    )


@pattern
def warm_up_schedule():
    """A cosine schedule that warms up."""
    x = normal(32, 10)
    return Problem(
        perceptron(10, 24, 3),
        x,
        classes_of(x, 3),
        optimizer=lambda: keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(
                1e-4, 14, warmup_target=0.1, warmup_steps=2
            ),
            momentum=0.9,
        ),
    )


@pattern
def class_and_sample_weights():
    """Class weights, a validation split and weighted metrics."""
    x = normal(40, 10)
    return Problem(
        perceptron(10, 24, 3),
        x,
        classes_of(x, 3),
        metrics=["accuracy"],
        fit={"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}},
    )


@pattern
def zero_sample_weights():
    """All sample weights of a full batch are zero."""
    x = normal(32, 10)
    return Problem(
        perceptron(10, 24, 3),
        x,
        classes_of(x, 3),
        fit={"sample_weight": np.zeros(32, "float32")},
        batch_size=32,
        moves=False,
    )


@pattern
def trainable_toggled_after_wrapping():
    """The user sets `trainable` on a layer after wrapping the model."""
    x = normal(32, 10)
    model = perceptron(10, 24, 3)

    def toggle(pruned):
        model.layers[0].trainable = False
        model.layers[0].trainable = True
        return pruned

    y = classes_of(x, 3)
    return Problem(model, x, y, fit={"validation_data": (x, y)}, outer=toggle)


@pattern
def run_eagerly():
    """Compiled with `run_eagerly`, for debugging."""
    x = normal(24, 10)

    def compile_model(model):
        model.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            run_eagerly=True,
        )

    return Problem(
        perceptron(10, 16, 3), x, classes_of(x, 3), compile=compile_model
    )


@pattern
def several_steps_an_execution():
    """Compiled with `steps_per_execution`."""
    x = normal(32, 10)

    def compile_model(model):
        model.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            steps_per_execution=4,
        )

    return Problem(
        perceptron(10, 16, 3), x, classes_of(x, 3), compile=compile_model
    )
