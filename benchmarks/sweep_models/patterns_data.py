"""User patterns: inputs and outputs, and preprocessing in the model."""

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

WORDS = ("red", "green", "blue", "black", "white", "pink")


def strings(rows, *shape, seed=0):
    """Returns an array of words, as a string tensor."""
    import tensorflow as tf

    words = np.array(WORDS)[integers(len(WORDS), rows, *shape, seed=seed)]
    return tf.constant(words)


@pattern
def adapted_normalization():
    """`Normalization`, adapted to values far from zero."""
    x = normal(32, 10) * 20 + 100
    layer = layers.Normalization()
    layer.adapt(x)
    model = keras.Sequential(
        [keras.Input((10,)), layer, layers.Dense(24, "relu"), layers.Dense(3)]
    )
    return Problem(model, x, classes_of(x - 100, 3))


@pattern
def discretized_numbers():
    """`Discretization`, adapted, then one-hot codes."""
    x = normal(32, 3)
    layer = layers.Discretization(num_bins=5, output_mode="one_hot")
    layer.adapt(x)
    inputs = keras.Input((3,))
    h = layers.Flatten()(layer(inputs))
    h = layers.Dense(24, "relu")(h)
    model = keras.Model(inputs, layers.Dense(3)(h))
    return Problem(model, x, classes_of(x, 3))


@pattern
def string_lookup():
    """`StringLookup` with a vocabulary, before an embedding."""
    inputs = keras.Input((4,), dtype="string")
    x = layers.StringLookup(vocabulary=list(WORDS))(inputs)
    x = layers.Flatten()(layers.Embedding(8, 8)(x))
    outputs = layers.Dense(3)(layers.Dense(16, "relu")(x))
    model = keras.Model(inputs, outputs)
    return Problem(model, strings(32, 4), integers(3, 32))


@pattern
def adapted_string_lookup():
    """`StringLookup` with an adapted vocabulary, and one-hot codes."""
    x = strings(32, 1)
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(x)
    inputs = keras.Input((1,), dtype="string")
    h = layers.Dense(16, "relu")(lookup(inputs))
    model = keras.Model(inputs, layers.Dense(3)(h))
    return Problem(model, x, integers(3, 32))


@pattern
def text_vectorization():
    """An adapted `TextVectorization` layer in the model."""
    import tensorflow as tf

    words = strings(32, 5).numpy().astype(str)
    x = tf.constant([[" ".join(row)] for row in words])
    vectorize = layers.TextVectorization(
        max_tokens=20, output_sequence_length=6
    )
    vectorize.adapt(x)
    inputs = keras.Input((1,), dtype="string")
    h = layers.Embedding(20, 8, mask_zero=True)(vectorize(inputs))
    h = layers.GlobalAveragePooling1D()(h)
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(12, "relu")(h)))
    return Problem(model, x, integers(3, 32))


@pattern
def integer_lookup_and_category():
    """`IntegerLookup`, `CategoryEncoding` and `Hashing` of integers."""
    inputs = {
        "known": keras.Input((1,), dtype="int64", name="known"),
        "kind": keras.Input((1,), dtype="int32", name="kind"),
        "many": keras.Input((1,), dtype="int64", name="many"),
    }
    known = layers.IntegerLookup(vocabulary=[3, 5, 7], output_mode="one_hot")
    kind = layers.CategoryEncoding(4, output_mode="one_hot")
    many = layers.Hashing(8, output_mode="one_hot")
    x = layers.Concatenate()(
        [
            known(inputs["known"]),
            kind(inputs["kind"]),
            many(inputs["many"]),
        ]
    )
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(16, "relu")(x)))
    x = {
        "known": integers(9, 32, 1).astype("int64"),
        "kind": integers(4, 32, 1),
        "many": integers(1000, 32, 1).astype("int64"),
    }
    return Problem(model, x, integers(3, 32))


def _feature_space():
    import tensorflow as tf

    space = keras.utils.FeatureSpace(
        features={
            "age": "float_normalized",
            "size": "float_discretized",
            "color": "string_categorical",
            "shop": "integer_categorical",
        },
        crosses=[("color", "shop")],
        crossing_dim=8,
        output_mode="concat",
    )
    x = {
        "age": (40 + 10 * normal(32)).astype("float32"),
        "size": uniform(32),
        "color": strings(32).numpy().astype(str),
        "shop": integers(4, 32),
    }
    space.adapt(tf.data.Dataset.from_tensor_slices(x).batch(8))
    return space, x


