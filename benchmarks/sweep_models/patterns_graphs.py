"""User patterns: operations in the exported graph of a model."""

import keras
import numpy as np
from keras import layers
from keras import ops

from sweep_models.case import PACKAGE
from sweep_models.case import Problem
from sweep_models.case import classes_of
from sweep_models.case import integers
from sweep_models.case import normal
from sweep_models.case import register
from sweep_models.case import uniform

CASES = []
pattern = register(CASES)
serializable = keras.saving.register_keras_serializable(PACKAGE)


def regression(inputs, outputs, x, **kwargs):
    """Returns a problem with random targets of the shapes of the outputs."""
    model = keras.Model(inputs, outputs)
    y = keras.tree.map_structure(
        lambda value: normal(*value.shape, seed=3), model(x)
    )
    return Problem(model, x, y, loss="mse", **kwargs)


@pattern
def names_of_python():
    """Inputs with the names `self`, `class` and `a b`."""
    sizes = {"self": 5, "class": 4, "a b": 3}
    inputs = {name: keras.Input((n,), name=name) for name, n in sizes.items()}
    x = layers.Dense(24, "relu")(layers.Concatenate()(list(inputs.values())))
    x = layers.Dense(3)(x)
    data = {name: normal(32, n, seed=n) for name, n in sizes.items()}
    return regression(inputs, x, data)


