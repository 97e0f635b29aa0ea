"""Small networks with many kinds of layers."""

import keras
import numpy as np
from keras import layers
from keras import ops

import tf_gems


def image_network():
    """Functional: all kinds of convolutions, regularizers, a shared layer."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, kernel_regularizer="l2", name="stem")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu", activity_regularizer="l1")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    x = layers.SeparableConv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(2, 3, strides=2)(x)
    x = layers.Dropout(0.1)(x)
    line = layers.Reshape((13 * 13, 2))(x)
    line = layers.Conv1D(3, 13, strides=13, activation="tanh")(line)
    cube = layers.Reshape((13, 13, 2, 1))(x)
    cube = layers.Conv3D(3, (13, 1, 2), activation="tanh")(cube)
    cube = layers.Reshape((13, 3))(cube)
    head = keras.Sequential(
        [
            keras.Input((13, 3)),
            layers.Flatten(),
            layers.Dense(6, activity_regularizer="l2"),
            layers.BatchNormalization(),
            layers.ReLU(),
        ],
        name="head",
    )
    x = layers.Concatenate()([head(line), head(cube)])
    outputs = layers.Dense(3, activation="softmax", bias_regularizer="l2")(x)
    return keras.Model(inputs, outputs, name="images")


def image_data(count=16):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 8, 8, 3)).astype("float32")
    return x, generator.integers(0, 3, count)


def text_network():
    """Functional: masking, recurrent layers and attention, with dict inputs."""
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    numbers = keras.Input((5,), name="numbers")
    x = layers.Embedding(11, 4, mask_zero=True)(tokens)
    x = layers.LSTM(4, return_sequences=True)(x)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(3))(x)
    x = layers.GlobalAveragePooling1D()(x)
    y = layers.EinsumDense("ab,bc->ac", output_shape=(3,))(numbers)
    x = layers.Concatenate()([x, y])
    outputs = {
        "kind": layers.Dense(2, activation="softmax", name="kind")(x),
        "size": layers.Dense(1, name="size")(x),
    }
    return keras.Model({"tokens": tokens, "numbers": numbers}, outputs)


def text_data(count=16):
    generator = np.random.default_rng(0)
    tokens = generator.integers(1, 11, (count, 6)).astype("int32")
    for row, length in enumerate(generator.integers(2, 7, count)):
        tokens[row, length:] = 0
    numbers = generator.normal(size=(count, 5)).astype("float32")
    x = {"tokens": tokens, "numbers": numbers}
    y = {
        "kind": generator.integers(0, 2, count),
        "size": generator.normal(size=(count, 1)).astype("float32"),
    }
    return x, y


TEXT_LOSS = {"kind": "sparse_categorical_crossentropy", "size": "mse"}


@keras.saving.register_keras_serializable(package="tests")
class TwoTowers(keras.Model):
    """Subclassed: a nested input, an added loss and a frozen layer."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.left = layers.Dense(units, activation="tanh")
        self.right = layers.Dense(units, kernel_regularizer="l2")
        self.norm = layers.BatchNormalization()
        self.frozen = layers.Dense(units, trainable=False)
        self.top = layers.Dense(2)

    def build(self, input_shape):
        left, right = input_shape
        self.left.build(left)
        self.right.build(right)
        for layer in (self.norm, self.frozen, self.top):
            layer.build((None, self.units))

    def call(self, inputs, training=None):
        left, right = inputs
        x = self.left(left) + self.right(right)
        self.add_loss(0.1 * ops.mean(ops.square(x)))
        return self.top(self.frozen(self.norm(x, training=training)))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class Pair(keras.Model):
    """Subclassed: two call arguments and no `training` argument."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(3)
        self.attention = layers.MultiHeadAttention(2, 2)
        self.last = layers.Dense(2)

    def build(self, query_shape, memory_shape):
        self.first.build(query_shape)
        shapes = [(*s[:-1], 3) for s in (query_shape, memory_shape)]
        self.attention.build(*shapes)
        self.last.build(shapes[0])

    def call(self, query, memory, scale=1.0):
        x = self.attention(self.first(query), self.first(memory))
        return scale * self.last(x)


def two_towers():
    model = TwoTowers()
    model.build([(None, 5), (None, 3)])
    return model


def two_towers_data(count=16):
    generator = np.random.default_rng(0)
    left = generator.normal(size=(count, 5)).astype("float32")
    right = generator.normal(size=(count, 3)).astype("float32")
    return [left, right], generator.normal(size=(count, 2)).astype("float32")


def dense_network():
    """Sequential: a minimal network for pruning."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, kernel_regularizer="l2", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Dropout(0.1),
            layers.Dense(3, name="last"),
        ],
        name="dense",
    )


def dense_data(count=32):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(count, 6)).astype("float32")
    return x, generator.normal(size=(count, 3)).astype("float32")


def values(model_or_variables):
    """Returns the values of variables as NumPy arrays."""
    variables = getattr(model_or_variables, "weights", model_or_variables)
    return [ops.convert_to_numpy(v).copy() for v in variables]


def difference(a, b):
    """Returns the largest absolute difference between nested outputs."""
    pairs = zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True)
    return max(
        float(
            np.max(
                np.abs(
                    ops.convert_to_numpy(ops.cast(x, "float32"))
                    - ops.convert_to_numpy(ops.cast(y, "float32"))
                )
            )
        )
        for x, y in pairs
    )


def mine(model, x, y, loss="mse", target_sparsity=0.6, epochs=4, **kwargs):
    """Compiles and mines a model, with a freeze every second epoch."""
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, **kwargs)
    callback = tf_gems.GemMinerCallback(target_sparsity, freeze_period=1)
    return model.fit(
        x, y, batch_size=16, epochs=epochs, verbose=0, callbacks=[callback]
    )


def gradients(layer, inputs, variables, **kwargs):
    """Returns the gradients of the sum of a layer's outputs."""
    inputs = keras.tree.map_structure(ops.convert_to_tensor, inputs)

    def total(call):
        return sum(ops.sum(ops.sin(y)) for y in keras.tree.flatten(call()))

    if keras.backend.backend() == "jax":
        import jax

        def of_values(chosen):
            scope = keras.StatelessScope(zip(variables, chosen, strict=True))
            with scope:
                return total(lambda: layer(*inputs, **kwargs))

        found = jax.grad(of_values)([v.value for v in variables])
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = total(lambda: layer(*inputs, **kwargs))
        found = tape.gradient(loss, [v.value for v in variables])
    return [
        g if g is None else ops.convert_to_numpy(ops.convert_to_tensor(g))
        for g in found
    ]
