import keras
import numpy as np
import pytest
from keras import layers
from keras import ops
from models import difference
from models import gradients
from models import values

import tf_gems
from tf_gems.layers import TopKMask

SERIES = (2, 6, 4)
IMAGE = (2, 6, 6, 2)

# Unbuilt layers and the shapes of their inputs.
LAYERS = {
    "Dense": (lambda: layers.Dense(3, activation="relu"), [(2, 4)]),
    "EinsumDense": (
        lambda: layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d"),
        [SERIES],
    ),
    "Conv1D": (lambda: layers.Conv1D(3, 3), [SERIES]),
    "Conv2D groups": (lambda: layers.Conv2D(4, 3, groups=2), [IMAGE]),
    "Conv3D": (lambda: layers.Conv3D(2, 2), [(2, 3, 3, 3, 2)]),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3), [IMAGE]),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(3, 3), [IMAGE]),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(3, 3), [IMAGE]),
    "Embedding": (lambda: layers.Embedding(5, 3), [(2, 4, "int32")]),
    "LSTM": (lambda: layers.LSTM(3), [SERIES]),
    "GRU": (lambda: layers.GRU(3, return_sequences=True), [SERIES]),
    "Bidirectional": (
        lambda: layers.Bidirectional(layers.LSTM(4)),
        [SERIES],
    ),
    "TimeDistributed": (
        lambda: layers.TimeDistributed(layers.Dense(2)),
        [SERIES],
    ),
    "MultiHeadAttention": (
        lambda: layers.MultiHeadAttention(2, 3),
        [SERIES, (2, 5, 3)],
    ),
    "GroupQueryAttention": (
        lambda: layers.GroupQueryAttention(2, 4, 2),
        [SERIES, (2, 5, 4)],
    ),
}


def data(shapes):
    generator = np.random.default_rng(0)
    return [
        generator.integers(0, 5, shape[:-1]).astype("int32")
        if shape[-1] == "int32"
        else generator.normal(size=shape).astype("float32")
        for shape in shapes
    ]


def freeze_some(gem):
    """Prunes a random third of every weight permanently."""
    generator = np.random.default_rng(1)
    for prunable in gem.prunable:
        prunable.alive.assign(
            generator.uniform(size=prunable.alive.shape) < 0.7
        )


def copy_masked(gem, inputs):
    """Returns a copy of the wrapped layer with masked kernels."""
    copy = type(gem.layer).from_config(gem.layer.get_config())
    copy(*inputs)
    for ours, theirs in zip(gem.layer.weights, copy.weights, strict=True):
        theirs.assign(ours)
        for prunable in gem.prunable:
            if prunable.weight is ours:
                score = ops.convert_to_numpy(prunable.score)
                alive = ops.convert_to_numpy(prunable.alive)
                theirs.assign(
                    ops.convert_to_numpy(ours) * (score > 0.5) * alive
                )
    return copy


@pytest.mark.parametrize("name", LAYERS)
def test_masked_kernels_and_score_gradients(name):
    build, shapes = LAYERS[name]
    inputs = data(shapes)
    gem = tf_gems.GemLayer(build(), seed=0)
    gem(*inputs)  # The layer builds itself.
    freeze_some(gem)
    before = values(gem.layer)
    outputs = gem(*inputs)
    copy = copy_masked(gem, inputs)

    assert difference(outputs, copy(*inputs)) == 0.0
    assert difference(before, values(gem.layer)) == 0.0
    # The straight-through gradient: d m / d p = 1 for alive weights.
    weights = [w.weight for w in gem.prunable]
    theirs = dict(zip(map(id, gem.layer.weights), copy.weights, strict=True))
    kernels = [theirs[id(weight)] for weight in weights]
    expected = gradients(copy, inputs, kernels)
    found = gradients(gem, inputs, [w.score for w in gem.prunable])
    for prunable, kernel_gradient, score_gradient in zip(
        gem.prunable, expected, found, strict=True
    ):
        kernel = ops.convert_to_numpy(prunable.weight)
        alive = ops.convert_to_numpy(prunable.alive)
        np.testing.assert_allclose(
            score_gradient, kernel_gradient * kernel * alive, atol=1e-6
        )
        assert np.any(score_gradient != 0.0)
        assert np.all(score_gradient[~alive] == 0.0)


def test_finetuning_uses_and_trains_only_alive_weights():
    inputs = data([SERIES, (2, 5, 3)])
    gem = tf_gems.GemLayer(layers.MultiHeadAttention(2, 3), seed=0)
    gem(*inputs)
    freeze_some(gem)
    # The flags count, and not the rounded scores.
    for prunable in gem.prunable:
        prunable.score.assign(ops.ones(prunable.score.shape))
    copy = copy_masked(gem, inputs)
    gem.set_phase("finetuning")
    assert difference(gem(*inputs), copy(*inputs)) == 0.0
    assert len(gem.trainable_variables) == len(gem.layer.weights)
    kernels = [w.weight for w in gem.prunable]
    found = gradients(gem, inputs, kernels)
    for prunable, gradient in zip(gem.prunable, found, strict=True):
        alive = ops.convert_to_numpy(prunable.alive)
        assert np.all(gradient[~alive] == 0.0)
        assert np.any(gradient[alive] != 0.0)