@serializable
class MaskedConvolution(layers.Conv2D):
    """Masks later pixels, as in PixelCNN."""

    def convolution_op(self, inputs, kernel):
        mask = np.zeros(kernel.shape, "float32")
        rows, columns = self.kernel_size
        mask[: rows // 2] = 1
        mask[rows // 2, : columns // 2] = 1
        return super().convolution_op(inputs, kernel * mask)


@pattern
def masked_convolution():
    """PixelCNN: a layer that multiplies its kernel by a fixed mask."""
    inputs = keras.Input((8, 8, 1))
    x = MaskedConvolution(8, 3, padding="same", activation="relu")(inputs)
    x = MaskedConvolution(8, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(1, 1, activation="sigmoid")(x)
    return regression(inputs, x, uniform(16, 8, 8, 1), sparsity=0.5)


@serializable
class Standardized(layers.Conv2D):
    """Standardizes its kernel, as in Big Transfer networks."""

    def convolution_op(self, inputs, kernel):
        mean, variance = ops.moments(kernel, (0, 1, 2), keepdims=True)
        kernel = (kernel - mean) / ops.sqrt(variance + 1e-5)
        return super().convolution_op(inputs, kernel)


@pattern
def weight_standardization():
    """Convolutions with a standardized kernel, and `GroupNormalization`."""
    inputs = keras.Input((8, 8, 3))
    x = Standardized(8, 3)(inputs)
    x = layers.ReLU()(layers.GroupNormalization(4)(x))
    x = layers.Flatten()(Standardized(8, 3, strides=2)(x))
    data = uniform(32, 8, 8, 3)
    model = keras.Model(inputs, layers.Dense(3)(x))
    return Problem(model, data, classes_of(data, 3))


@pattern
def cache_in_and_out():
    """A decoding step that takes and returns keys and values."""
    token = keras.Input((1, 8), name="token")
    cache = keras.Input((2, 5, 8), name="cache")
    pair = ops.stack([layers.Dense(8)(token), layers.Dense(8)(token)], 1)
    cached = ops.concatenate([cache[:, :, 1:], pair], 2)
    scores = ops.matmul(
        layers.Dense(8)(token), ops.transpose(cached[:, 0], (0, 2, 1))
    )
    x = ops.matmul(ops.softmax(scores), cached[:, 1])
    outputs = {"logits": layers.Dense(12)(x), "cache": cached}
    x = {"token": normal(16, 1, 8), "cache": normal(16, 2, 5, 8)}
    return regression({"token": token, "cache": cache}, outputs, x)


@serializable
class Contraction(layers.Layer):
    """Repeats a step while the values are large."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1],) * 2, name="kernel")

    def call(self, x):
        def step(count, value):
            return count + 1, 0.5 * ops.tanh(value @ self.kernel) + 0.1 * x

        def goes_on(count, value):
            return ops.logical_and(count < 9, ops.max(ops.abs(value)) > 0.5)

        count = ops.zeros((), "int32")
        return ops.while_loop(goes_on, step, (count, x), maximum_iterations=9)[
            1
        ]


@pattern
def loop_on_values():
    """A loop that ends when the values are small."""
    inputs = keras.Input((12,))
    x = layers.Dense(3)(Contraction()(inputs))
    return regression(inputs, x, normal(32, 12))


@serializable
class Branches(layers.Layer):
    """Selects one of two kernels by the mean of the batch."""

    def build(self, shape):
        for name in ("above", "below"):
            weight = self.add_weight(shape=(shape[-1], 12), name=name)
            setattr(self, name, weight)

    def call(self, x):
        return ops.cond(
            ops.mean(x) > 0.0,
            lambda: ops.matmul(x, self.above),
            lambda: ops.matmul(x, self.below),
        )


@pattern
def branch_on_values():
    """`ops.cond` between two kernels."""
    inputs = keras.Input((12,))
    x = layers.Dense(3)(Branches()(inputs))
    return regression(inputs, x, normal(32, 12) + 1.0)


@pattern
def resized_to_the_input():
    """Segmentation of images of any size."""

    def back(tensors):
        import tensorflow as tf

        small, image = tensors
        return tf.image.resize(small, tf.shape(image)[1:3])

    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(inputs)
    resize = layers.Lambda(back, output_shape=(None, None, 8))
    x = layers.Conv2D(2, 1)(resize([x, inputs]))
    return regression(inputs, x, uniform(16, 9, 7, 3))


@pattern
def shifted_windows():
    """Attention within shifted windows, as in Swin."""
    inputs = keras.Input((8, 8, 8))
    x = ops.roll(inputs, (-2, -2), (1, 2))
    x = ops.reshape(x, (-1, 2, 4, 2, 4, 8))
    x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 16, 8))
    x = x + layers.MultiHeadAttention(2, 4)(x, x)
    x = ops.reshape(x, (-1, 2, 2, 4, 4, 8))
    x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 8, 8, 8))
    x = layers.GlobalAveragePooling2D()(ops.roll(x, (2, 2), (1, 2)))
    return regression(inputs, layers.Dense(3)(x), normal(16, 8, 8, 8))


@serializable
class Capsules(layers.Layer):
    """Routing by agreement with three iterations."""

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(3, shape[1], 4, shape[2]), name="kernel"
        )

    def call(self, x):
        votes = ops.einsum("jiab,nib->njia", self.kernel, x)
        logits = ops.zeros_like(votes[..., 0])
        for _ in range(3):
            shares = ops.softmax(logits, 1)
            sums = ops.einsum("nji,njia->nja", shares, votes)
            norm = ops.sum(ops.square(sums), -1, keepdims=True)
            found = norm / (1 + norm) * sums / ops.sqrt(norm + 1e-7)
            logits = logits + ops.einsum("njia,nja->nji", votes, found)
        return ops.sqrt(ops.sum(ops.square(found), -1) + 1e-7)


@pattern
def capsules():
    """A capsule layer with dynamic routing."""
    inputs = keras.Input((6, 8))
    x = Capsules()(layers.Dense(8, "relu")(inputs))
    return regression(inputs, x, normal(32, 6, 8))


@serializable
class Warp(layers.Layer):
    """Warps an image by a predicted affine map."""

    def call(self, inputs):
        image, change = inputs
        identity = ops.convert_to_tensor([1.0, 0, 0, 0, 1, 0])
        rest = ops.zeros_like(change[:, :2])
        maps = ops.concatenate([0.1 * change + identity, rest], 1)
        return ops.image.affine_transform(image, maps)


@pattern
def spatial_transformer():
    """A localization network and an affine warp."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(inputs))
    x = Warp()([inputs, layers.Dense(6, "tanh")(x)])
    x = layers.Dense(3)(layers.Flatten()(x))
    return regression(inputs, x, uniform(16, 8, 8, 1))


@pattern
def attention_scores():
    """Attention scores as a second output, and a mask as an input."""
    inputs = keras.Input((6, 8), name="x")
    mask = keras.Input((6,), dtype="bool", name="mask")
    attention = layers.MultiHeadAttention(2, 4)
    x, scores = attention(
        inputs,
        inputs,
        attention_mask=ops.expand_dims(mask, 1),
        return_attention_scores=True,
    )
    outputs = {"y": layers.Dense(3)(x), "scores": scores}
    data = {"x": normal(16, 6, 8), "mask": integers(4, 16, 6) > 0}
    return regression({"x": inputs, "mask": mask}, outputs, data)


@serializable
class Permutation(layers.Layer):
    """Permutes features by an integer variable, as in normalizing flows."""

    def build(self, shape):
        def initial(shape, dtype):
            order = np.random.default_rng(3).permutation(shape[0])
            return ops.convert_to_tensor(order, dtype)

        self.order = self.add_weight(
            shape=(shape[-1],),
            dtype="int32",
            initializer=initial,
            trainable=False,
        )

    def call(self, x):
        return ops.take(x, self.order, axis=-1)


@pattern
def variable_of_integers():
    """A permutation that is an integer weight."""
    inputs = keras.Input((10,))
    x = Permutation()(layers.Dense(24, "relu")(inputs))
    return regression(inputs, layers.Dense(3)(x), normal(32, 10))


@serializable
class Names(layers.Layer):
    """Returns its input and a constant."""

    def call(self, x):
        return ops.arange(3, dtype="float32") + 0.0 * ops.sum(x)


@pattern
def outputs_of_all_kinds():
    """Outputs that include an input, a constant and a repeated tensor."""
    inputs = keras.Input((10,))
    x = layers.Dense(3)(layers.Dense(24, "relu")(inputs))
    outputs = {
        "input": inputs,
        "logits": x,
        "again": x,
        "classes": Names()(inputs),
    }
    model = keras.Model(inputs, outputs)
    data = normal(32, 10)
    return Problem(
        model,
        data,
        {"logits": classes_of(data, 3)},
        loss={
            "logits": keras.losses.SparseCategoricalCrossentropy(True),
            "input": None,
            "again": None,
            "classes": None,
        },
    )


@serializable
class Second(layers.Layer):
    """Reads only the second of three inputs of the same shape."""

    def call(self, inputs):
        return inputs[1] * 2.0


@pattern
def unused_inputs():
    """Two of three inputs have no effect."""
    inputs = [keras.Input((10,), name=name) for name in "abc"]
    x = layers.Dense(24, "relu")(Second()(inputs))
    data = [normal(32, 10, seed=seed) for seed in range(3)]
    return regression(inputs, layers.Dense(3)(x), data)


@serializable
class Fourier(layers.Layer):
    """Mixes tokens by the real part of a Fourier transform."""

    def call(self, x):
        return ops.fft2((x, ops.zeros_like(x)))[0]


@pattern
def fourier_mixing():
    """FNet: a Fourier transform in place of attention."""
    inputs = keras.Input((8, 8))
    x = layers.LayerNormalization()(inputs + Fourier()(inputs))
    x = layers.LayerNormalization()(x + layers.Dense(8, "gelu")(x))
    x = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    return regression(inputs, x, normal(32, 8, 8))