@pattern
def feature_space_inside():
    """A recommender of raw features, with `FeatureSpace` in the model."""
    import tensorflow as tf

    space, x = _feature_space()
    encoded = space.get_encoded_features()
    h = layers.Dense(16, "relu")(encoded)
    model = keras.Model(space.get_inputs(), layers.Dense(2)(h))
    x = {k: tf.constant(v[:, None]) for k, v in x.items()}
    return Problem(model, x, integers(2, 32))


@pattern
def feature_space_before():
    """The training half of `FeatureSpace`: features are already encoded."""
    space, x = _feature_space()
    encoded = np.asarray(space(x))
    inputs = space.get_encoded_features()
    h = layers.Dropout(0.2)(layers.Dense(16, "relu")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(h))
    return Problem(model, encoded, integers(2, 32))


@pattern
def recommender():
    """Users and items as integers: embeddings, a product and biases."""
    user = keras.Input((1,), dtype="int64", name="user")
    item = keras.Input((1,), dtype="int32", name="item")
    u = layers.Flatten()(layers.Embedding(20, 8)(user))
    i = layers.Flatten()(layers.Embedding(30, 8)(item))
    bias = layers.Flatten()(layers.Embedding(30, 1)(item))
    score = layers.Add()([layers.Dot(1)([u, i]), bias])
    outputs = layers.Activation("sigmoid")(score)
    model = keras.Model([user, item], outputs)
    x = [integers(20, 32, 1).astype("int64"), integers(30, 32, 1)]
    return Problem(model, x, uniform(32, 1), loss="mse")


@pattern
def wide_and_deep():
    """Integers, floats and one-hot vectors as separate inputs."""
    inputs = {
        "number": keras.Input((5,), name="number"),
        "word": keras.Input((3,), dtype="int32", name="word"),
        "flag": keras.Input((4,), dtype="bool", name="flag"),
    }
    deep = layers.Flatten()(layers.Embedding(12, 6)(inputs["word"]))
    flag = ops.cast(inputs["flag"], "float32")
    x = layers.Concatenate()([inputs["number"], deep, flag])
    deep = layers.Dense(16, "selu")(layers.AlphaDropout(0.1)(x))
    wide = layers.Dense(2)(flag)
    model = keras.Model(inputs, layers.Add()([wide, layers.Dense(2)(deep)]))
    x = {
        "number": normal(32, 5),
        "word": integers(12, 32, 3),
        "flag": integers(2, 32, 4).astype(bool),
    }
    return Problem(model, x, integers(2, 32))


@pattern
def nested_dicts():
    """Nested dicts of inputs, outputs and losses."""
    inputs = {
        "meta": {
            "size": keras.Input((3,), name="size"),
            "kind": keras.Input((1,), dtype="int32", name="kind"),
        },
        "picture": keras.Input((6, 6, 1), name="picture"),
    }
    x = layers.Flatten()(layers.Conv2D(6, 3)(inputs["picture"]))
    kind = layers.Flatten()(layers.Embedding(5, 4)(inputs["meta"]["kind"]))
    x = layers.Concatenate()([x, inputs["meta"]["size"], kind])
    x = layers.Dense(16, activation="relu")(x)
    outputs = {
        "label": layers.Dense(3, name="label")(x),
        "value": layers.Dense(1, name="value")(x),
    }
    x = {
        "meta": {"size": normal(32, 3), "kind": integers(5, 32, 1)},
        "picture": uniform(32, 6, 6, 1),
    }
    y = {"label": integers(3, 32), "value": normal(32, 1)}
    loss = {
        "label": keras.losses.SparseCategoricalCrossentropy(True),
        "value": "mse",
    }
    return Problem(keras.Model(inputs, outputs), x, y, loss=loss)


@pattern
def dict_outputs_of_a_recurrent_network():
    """A dict of outputs of a recurrent network, with loss weights."""
    inputs = keras.Input((7, 5), name="signal")
    x = layers.GRU(12)(inputs)
    outputs = {"b": layers.Dense(2)(x), "a": layers.Dense(1)(x)}
    model = keras.Model(inputs, outputs)
    y = {"b": integers(2, 32), "a": normal(32, 1)}

    def compile_model(model):
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(True)
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            {"b": cross_entropy, "a": "mse"},
            loss_weights={"b": 1.0, "a": 0.2},
            metrics={"b": ["accuracy"], "a": ["mae"]},
        )

    return Problem(model, normal(32, 7, 5), y, compile=compile_model)


