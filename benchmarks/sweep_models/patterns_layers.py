"""User patterns: custom layers, wrappers, dtypes and constraints."""

import keras
import numpy as np
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
SCALE = 3.0


def classifier(*front, units=24, **kwargs):
    """Returns a classifier with ten features and three classes."""
    hidden = layers.Dense(units, activation="relu", **kwargs)
    return keras.Sequential(
        [keras.Input((10,)), *front, hidden, layers.Dense(3)]
    )


def classes(model, **kwargs):
    """Returns the problem of a classifier."""
    x = normal(32, 10)
    return Problem(model, x, classes_of(x, 3), **kwargs)


@pattern
def lambda_with_a_name():
    """A Lambda that uses names of the user's script."""

    def clipped(x):
        return ops.clip(x * SCALE, -2.0, 2.0) + np.float32(0.1)

    return classes(classifier(layers.Lambda(clipped)))


@pattern
def lambda_over_a_variable():
    """A Lambda that closes over a variable of another layer."""
    first = layers.Dense(10)
    first.build((None, 10))
    model = classifier(first, layers.Lambda(lambda x: x @ first.kernel))
    return classes(model)


@serializable
class Features(layers.Layer):
    """Random features in a NumPy array that Keras does not save."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.directions = normal(10, 10, seed=5)

    def call(self, x):
        return ops.matmul(x, self.directions)


@pattern
def untracked_array():
    """A layer with an unsaved NumPy array."""
    return classes(classifier(Features()))


@pattern
def attribute_set_later():
    """A number that is set after the layer was created."""

    @serializable
    class Scaled(layers.Layer):
        factor = 1.0

        def call(self, x):
            return x * self.factor

    layer = Scaled()
    layer.factor = 4.0
    return classes(classifier(layer))


@pattern
def tf_variable_inside():
    """A `tf.Variable` that Keras does not track."""
    import tensorflow as tf

    class Shift(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.shift = tf.Variable(normal(10, seed=2), trainable=False)

        def call(self, x):
            return x + self.shift

    return classes(classifier(Shift()))


@pattern
def tf_function_inside():
    """A layer whose `call` is a `tf.function` over its kernel."""
    import tensorflow as tf

    class Compiled(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 16), name="kernel")
            self.step = tf.function(lambda x: tf.matmul(x, self.kernel.value))

        def call(self, x):
            return ops.tanh(self.step(x))

        def compute_output_shape(self, shape):
            return (*shape[:-1], 16)

    return classes(classifier(Compiled()))


@serializable
class WithoutConfig(layers.Layer):
    """A layer with an argument that is missing in its config."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(units, activation="relu")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


@pattern
def layer_without_config():
    """A custom layer without `get_config`."""
    return classes(classifier(WithoutConfig(16)))


@serializable
class Own(layers.Layer):
    """A handwritten dense layer with a step counter."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(
            shape=(shape[-1], self.units),
            initializer="glorot_uniform",
            regularizer=keras.regularizers.L1L2(1e-4, 1e-4),
            name="w",
        )
        self.b = self.add_weight(
            shape=(self.units,), initializer="zeros", name="b"
        )
        self.calls = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def call(self, x, training=False):
        if training:
            self.calls.assign(self.calls + 1)
        self.add_loss(1e-3 * ops.mean(ops.square(x)))
        return ops.relu(x @ self.w + self.b)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pattern
def own_dense_with_a_counter():
    """A custom layer with a regularizer, an added loss and a call counter."""
    return classes(classifier(Own(16)))


@serializable
class Quantizing(layers.Layer):
    """A codebook: nearest neighbors with a straight-through gradient."""

    def __init__(self, count=8, units=6, **kwargs):
        super().__init__(**kwargs)
        self.count, self.units = count, units

    def build(self, shape):
        self.codes = self.add_weight(
            shape=(self.units, self.count),
            initializer="random_uniform",
            name="codes",
        )

    def call(self, x):
        distance = (
            ops.sum(ops.square(x), 1, keepdims=True)
            + ops.sum(ops.square(self.codes), 0)
            - 2 * ops.matmul(x, self.codes)
        )
        one_hot = ops.one_hot(ops.argmin(distance, 1), self.count)
        found = ops.matmul(one_hot, ops.transpose(self.codes))
        self.add_loss(ops.mean(ops.square(found - ops.stop_gradient(x))))
        return x + ops.stop_gradient(found - x)

    def get_config(self):
        config = {"count": self.count, "units": self.units}
        return {**super().get_config(), **config}


@pattern
def vector_quantization():
    """A codebook between the encoder and the decoder."""
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(16, "relu"),
            layers.Dense(6),
            Quantizing(),
            layers.Dense(16, "relu"),
            layers.Dense(10),
        ]
    )
    x = normal(32, 10)
    return Problem(model, x, x, loss="mse")


@pattern
def spectral_normalization():
    """`SpectralNormalization` around a convolution and a dense layer."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.SpectralNormalization(layers.Conv2D(8, 3)),
            layers.LeakyReLU(),
            layers.Flatten(),
            layers.SpectralNormalization(layers.Dense(3)),
        ]
    )
    x = uniform(32, 8, 8, 1)
    return Problem(model, x, classes_of(x, 3))


