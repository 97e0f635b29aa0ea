"""User patterns: the structure of a model."""

import keras
from keras import layers
from keras import ops

from sweep_models.case import PACKAGE
from sweep_models.case import Problem
from sweep_models.case import classes_of
from sweep_models.case import normal
from sweep_models.case import register
from sweep_models.case import uniform

CASES = []
pattern = register(CASES)
serializable = keras.saving.register_keras_serializable(PACKAGE)


def classes(model, features=10, **kwargs):
    """Returns the problem of a classifier of vectors."""
    x = normal(32, features)
    return Problem(model, x, classes_of(x, 3), **kwargs)


class Plain(keras.Model):
    """A subclassed model that is not registered and has no config."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [layers.Dense(units, "relu") for _ in range(2)]
        self.heads = {"main": layers.Dense(3)}
        self.scale = 2.0

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x)
        return self.heads["main"](x) * self.scale


@pattern
def subclassed_without_config():
    """A subclassed model without `get_config`, with containers of layers."""
    model = Plain(16)
    model(normal(1, 10))
    model.scale = 0.5
    return classes(model)


@serializable
class Autoencoder(keras.Model):
    """A subclassed model with a config, made of two Sequential models."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.encoder = keras.Sequential([layers.Dense(size, "relu")])
        self.decoder = keras.Sequential([layers.Dense(10)])

    def call(self, x):
        return self.decoder(self.encoder(x))

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@pattern
def subclassed_with_config():
    """A subclassed autoencoder with `get_config`."""
    model = Autoencoder(16)
    x = normal(32, 10)
    model(x[:1])
    return Problem(model, x, x, loss="mse")


@serializable
class Named(keras.Model):
    """A Functional subclass that sets layers before `super().__init__`."""

    def __init__(self, units=12, **kwargs):
        inputs = keras.Input((units,))
        self.head = layers.Dense(units, name="head")
        self.trunk = layers.Dense(units, activation="tanh", name="trunk")
        x = self.trunk(inputs)
        super().__init__(inputs, self.head(x), **kwargs)
        self.units = units

    def get_config(self):
        return {"units": self.units, "name": self.name}


@pattern
def functional_subclass():
    """Layers of equal shapes, set before `super().__init__`."""
    x = normal(32, 12)
    return Problem(Named(), x, x[:, ::-1].copy(), loss="mse")


@serializable
class Residual(layers.Layer):
    """A block that creates its layers in `build`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.first = layers.Dense(self.units, activation="relu")
        self.second = layers.Dense(shape[-1])
        self.first.build(shape)
        self.second.build((*shape[:-1], self.units))

    def call(self, x):
        return x + self.second(self.first(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pattern
def layers_made_in_build():
    """Blocks that create their layers in `build`."""
    model = keras.Sequential(
        [keras.Input((10,)), Residual(16), Residual(12), layers.Dense(3)]
    )
    return classes(model)


@pattern
def shared_layers():
    """One layer used three times, with a kernel regularizer."""
    inputs = keras.Input((10,))
    shared = layers.Dense(10, "relu", kernel_regularizer="l2")
    x = shared(inputs)
    for _ in range(2):
        x = shared(layers.LayerNormalization()(x))
    return classes(keras.Model(inputs, layers.Dense(3)(x)))


@pattern
def nested_models():
    """Nested models, called twice."""
    innermost = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(8, "relu"),
            layers.BatchNormalization(),
        ]
    )
    inputs = keras.Input((8,))
    middle = keras.Model(inputs, innermost(inputs) + inputs, name="middle")
    outer = keras.Input((2, 8))
    x = [middle(outer[:, 0]), middle(outer[:, 1])]
    model = keras.Model(outer, layers.Dense(3)(layers.Concatenate()(x)))
    x = normal(32, 2, 8)
    return Problem(model, x, classes_of(x, 3))


@pattern
def equal_names():
    """Two nested models with equal layer names."""

    def tower(name):
        layer = layers.Dense(8, "relu", name="dense")
        return keras.Sequential([keras.Input((5,)), layer], name=name)

    left, right = keras.Input((5,)), keras.Input((5,))
    x = layers.Concatenate()([tower("left")(left), tower("right")(right)])
    model = keras.Model([left, right], layers.Dense(3)(x))
    x = [normal(32, 5), normal(32, 5, seed=1)]
    return Problem(model, x, classes_of(x[0], 3))


@pattern
def built_by_first_call():
    """A Sequential model without `Input`, built by its first call."""
    model = keras.Sequential([layers.Dense(24, "relu"), layers.Dense(3)])
    model(normal(1, 10))
    return classes(model)


class Arguments(keras.Model):
    """`call` takes keyword arguments in addition to its inputs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.two = layers.Dense(16, "relu"), layers.Dense(3)
        self.drop = layers.Dropout(0.3)

    def call(self, x, scale=2.0, training=False):
        x = self.one(x) * scale
        if training:
            x = self.drop(x, training=True)
        return self.two(x)


