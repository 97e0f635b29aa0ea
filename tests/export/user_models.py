"""User models that hold values that are not in their configs."""

import keras
import numpy as np

import tf_gems

layers = keras.layers
ops = keras.ops
random = np.random.default_rng(0)


def floats(*shape):
    return random.normal(size=shape).astype("float32")


def integers(high, *shape):
    return random.integers(0, high, shape).astype("int32")


def pruned(model, sparsity=0.8):
    """Returns a model that is fine-tuned with a magnitude ticket."""
    sparse = tf_gems.SparseModel(model, seed=0)
    method = tf_gems.methods.get(
        "magnitude", target_sparsity=sparsity, distribution="uniform"
    )
    sparse.start_finetuning(method.find(sparse))
    return sparse


class Graph(keras.Model):
    """A graph network. Nodes and edges are not batches of examples."""

    def __init__(self):
        super().__init__()
        self.node = layers.Dense(40)
        self.head = layers.Dense(3)

    def call(self, inputs):
        nodes, edges = inputs
        sent = ops.take(self.node(nodes), edges[:, 0], axis=0)
        received = ops.segment_sum(sent, edges[:, 1], num_segments=20)
        return self.head(ops.relu(received))


class Text(keras.Model):
    """Takes a dict of integers and floats, and returns a nested structure."""

    def __init__(self):
        super().__init__()
        self.embedding = layers.Embedding(50, 16)
        self.head = layers.Dense(33)

    def call(self, inputs):
        x = ops.mean(self.embedding(inputs["tokens"]), axis=1)
        x = self.head(x) + ops.sum(inputs["numbers"], -1, keepdims=True)
        return {"logits": x, "parts": [x[:, :2], {"rest": x[:, 2:]}]}


class Attributes(layers.Layer):
    """Computes with attributes that Keras neither saves nor tracks."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        import tensorflow as tf

        self.projection = floats(16, 16)
        self.scales = [tf.Variable(3.0)]

    def call(self, x):
        return ops.matmul(x, self.projection) * self.scales[0]


class Noise(layers.Layer):
    """Draws random numbers, also in inference."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.seed)


def graph():
    inputs = floats(20, 8), integers(20, 50, 2)
    model = Graph()
    model(inputs)
    return model, inputs


def text():
    inputs = {"tokens": integers(50, 4, 7), "numbers": floats(4, 2)}
    model = Text()
    model(inputs)
    return model, inputs


def recurrent_heads():
    inputs = keras.Input((6, 5))
    x = layers.GRU(8, dropout=0.2, return_sequences=True)(inputs)
    outputs = {
        "sequence": layers.Dense(4)(x),
        "label": layers.Dense(3)(layers.LSTM(5, recurrent_dropout=0.1)(x)),
    }
    return keras.Model(inputs, outputs), floats(3, 6, 5)


def named_inputs():
    """Inputs in an order other than that of their names."""
    b, a = keras.Input((5,), name="b"), keras.Input((5,), name="a")
    outputs = layers.Dense(30)(b) - 2 * layers.Dense(30)(a)
    return keras.Model([b, a], outputs), {"a": floats(4, 5), "b": floats(4, 5)}


def contrastive():
    inputs = keras.Input((16,))
    x = layers.Dense(24)(inputs)
    outputs = ops.matmul(x, ops.transpose(x))
    return keras.Model(inputs, outputs), floats(6, 16)


def stateful():
    inputs = keras.Input(batch_shape=(4, 3, 5))
    x = layers.LSTM(16, stateful=True)(inputs)
    return keras.Model(inputs, layers.Dense(3)(x)), floats(4, 3, 5)


def augmented():
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.RandomFlip(),
            layers.RandomRotation(0.1),
            layers.RandomContrast(0.1),
            layers.GaussianNoise(0.1),
            layers.Conv2D(8, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    return model, floats(4, 12, 12, 3)


def attributes():
    model = keras.Sequential(
        [keras.Input((16,)), Attributes(), layers.Dense(64), layers.Dense(3)]
    )
    return model, floats(4, 16)


def adapted():
    x = 20 * floats(8, 16) + 100
    normalization = layers.Normalization()
    normalization.adapt(x)
    model = keras.Sequential(
        [keras.Input((16,)), normalization, layers.Dense(64), layers.Dense(3)]
    )
    return model, x


def in_type(policy):
    """Returns a function that builds a network with this dtype."""

    def build():
        keras.config.set_dtype_policy(policy)
        model = keras.Sequential(
            [
                keras.Input((10, 10, 3)),
                layers.Conv2D(16, 3, activation="silu"),
                layers.BatchNormalization(),
                layers.GlobalAveragePooling2D(),
                layers.Dense(40),
                layers.Dense(5),
            ]
        )
        keras.config.set_dtype_policy("float32")
        return model, floats(4, 10, 10, 3)

    build.__name__ = policy
    return build


def looked_up():
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="string"),
            layers.StringLookup(vocabulary=list("abcdefgh")),
            layers.Embedding(9, 40),
            layers.Flatten(),
            layers.Dense(30),
        ]
    )
    return model, np.array([list("abc"), list("dex")])


def words():
    vectorization = layers.TextVectorization(
        output_sequence_length=4, vocabulary=["hello", "world"]
    )
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="string"),
            vectorization,
            layers.Embedding(4, 50),
            layers.Flatten(),
            layers.Dense(30),
        ]
    )
    return model, np.array([["hello world"], ["hello"]])


def labels():
    """Returns strings."""
    inputs = keras.Input((8,))
    x = layers.Dense(4)(layers.Dense(64)(inputs))
    names = layers.StringLookup(vocabulary=list("abcd"), invert=True)
    outputs = {"logits": x, "label": names(ops.argmax(x, -1))}
    return keras.Model(inputs, outputs), floats(5, 8)


def pooled_3d():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 6, 2)),
            layers.Conv3D(4, 3),
            layers.MaxPooling3D(name="pooled"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    return model, floats(3, 6, 6, 6, 2)


def noisy():
    model = keras.Sequential([keras.Input((9,)), layers.Dense(64), Noise()])
    return model, floats(4, 9)