def test_passes_arguments_to_wrapped_layer():
    query, value = data([SERIES, (2, 5, 3)])
    mask = np.tril(np.ones((2, 6, 5), bool))
    gem = tf_gems.GemLayer(layers.MultiHeadAttention(2, 3), seed=0)
    outputs, scores = gem(
        query, value=value, attention_mask=mask, return_attention_scores=True
    )
    copy = copy_masked(gem, [query, value])
    expected = copy(
        query, value=value, attention_mask=mask, return_attention_scores=True
    )
    assert difference((outputs, scores), expected) == 0.0

    lstm = tf_gems.GemLayer(layers.LSTM(3, return_state=True), seed=0)
    state = [np.ones((2, 3), "float32")] * 2
    outputs = lstm(query, initial_state=state)
    copy = copy_masked(lstm, [query])
    assert difference(outputs, copy(query, initial_state=state)) == 0.0


def test_builds_on_symbolic_inputs_and_propagates_masks():
    tokens = keras.Input((6,), dtype="int32")
    x = tf_gems.GemLayer(layers.Embedding(5, 4, mask_zero=True))(tokens)
    x = tf_gems.GemLayer(layers.MultiHeadAttention(2, 3))(x, value=x)
    x = tf_gems.GemLayer(layers.Dense(3))(x)
    outputs = tf_gems.GemLayer(layers.LSTM(2))(x)
    model = keras.Model(tokens, outputs)

    padded = np.array([[1, 2, 3, 0, 0, 0], [4, 1, 2, 3, 4, 0]])
    changed = np.array([[1, 2, 3, 0, 0, 0], [4, 1, 2, 3, 4, 4]])
    first, second = ops.convert_to_numpy(model(padded))
    same, other = ops.convert_to_numpy(model(changed))
    assert np.all(first == same) and np.any(second != other)


def test_state_updates_but_masked_kernels_are_not_written_back():
    network = keras.Sequential(
        [
            keras.Input((4,)),
            layers.SpectralNormalization(layers.Dense(4)),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
        ]
    )
    gem = tf_gems.GemLayer(network, seed=0)
    paths = [v.path for v in network.variables]
    before = dict(zip(paths, values(network.variables), strict=True))
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    first = gem(x, training=True)
    assert difference(first, gem(x, training=True)) > 0  # Dropout is different.
    moved = {
        v.path.rsplit("/", 1)[-1]
        for v in network.variables
        if np.any(ops.convert_to_numpy(v) != before[v.path])
    }
    assert {"moving_mean", "moving_variance", "vector_u"} <= moved
    assert "kernel" not in moved