@pattern
def several_outputs_with_one_loss():
    """Three outputs, and a list of losses that contains `None`."""
    inputs = keras.Input((10,))
    x = layers.Dense(16, "relu")(inputs)
    heads = [layers.Dense(3)(x), layers.Dense(1)(x), x]
    loss = [keras.losses.SparseCategoricalCrossentropy(True), "mse", None]
    y = [integers(3, 32), normal(32, 1), normal(32, 16)]
    model = keras.Model(inputs, heads)
    return Problem(model, normal(32, 10), y, loss=loss)


@pattern
def generator_of_batches():
    """An infinite generator, with `steps_per_epoch`."""
    x = normal(32, 10)
    y = classes_of(x, 3)

    def batches():
        while True:
            for start in range(0, 32, 8):
                yield x[start : start + 8], y[start : start + 8]

    model = keras.Sequential(
        [keras.Input((10,)), layers.Dense(24, "relu"), layers.Dense(3)]
    )
    return Problem(model, x, data=batches, fit={"steps_per_epoch": 4})


class Batches(keras.utils.PyDataset):
    """Batches of images as a `PyDataset`."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return self.x[rows], self.y[rows]


@pattern
def py_dataset():
    """A `PyDataset` of images."""
    x = uniform(32, 8, 8, 1)
    y = classes_of(x, 3)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    return Problem(model, x, data=lambda: Batches(x, y))


@pattern
def dataset_with_weights_and_rest():
    """A `tf.data.Dataset` with sample weights and a smaller last batch."""
    import tensorflow as tf

    x = normal(30, 10)
    y, weights = classes_of(x, 3), uniform(30)
    model = keras.Sequential(
        [keras.Input((10,)), layers.Dense(24, "relu"), layers.Dense(3)]
    )

    def data():
        parts = tf.data.Dataset.from_tensor_slices((x, y, weights))
        return parts.shuffle(30, seed=0).batch(8)

    return Problem(model, x, data=data)


@pattern
def none_batch_of_one():
    """Batch normalization, with one remaining example in each epoch."""
    x = normal(25, 10)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(24, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dense(3),
        ]
    )
    return Problem(model, x, classes_of(x, 3))


@pattern
def half_precision_inputs():
    """float64 arrays of inputs, int64 labels, one-hot targets."""
    x = normal(32, 10).astype("float64")
    y = np.eye(3)[classes_of(x, 3)]
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(24, "tanh"),
            layers.Dense(3, "softmax"),
        ]
    )
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    return Problem(model, x, y, loss=loss)


@pattern
def graph_network():
    """A subclassed graph network with integer edges."""

    class Graph(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.embed = layers.Embedding(10, 12)
            self.message = layers.Dense(12, activation="relu")
            self.out = layers.Dense(3)

        def call(self, inputs):
            nodes, edges = inputs["nodes"], inputs["edges"]
            x = self.embed(nodes)
            one_hot = ops.one_hot(edges, 6, dtype=x.dtype)
            adjacent = ops.einsum(
                "beu,bev->buv", one_hot[:, :, 0], one_hot[:, :, 1]
            )
            for _ in range(2):
                x = x + ops.matmul(adjacent, self.message(x))
            return self.out(ops.mean(x, 1))

    model = Graph()
    x = {"nodes": integers(10, 32, 6), "edges": integers(6, 32, 8, 2)}
    model({key: value[:2] for key, value in x.items()})
    return Problem(model, x, integers(3, 32))


@pattern
def message_passing_by_segments():
    """Functional graph convolution with gather and segment sums."""

    @serializable
    class Convolution(layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.dense = layers.Dense(units, activation="relu")

        def build(self, nodes_shape, edges_shape):
            self.dense.build(nodes_shape)

        def call(self, nodes, edges):
            rows = ops.shape(nodes)[0]
            start = ops.take_along_axis(
                self.dense(nodes), edges[:, :, :1], axis=1
            )
            weights = ops.one_hot(edges[:, :, 1], 6, dtype=nodes.dtype)
            summed = ops.einsum("beu,bev->buv", weights, start)
            return ops.reshape(summed, (rows, 6, self.units))

        def compute_output_shape(self, nodes_shape, edges_shape):
            return (*nodes_shape[:-1], self.units)

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    nodes = keras.Input((6, 4), name="nodes")
    edges = keras.Input((8, 2), dtype="int32", name="edges")
    x = Convolution(12)(nodes, edges)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    model = keras.Model([nodes, edges], outputs)
    x = [normal(32, 6, 4), integers(6, 32, 8, 2)]
    return Problem(model, x, integers(3, 32))