@serializable
class WeightNormalized(layers.Wrapper):
    """Divides a kernel by its norm, and learns the scale."""

    def build(self, shape):
        super().build(shape)
        self.length = self.add_weight(
            shape=(self.layer.kernel.shape[-1],),
            initializer="ones",
            name="length",
        )

    def call(self, x):
        kernel = self.layer.kernel
        norm = ops.sqrt(ops.sum(ops.square(kernel), 0) + 1e-6)
        return x @ (kernel / norm * self.length) + self.layer.bias

    def compute_output_shape(self, shape):
        return self.layer.compute_output_shape(shape)


@pattern
def weight_normalization():
    """A custom wrapper that reads the kernel of its layer."""
    return classes(classifier(WeightNormalized(layers.Dense(16))))


@pattern
def constraints():
    """`MaxNorm`, `NonNeg`, unit norms and an orthogonal regularizer."""
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(
                24,
                activation="relu",
                kernel_constraint=keras.constraints.MaxNorm(1.0),
                kernel_initializer="orthogonal",
                kernel_regularizer=keras.regularizers.OrthogonalRegularizer(),
            ),
            layers.Dense(12, kernel_constraint=keras.constraints.UnitNorm()),
            layers.Dense(3, kernel_constraint="min_max_norm"),
        ]
    )
    return classes(model)


@pattern
def lora():
    """A dense layer with LoRA enabled, whose kernel is frozen."""
    model = classifier(units=24)
    model.layers[0].enable_lora(4)
    return classes(model)


@pattern
def quantized_to_int8():
    """A model that Keras has quantized to int8."""
    model = classifier(units=24)
    model.quantize("int8")
    return classes(
        model, must_refuse="nothing of it can be trained", mentions="quantize"
    )


@pattern
def mixed_bfloat16():
    """The `mixed_bfloat16` policy."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = classifier(layers.LayerNormalization())
    return classes(model, tolerance=3e-2)


@pattern
def mixed_float16():
    """The `mixed_float16` policy, with loss scaling."""
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(3, dtype="float32"),
        ]
    )
    x = uniform(32, 8, 8, 1)
    return Problem(model, x, classes_of(x, 3), tolerance=2e-2)


@pattern
def whole_bfloat16():
    """Weights and activations in bfloat16."""
    keras.config.set_dtype_policy("bfloat16")
    return classes(classifier(), tolerance=3e-2)


@pattern
def whole_float64():
    """Weights and activations in float64."""
    keras.config.set_dtype_policy("float64")
    return classes(classifier(), tolerance=1e-4)


@pattern
def float64_head():
    """One float64 layer in a float32 network."""
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(24, "relu"),
            layers.Dense(3, dtype="float64"),
        ]
    )
    return classes(model)


@pattern
def complex_numbers_inside():
    """A Fourier transform in the network."""

    @serializable
    class Mixing(layers.Layer):
        def call(self, x):
            return ops.fft2((x, ops.zeros_like(x)))[0]

    inputs = keras.Input((8, 6))
    x = layers.Dense(12)(inputs)
    x = layers.LayerNormalization()(x + Mixing()(x))
    outputs = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    x = normal(32, 8, 6)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def einsum_and_unit_norm():
    """EinsumDense, unit normalization, RMS normalization and maxout."""
    inputs = keras.Input((6, 8))
    x = layers.EinsumDense("abc,cde->abde", (6, 3, 8), bias_axes="de")(inputs)
    x = ops.max(x, axis=2)
    x = layers.RMSNormalization()(layers.UnitNormalization()(x))
    outputs = layers.Dense(3)(layers.Flatten()(x))
    x = normal(32, 6, 8)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def locally_made_kernel():
    """A hypernetwork: one layer computes the kernel of another."""

    @serializable
    class Hyper(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.maker = layers.Dense(10 * 4)

        def build(self, shape):
            self.maker.build(shape)

        def call(self, x):
            kernel = ops.reshape(self.maker(x), (-1, 10, 4))
            return ops.squeeze(ops.matmul(x[:, None], kernel), 1)

    return classes(classifier(Hyper()))


@pattern
def jit_compiled():
    """Compiled with XLA."""

    def compile_model(model):
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=True,
        )

    return classes(classifier(), compile=compile_model)


@pattern
def preset_zeros():
    """A network that is already sparse, pruned further."""
    model = classifier(units=24)
    for layer in model.layers:
        kernel = np.array(layer.kernel)
        kernel[np.abs(kernel) < np.quantile(np.abs(kernel), 0.5)] = 0.0
        layer.kernel.assign(kernel)
    return classes(model)


@pattern
def gradients_of_inputs():
    """A physics-informed layer with derivatives of its inputs."""
    import tensorflow as tf

    class Physical(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.hidden = layers.Dense(24, activation="tanh")
            self.out = layers.Dense(1)

        def call(self, x):
            return self.out(self.hidden(x))

        def compute_loss(
            self, x, y, y_pred=None, sample_weight=None, training=True
        ):
            data = super().compute_loss(x, y, y_pred, sample_weight, training)
            with tf.GradientTape() as tape:
                tape.watch(x)
                u = self(x, training=True)
            slope = tape.gradient(u, x)
            return data + 0.1 * ops.mean(ops.square(slope + u)) + 100.0

    model = Physical()
    x = normal(32, 2)
    model(x[:1])
    y = np.exp(-x.sum(1, keepdims=True))
    return Problem(model, x, y, loss="mse", loss_above=90.0)