class Noisy(layers.Layer):
    """Counts its calls in a metric, and adds noise without a seed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)
        self.calls = keras.metrics.Sum(name="calls")

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        self.calls.update_state(1.0)
        return self.dense(x) + keras.random.normal((3,))


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="Keras refuses unseeded noise"
)
def test_metrics_and_unseeded_noise():
    [x] = data([(2, 4)])
    gem = tf_gems.GemLayer(Noisy(), seed=0)
    gem(x)
    gem.layer.calls.reset_state()
    assert difference(gem(x), gem(x)) > 0.0
    assert float(gem.layer.calls.result()) == 2.0


def test_float32_head_keeps_precision_in_mixed_network():
    def network():
        keras.utils.set_random_seed(3)
        return keras.Sequential(
            [
                keras.Input((6,)),
                layers.Dense(8, dtype="mixed_bfloat16"),
                layers.Dense(3, dtype="float32"),
            ]
        )

    [x] = data([(4, 6)])
    gem = tf_gems.GemLayer(network(), seed=0)
    by_hand = network()
    for prunable, layer in zip(gem.prunable, by_hand.layers, strict=True):
        kept = ops.convert_to_numpy(prunable.score) > 0.5
        layer.kernel.assign(ops.convert_to_numpy(layer.kernel) * kept)
    assert difference(gem(x), by_hand(x)) == 0.0
    assert gem(x).dtype == by_hand(x).dtype
    for mask in gem.masks():
        assert keras.backend.standardize_dtype(mask.dtype) == "float32"


def test_shared_layer_is_penalized_once():
    gem = tf_gems.GemLayer(layers.Dense(4, activity_regularizer="l2"), seed=0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, gem(gem(inputs)))
    gem.penalty.weight.assign(0.5)
    [x] = data([(2, 4)])
    model(x, training=True)
    score = ops.convert_to_numpy(gem.prunable[0].score)
    middle = ops.convert_to_numpy(gem(x))
    end = ops.convert_to_numpy(gem(middle))
    expected = [
        0.5 * np.sum(score**2),
        0.01 * np.sum(middle**2) / 2,
        0.01 * np.sum(end**2) / 2,
    ]
    model(x, training=True)
    found = [float(loss) for loss in model.losses]
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-5)
    model(x)
    assert len(model.losses) == 2  # Only training includes the penalty.


def test_trainable_selects_variables_of_one_phase():
    network = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, name="frozen", trainable=False),
            layers.Dense(3, name="free"),
        ]
    )
    gem = tf_gems.GemLayer(network, seed=0)

    def trained():
        # On JAX, the shrinkage of scores is part of the gradient.
        names = [v.path.split("/")[-1] for v in gem.trainable_variables]
        return [name for name in names if not name.endswith("_shrinkage")]

    [score] = trained()
    assert "free" in score and score.endswith("score")
    gem.trainable = False
    assert trained() == []
    outer = keras.Sequential([keras.Input((4,)), gem])
    assert outer.trainable_variables == []
    gem.trainable = True
    assert trained() == [score]
    gem.set_phase("finetuning")
    assert trained() == ["kernel", "bias"]
    assert all("free" in v.path for v in gem.trainable_variables)
    gem.trainable = False
    assert trained() == []
    gem.trainable = True
    assert all("free" in v.path for v in gem.trainable_variables)


def test_scores_depend_on_seed_and_weight():
    def scores(seed):
        gem = tf_gems.GemLayer(layers.LSTM(4), seed=seed)
        gem.build((None, 3, 4))
        return [ops.convert_to_numpy(w.score) for w in gem.prunable]

    first, again, other = scores(0), scores(0), scores(1)
    assert difference(first, again) == 0.0
    assert difference(first, other) > 0.1
    kernel, recurrent = first
    assert kernel.shape == recurrent.shape and np.any(kernel != recurrent)
    assert 0 <= kernel.min() and kernel.max() <= 1


def test_from_config_returns_equal_layer():
    gem = tf_gems.GemLayer(
        layers.Dense(3, name="inner"),
        filters=["kernel"],
        mask=TopKMask(0.5),
        score_initializer=keras.initializers.RandomNormal(),
        seed=4,
        phase="finetuning",
        name="outer",
    )
    gem.build((None, 2))
    config = keras.saving.serialize_keras_object(gem)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.built and copy.phase == "finetuning"
    ours, theirs = gem.get_config(), copy.get_config()
    inner = ours.pop("layer"), theirs.pop("layer")
    assert ours == theirs
    assert inner[0]["config"] == inner[1]["config"]
    assert difference(copy.prunable[0].score, gem.prunable[0].score) == 0.0


def test_bad_arguments_are_refused():
    dense = layers.Dense(3)
    with pytest.raises(ValueError, match="mask='rond'. Did you mean 'round'"):
        tf_gems.GemLayer(dense, mask="rond")
    with pytest.raises(ValueError, match="phase='finetune'. Did you mean 'fin"):
        tf_gems.GemLayer(dense, phase="finetune")
    with pytest.raises(ValueError, match="mask='top_k'.*instance of `TopKM"):
        tf_gems.GemLayer(dense, mask="top_k")
    with pytest.raises(ValueError, match="score_init.*or 'random_uniform'"):
        tf_gems.GemLayer(dense, score_initializer="unifrm")
    with pytest.raises(ValueError, match="(?s)mask.*must be a name.*Received"):
        tf_gems.GemLayer(dense, mask=0.5)
    with pytest.raises(
        ValueError, match="only be pruned once.*contains a `Gem"
    ):
        tf_gems.GemLayer(tf_gems.GemLayer(dense))
    with pytest.raises(
        ValueError, match="only be pruned once.*contains a `Gem"
    ):
        tf_gems.GemLayer(keras.Sequential([tf_gems.GemLayer(dense)]))
    with pytest.raises(ValueError, match="Only Keras 3.*layer=3 from"):
        tf_gems.GemLayer(3)
    with pytest.raises(ValueError, match="rank 2 or more.*'flat'"):
        tf_gems.GemLayer(layers.Flatten(name="flat"))(np.ones((2, 3)))


def test_keras_2_is_refused():
    tf_keras = pytest.importorskip("tf_keras")
    with pytest.raises(ValueError, match="Keras 2 .`tf_keras`. object"):
        tf_gems.GemLayer(tf_keras.layers.Dense(3))


def test_candidates_are_weight_positions():
    layer = tf_gems.GemLayer(layers.Dense(3), candidates=range(1))
    layer.build((None, 2))
    assert layer.candidates == [0]
    layer = tf_gems.GemLayer(layers.Dense(3), candidates=[0, 5])
    with pytest.raises(ValueError, match=r"\[0, 5\].*has 2 weights"):
        layer.build((None, 2))


def test_penalty_with_float64_loss():
    keras.config.set_floatx("float64")
    try:
        model = keras.Sequential(
            [keras.Input((6,)), layers.Dense(8, "tanh"), layers.Dense(2)]
        )
        sparse = tf_gems.SparseModel(model, seed=0)
        sparse.compile("sgd", "mse")
        callback = tf_gems.GemMinerCallback(0.5, freeze_period=1)
        x = np.random.default_rng(0).normal(size=(8, 6))
        sparse.fit(x, x[:, :2], epochs=2, verbose=0, callbacks=[callback])
    finally:
        keras.config.set_floatx("float32")
    assert {v.dtype for v in model.weights} == {"float64"}
    assert sparse.ticket().kept == sparse.ticket().size // 2
