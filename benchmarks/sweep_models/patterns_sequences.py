"""User patterns: text, sequences and time series."""

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

CASES = []
pattern = register(CASES)
serializable = keras.saving.register_keras_serializable(PACKAGE)


@serializable
class Positions(layers.Layer):
    """Token and position embeddings that propagate the mask."""

    def __init__(self, words, length, units, **kwargs):
        super().__init__(**kwargs)
        self.sizes = (words, length, units)
        self.tokens = layers.Embedding(words, units, mask_zero=True)
        self.places = layers.Embedding(length, units)
        self.supports_masking = True

    def build(self, shape):
        self.tokens.build(shape)
        self.places.build(shape)

    def call(self, x):
        places = ops.arange(ops.shape(x)[-1])
        return self.tokens(x) + self.places(places)

    def compute_mask(self, x, mask=None):
        return self.tokens.compute_mask(x)

    def get_config(self):
        words, length, units = self.sizes
        config = {"words": words, "length": length, "units": units}
        return {**super().get_config(), **config}


def tokens(rows, length, words=30, seed=0):
    """Returns sequences of different lengths, padded with zeros."""
    found = integers(words, rows, length, low=1, seed=seed)
    for row, stop in enumerate(integers(length, rows, low=2, seed=seed)):
        found[row, stop:] = 0
    return found


@pattern
def masked_transformer():
    """A text classifier with masked embeddings and attention."""
    inputs = keras.Input((10,), dtype="int32")
    x = Positions(30, 10, 16)(inputs)
    y = layers.MultiHeadAttention(2, 8, dropout=0.1)(x, x)
    x = layers.LayerNormalization()(x + y)
    y = layers.Dense(16)(layers.Dense(32, activation="gelu")(x))
    x = layers.LayerNormalization()(x + y)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    x = tokens(24, 10)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def translation():
    """An encoder and a decoder with cross-attention and a causal mask."""
    source = keras.Input((8,), dtype="int32", name="source")
    target = keras.Input((6,), dtype="int32", name="target")
    e = Positions(30, 8, 16)(source)
    e = layers.LayerNormalization()(e + layers.MultiHeadAttention(2, 8)(e, e))
    d = Positions(30, 6, 16)(target)
    attention = layers.MultiHeadAttention(2, 8)
    d = layers.LayerNormalization()(d + attention(d, d, use_causal_mask=True))
    d = layers.LayerNormalization()(d + layers.MultiHeadAttention(2, 8)(d, e))
    d = layers.LayerNormalization()(d + layers.Dense(16, "relu")(d))
    model = keras.Model([source, target], layers.Dense(30)(d))
    x = {"source": tokens(24, 8), "target": tokens(24, 6, seed=1)}
    return Problem(model, x, tokens(24, 6, seed=2))


@pattern
def sequence_to_sequence():
    """An LSTM encoder passes its states to the decoder."""
    source = keras.Input((7, 5))
    target = keras.Input((6, 4))
    _, h, c = layers.LSTM(12, return_state=True)(source)
    decoder = layers.LSTM(12, return_sequences=True, return_state=True)
    x, _, _ = decoder(target, initial_state=[h, c])
    model = keras.Model([source, target], layers.Dense(4)(x))
    x = [normal(24, 7, 5), normal(24, 6, 4, seed=1)]
    return Problem(model, x, integers(4, 24, 6))


@pattern
def tied_language_model():
    """A language model whose output layer is its transposed embedding."""
    inputs = keras.Input((9,), dtype="int32")
    embedding = layers.ReversibleEmbedding(30, 16, tie_weights=True)
    x = embedding(inputs)
    y = layers.MultiHeadAttention(2, 8)(x, x, use_causal_mask=True)
    x = layers.LayerNormalization()(x + y)
    x = x + layers.Dense(16)(layers.Dense(32, activation="gelu")(x))
    model = keras.Model(inputs, embedding(x, reverse=True))
    x = integers(30, 24, 10)
    return Problem(model, x[:, :-1], x[:, 1:])