@pattern
def call_with_arguments():
    """`call(x, scale=2.0, training=False)`, branching on `training`."""
    model = Arguments()
    model(normal(1, 10))
    return classes(model)


class Branching(keras.Model):
    """Early exits: a loop and conditions on tensors in `call`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.step_layer = layers.Dense(10, "tanh")
        self.out = layers.Dense(3)

    def call(self, x):
        x = ops.fori_loop(0, 3, lambda i, x: self.step_layer(x), x)
        x = ops.where(ops.mean(x, 1, keepdims=True) > 0, x, -x)
        return self.out(x)


@pattern
def loops_in_call():
    """A backend loop over one layer."""
    model = Branching()
    model.step_layer.build((None, 10))
    model.out.build((None, 10))
    model(normal(1, 10))
    return classes(model)


@pattern
def slicing_and_operators():
    """A functional model made only of operators, slices and `ops`."""
    inputs = keras.Input((6, 10))
    first, rest = inputs[:, 0], inputs[:, 1:]
    x = layers.Dense(12)(rest)
    x = ops.softmax(x, axis=1) * ops.tanh(x) / 2.0 - 0.1
    x = ops.concatenate([ops.sum(x, 1), first], -1)
    x = ops.stack([x, ops.flip(x, -1)], 1)
    outputs = layers.Dense(3)(ops.reshape(x, (-1, 44)))
    x = normal(32, 6, 10)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def cloned_with_a_prefix():
    """A model from `clone_model`, renamed through its config."""
    base = keras.Sequential(
        [keras.Input((10,)), layers.Dense(16, "relu"), layers.Dense(3)]
    )
    return classes(keras.models.clone_model(base))


@pattern
def loaded_from_a_file():
    """A compiled model loaded from a `.keras` file."""
    import tempfile
    from pathlib import Path

    base = keras.Sequential(
        [keras.Input((10,)), layers.Dense(16, "relu"), layers.Dense(3)]
    )
    base.compile("adam", "mse")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "base.keras"
        base.save(path)
        model = keras.saving.load_model(path)
    return classes(model)


@pattern
def saved_model_as_a_layer():
    """A SavedModel in the network, as a `TFSMLayer`."""
    import tempfile

    base = keras.Sequential([keras.Input((10,)), layers.Dense(10, "tanh")])
    directory = tempfile.mkdtemp(prefix="sweep-base-")
    base.export(directory, verbose=False)
    inputs = keras.Input((10,))
    x = layers.TFSMLayer(directory, call_endpoint="serve")(inputs)
    x = layers.Dense(16, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    # Keras cannot name slot variables after the variables of a SavedModel.
    return classes(model, optimizer=lambda: keras.optimizers.SGD(0.1))


@pattern
def multi_scale():
    """An image at two scales and of any size, in two branches."""
    inputs = keras.Input((None, None, 3))
    a = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    b = layers.AveragePooling2D(2)(inputs)
    b = layers.Conv2D(8, 3, padding="same", activation="relu")(b)
    pool = layers.GlobalAveragePooling2D()
    outputs = layers.Dense(3)(layers.Concatenate()([pool(a), pool(b)]))
    x = uniform(32, 8, 8, 3)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def frozen_in_part_by_layer():
    """A layer frozen before wrapping, and a frozen BatchNormalization."""
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(16, "relu"),
            layers.BatchNormalization(),
            layers.Dense(16, "relu"),
            layers.Dense(3),
        ]
    )
    model.layers[0].trainable = False
    model.layers[1].trainable = False
    return classes(model)


@pattern
def one_wide_layer():
    """Linear regression: one kernel with one output."""
    model = keras.Sequential([keras.Input((40,)), layers.Dense(1)])
    x = normal(32, 40)
    return Problem(model, x, x[:, :1], loss="mse")


@pattern
def many_layers():
    """Forty dense layers with skip connections."""
    inputs = keras.Input((10,))
    x = inputs
    for _ in range(40):
        x = layers.Add()([x, layers.Dense(10, "tanh")(x)])
    return classes(keras.Model(inputs, layers.Dense(3)(x)))