class Tied(keras.Model):
    """Computes logits by a matrix product with the embedding variable."""

    def __init__(self, words=30, units=16, **kwargs):
        super().__init__(**kwargs)
        self.embedding = layers.Embedding(words, units)
        self.hidden = layers.GRU(units, return_sequences=True)

    def call(self, x):
        x = self.hidden(self.embedding(x))
        return ops.matmul(x, ops.transpose(self.embedding.embeddings))


@pattern
def tied_by_hand():
    """A language model that reads the variable of its embedding."""
    model = Tied()
    x = integers(30, 24, 10)
    model(x[:1, :-1])
    return Problem(model, x[:, :-1], x[:, 1:])


@pattern
def bidirectional_tagger():
    """Bidirectional recurrent layers with a mask, and one tag per word."""
    model = keras.Sequential(
        [
            keras.Input((10,), dtype="int32"),
            layers.Embedding(30, 12, mask_zero=True),
            layers.Bidirectional(layers.GRU(8, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(4)),
        ]
    )
    return Problem(model, tokens(24, 10), integers(4, 24, 10))


@pattern
def words_of_any_length():
    """A classifier for sequences of any length."""
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(30, 12),
            layers.Conv1D(12, 3, padding="same", activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(3),
        ]
    )
    x = tokens(24, 9)
    return Problem(model, x, classes_of(x, 3))


@pattern
def stateful_lstm():
    """A stateful LSTM with a fixed batch size."""
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(8, 6, 3)),
            layers.LSTM(12, stateful=True),
            layers.Dense(1),
        ]
    )
    x = normal(32, 6, 3)
    return Problem(
        model, x, x.sum((1, 2))[:, None], loss="mse", fit={"shuffle": False}
    )


@pattern
def recurrent_dropout():
    """LSTM with dropout and recurrent dropout."""
    model = keras.Sequential(
        [
            keras.Input((7, 5)),
            layers.LSTM(12, dropout=0.2, recurrent_dropout=0.2),
            layers.Dense(3),
        ]
    )
    x = normal(24, 7, 5)
    return Problem(model, x, classes_of(x, 3))


@serializable
class MinimalCell(layers.Layer):
    """A custom recurrent cell with a bias of rank 2."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        units = self.units
        self.kernel = self.add_weight(shape=(shape[-1], units), name="kernel")
        self.recurrent = self.add_weight(
            shape=(units, units), initializer="orthogonal", name="recurrent"
        )
        self.b = self.add_weight(
            shape=(1, units), initializer="zeros", name="b"
        )

    def call(self, inputs, states):
        h = ops.tanh(inputs @ self.kernel + states[0] @ self.recurrent + self.b)
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pattern
def custom_cell():
    """A custom recurrent cell and stacked cells."""
    cells = [MinimalCell(10), MinimalCell(8)]
    model = keras.Sequential(
        [keras.Input((7, 5)), layers.RNN(cells), layers.Dense(3)]
    )
    x = normal(24, 7, 5)
    return Problem(model, x, classes_of(x, 3))


@pattern
def time_series():
    """A multi-step forecast from a window, with a residual connection."""
    inputs = keras.Input((16, 2))
    last = inputs[:, -1:, :1]
    x = layers.GRU(16, return_sequences=True)(inputs)
    x = layers.GRU(12)(x)
    x = layers.RepeatVector(4)(x)
    x = layers.SimpleRNN(8, return_sequences=True)(x)
    outputs = layers.Dense(1)(x) + last
    x = np.cumsum(normal(24, 20, 2), 1)
    model = keras.Model(inputs, outputs)
    return Problem(model, x[:, :16], x[:, 16:, :1], loss="mae")


@pattern
def temporal_convolutions():
    """TCN: dilated causal convolutions with residuals."""
    inputs = keras.Input((16, 2))
    x = layers.Conv1D(12, 1)(inputs)
    for rate in (1, 2, 4):
        y = layers.Conv1D(12, 3, padding="causal", dilation_rate=rate)(x)
        y = layers.SpatialDropout1D(0.1)(layers.ReLU()(y))
        x = layers.Add()([x, layers.Conv1D(12, 1)(y)])
    outputs = layers.Dense(1)(x[:, -1])
    x = normal(24, 16, 2)
    model = keras.Model(inputs, outputs)
    return Problem(model, x, x.sum((1, 2))[:, None], loss="mse")


@pattern
def wavenet():
    """Gated activations and summed skips."""
    inputs = keras.Input((20, 4))
    x, skips = layers.Conv1D(8, 2, padding="causal")(inputs), []
    for rate in (1, 2):
        tanh, gate = (
            layers.Conv1D(
                8, 2, padding="causal", dilation_rate=rate, activation=name
            )(x)
            for name in ("tanh", "sigmoid")
        )
        y = layers.Conv1D(8, 1)(layers.Multiply()([tanh, gate]))
        x = layers.Add()([x, y])
        skips.append(y)
    x = layers.ReLU()(layers.Add()(skips))
    model = keras.Model(inputs, layers.Conv1D(6, 1)(x))
    return Problem(model, normal(24, 20, 4), integers(6, 24, 20))


@pattern
def attention_layers():
    """Dot-product attention, additive attention and grouped queries."""
    inputs = keras.Input((8, 12))
    q = layers.Dense(12)(inputs)
    x = layers.Attention(use_scale=True)([q, inputs])
    x = layers.AdditiveAttention()([x, inputs])
    x = layers.GroupQueryAttention(6, 4, 2)(x, x)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    x = normal(24, 8, 12)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@serializable
class Experts(layers.Layer):
    """A mixture of experts: stacked kernels, biases of rank 3."""

    def __init__(self, experts=4, units=16, **kwargs):
        super().__init__(**kwargs)
        self.experts, self.units = experts, units
        self.router = layers.Dense(experts, activation="softmax")

    def build(self, shape):
        self.router.build(shape)
        size = (self.experts, shape[-1], self.units)
        self.kernel = self.add_weight(shape=size, name="expert_kernel")
        self.offset = self.add_weight(
            shape=(self.experts, 1, self.units),
            initializer="zeros",
            name="expert_bias",
        )

    def call(self, x):
        gates = self.router(x)
        told = ops.einsum("bi,eio->ebo", x, self.kernel) + self.offset
        self.add_loss(0.01 * ops.sum(ops.square(ops.mean(gates, 0))))
        return ops.einsum("be,ebo->bo", gates, ops.relu(told))

    def get_config(self):
        config = {"experts": self.experts, "units": self.units}
        return {**super().get_config(), **config}


@pattern
def mixture_of_experts():
    """Experts in one kernel of rank 3, with a load-balancing loss."""
    model = keras.Sequential([keras.Input((12,)), Experts(), layers.Dense(3)])
    x = normal(24, 12)
    return Problem(model, x, classes_of(x, 3))


@pattern
def text_matching():
    """Two texts as a list of inputs in non-alphabetical order."""
    question = keras.Input((8,), dtype="int32", name="question")
    answer = keras.Input((6,), dtype="int32", name="answer")
    embedding = layers.Embedding(30, 12)
    pool = layers.GlobalAveragePooling1D()
    q = layers.Dense(12, "tanh")(pool(embedding(question)))
    a = layers.Dense(12, "tanh")(pool(embedding(answer)))
    x = layers.Concatenate()([q, layers.Subtract()([q, a])])
    model = keras.Model([question, answer], layers.Dense(2)(x))
    x = [tokens(24, 8), tokens(24, 6, seed=1)]
    return Problem(model, x, integers(2, 24))


@pattern
def decoder_with_a_cache():
    """A list of states as inputs and outputs, in addition to the logits."""
    step = keras.Input((6,))
    states = [keras.Input((10,)), keras.Input((10,))]
    cells = [layers.GRUCell(10), layers.GRUCell(10)]
    x, after = step, []
    for cell, state in zip(cells, states, strict=True):
        x, [new] = cell(x, [state])
        after.append(new)
    model = keras.Model(
        {"step": step, "states": states},
        {"answer": layers.Dense(3)(x), "states": after},
    )
    x = {
        "step": normal(24, 6),
        "states": [normal(24, 10, seed=1), normal(24, 10, seed=2)],
    }
    y = {"answer": integers(3, 24), "states": [normal(24, 10)] * 2}
    loss = {
        "answer": keras.losses.SparseCategoricalCrossentropy(True),
        "states": ["mse", "mse"],
    }
    return Problem(model, x, y, loss=loss)
