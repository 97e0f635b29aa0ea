import json

import keras
import models
import numpy as np
import pytest
from keras import layers

import tf_gems


def network():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(5, 4, name="words")(inputs)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.PReLU(name="prelu")(x)
    x = layers.GRU(3, name="gru")(x)
    x = layers.BatchNormalization(name="batch")(x)
    x = layers.Dense(4, trainable=False, name="frozen")(x)
    return keras.Model(inputs, layers.Dense(2, name="top")(x), name="network")


def test_rows_and_reasons():
    report = tf_gems.PruningReport(network())
    prunable = {v.path.replace("/", " ") for v in report.prunable}
    attention = {f"attention {n} kernel" for n in ("query", "key", "value")}
    assert prunable == attention | {
        "words embeddings",
        "attention attention_output kernel",
        "gru gru_cell kernel",
        "gru gru_cell recurrent_kernel",
        "top kernel",
    }
    reasons = {v.path: reason for v, reason in report.skipped}
    bias = "bias or normalization"
    assert reasons["attention/query/bias"] == bias  # Of rank 2.
    assert reasons["gru/gru_cell/bias"] == bias  # Of rank 2.
    assert reasons["prelu/alpha"] == bias  # Of rank 2.
    assert reasons["norm/gamma"] == reasons["batch/beta"] == bias
    assert reasons["frozen/kernel"] == "not trainable"
    assert "batch/moving_mean" not in reasons  # A state variable, not a weight.
    weights = {v.path for v in network().trainable_weights}
    assert weights == {v.path for v in report.prunable} | {
        path for path, reason in reasons.items() if reason == bias
    }


def test_filters_and_callables():
    model = network()
    report = tf_gems.PruningReport(model, filters="attention/(query|key)")
    assert [v.path for v in report.prunable] == [
        "attention/query/kernel",
        "attention/key/kernel",
    ]
    reasons = {v.path: reason for v, reason in report.skipped}
    assert reasons["top/kernel"] == "excluded by `filters`"
    report = tf_gems.PruningReport(model, filters=["words", "top"])
    assert len(report.prunable) == 2
    report = tf_gems.PruningReport(model, filters=lambda v: v.ndim == 1)
    assert {v.path.split("/")[-1] for v in report.prunable} == {
        "gamma",
        "beta",
        "bias",
    }


def test_renders_as_table_and_json():
    report = tf_gems.PruningReport(network(), filters="top")
    text = str(report)
    assert text == report.render()
    assert "1 prunable weights with 8 entries" in text
    rows = 1 + len(report.skipped)
    # Includes the header and the row of totals.
    assert len(text.splitlines()) == 1 + rows + 1 + len(report.policies)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["prunable"] == [{"path": "top/kernel", "shape": [4, 2]}]
    assert {"path", "shape", "reason"} == set(data["skipped"][0])


def test_model_without_prunable_weights_is_refused():
    with pytest.raises(ValueError, match="filters='conv'.*top/kernel"):
        tf_gems.PruningReport(network(), filters="conv")
    with pytest.raises(ValueError, match="must be a regular.*filters=3"):
        tf_gems.PruningReport(network(), filters=3)
    with pytest.raises(ValueError, match="must be a regular.*unterminated"):
        tf_gems.PruningReport(network(), filters=["a", "("])
    with pytest.raises(ValueError, match="Received: 'norm'.*gamma .bias or"):
        norm = layers.LayerNormalization(name="norm")
        norm.build((None, 3))
        tf_gems.PruningReport(norm)
    with pytest.raises(ValueError, match="with weights none"):
        tf_gems.PruningReport(layers.ReLU())


def convolutional():
    """1x1 convolutions: two that XNNPACK can run sparsely, and four others."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="wide")(x)
    x = layers.Conv2D(4, 1, name="first")(x)
    x = layers.Conv2D(4, 1, strides=2, name="strided")(x)
    x = layers.Conv2D(4, 1, groups=2, name="grouped")(x)
    x = layers.SeparableConv2D(6, 3, padding="same", name="separable")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Conv2D(5, 1, name="classifier")(x)
    return keras.Model(inputs, layers.Dense(2, name="dense")(x))


def test_pointwise_selects_layers_with_speed_up():
    report = tf_gems.PruningReport(convolutional(), filters="pointwise")
    assert [v.path for v in report.prunable] == [
        "first/kernel",
        "separable/pointwise_kernel",
    ]
    reasons = {v.path: reason for v, reason in report.skipped}
    for path in ("wide", "strided", "grouped", "classifier", "dense"):
        assert reasons[f"{path}/kernel"] == "not faster with zeros"
    assert reasons["first/bias"] == "bias or normalization"
    with pytest.raises(ValueError, match='no trainable one.*pattern="4x1"'):
        tf_gems.PruningReport(network(), filters="pointwise")


def test_pointwise_density_includes_unpruned_weights():
    model = convolutional()
    # Of 40 weights, 24 can be pruned: at most 60 % can be zero.
    model.get_layer("first").trainable = False
    sparse = tf_gems.SparseModel(model, filters="pointwise", seed=0)
    assert [w.path for w in sparse.gem.prunable] == [
        "separable/pointwise_kernel"
    ]
    message = r"=0.9 of 60% of these weights, 54.0% of all"
    with pytest.raises(ValueError, match=message):
        tf_gems.methods.Magnitude(0.9).find(sparse)


def test_pointwise_refuses_targets_without_speed_up():
    sparse = tf_gems.SparseModel(convolutional(), filters="pointwise", seed=0)
    copy = type(sparse).from_config(sparse.get_config())
    assert [w.path for w in copy.gem.prunable] == [
        w.path for w in sparse.gem.prunable
    ]
    sparse.compile("sgd", "mse")
    x, y = np.zeros((4, 8, 8, 3)), np.zeros((4, 1, 1, 2))
    for callback in (
        tf_gems.GemMinerCallback(0.66, freeze_period=1),
        tf_gems.methods.EdgePopupCallback(0.5),
    ):
        if isinstance(callback, tf_gems.methods.EdgePopupCallback):
            mask = tf_gems.layers.TopKMask(0.5, "layerwise", magnitude=True)
            sparse.gem.set_mask(mask, "random_uniform")
        with pytest.raises(ValueError, match="more than two thirds of the"):
            sparse.fit(x, y, epochs=4, verbose=0, callbacks=[callback])
    for method in (
        tf_gems.methods.Magnitude(2 / 3),
        tf_gems.methods.GemMiner(0.5, epochs=4, freeze_period=1),
        tf_gems.methods.IterativeMagnitude(0.5, epochs=1, rounds=1),
    ):
        with pytest.raises(ValueError, match="target_sparsity=0.*0.7 or more"):
            method.find(sparse)
    ticket = tf_gems.methods.Magnitude(0.75).find(sparse)
    assert ticket.kept == round(0.25 * (16 + 24))
    sparse.start_finetuning(ticket)
    sparse.compile("sgd", "mse")
    gradual = tf_gems.GradualMagnitudeCallback(0.6)
    with pytest.raises(ValueError, match="target_sparsity=0.6"):
        sparse.fit(x, y, epochs=4, verbose=0, callbacks=[gradual])


def test_policies_are_named():
    x = inputs = keras.Input((8, 8, 4))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(4, 3, groups=4, name="grouped")(x)
    x = layers.Conv2D(4, 1, groups=2, name="pairs")(x)
    x = layers.SeparableConv2D(6, 3, padding="same", name="separable")(x)
    line = layers.Reshape((16, 6))(x)
    line = layers.SeparableConv1D(3, 3, name="line")(line)
    line = layers.DepthwiseConv1D(3, name="narrow")(line)
    line = layers.Flatten()(line)
    # A name alone does not make a kernel depthwise.
    outputs = layers.Dense(2, name="depthwise_head")(line)
    model = keras.Model(inputs, outputs)
    report = tf_gems.PruningReport(model, filters="no_depthwise")
    expected = {
        "pairs/kernel",
        "separable/pointwise_kernel",
        "line/pointwise_kernel",
        "depthwise_head/kernel",
    }
    assert {v.path for v in report.prunable} == expected
    reasons = {v.path: reason for v, reason in report.skipped}
    assert reasons["grouped/kernel"] == "depthwise"
    assert reasons["separable/bias"] == "bias or normalization"
    everything = tf_gems.PruningReport(model)
    chosen = {k: {v.path for v in w} for k, w in everything.policies.items()}
    assert chosen == {
        k: {v.path for v in tf_gems.PruningReport(model, k).prunable}
        for k in ("all", "no_depthwise", "pointwise")
    }
    assert chosen["all"] == {v.path for v in everything.prunable}
    assert 'filters="pointwise" prunes 1 weights with 24 entries' in str(report)
    # A list of strings is a list of regular expressions.
    named = tf_gems.PruningReport(model, ["pointwise"]).prunable
    assert {v.path for v in named} == {
        "separable/pointwise_kernel",
        "line/pointwise_kernel",
    }


class Parts(keras.layers.Layer):
    """Weights with the names and shapes of user models and KerasHub."""

    SHAPES = {
        "content_attention_bias": (2, 4),
        "expert_bias": (4, 1, 16),
        "b": (1, 8),
        "class_token": (1, 1, 8),
        "position_embedding": (16, 8),
        "pos_embed": (1, 16, 8),
        "scale": (3, 3),
        "kernel": (8, 1),
        "w": (8, 4),
        "decompose": (8, 4),
        "recurrent_kernel": (1, 8),
    }

    def build(self, input_shape):
        for name, shape in self.SHAPES.items():
            self.add_weight(name=name, shape=shape)
        self.position_dense = keras.layers.Dense(4, name="position_dense")
        self.position_dense.build((None, 4))
        self.position_embedding = keras.layers.Embedding(
            9, 4, name="position_embedding"
        )
        self.position_embedding.build()

    def call(self, x):
        return x


def test_biases_tokens_and_positions_are_not_kernels():
    layer = Parts()
    layer.build((None, 4))
    names = [
        "/".join(v.path.split("/")[1:])
        for v in tf_gems.PruningReport(layer).prunable
    ]
    assert names == [
        "kernel",
        "w",
        "decompose",
        "recurrent_kernel",
        "position_dense/kernel",
    ]


def test_low_rank_adapters_are_not_pruned():
    model = models.dense_network()
    first, *rest = [v for v in tf_gems.PruningReport(model).prunable]
    model.layers[0].enable_lora(2)
    report = tf_gems.PruningReport(model)
    reasons = {v.path: reason for v, reason in report.skipped}
    assert reasons[first.path] == "not trainable"
    assert list(reasons.values()).count("low-rank adapter") == 2
    assert [v.path for v in report.prunable] == [v.path for v in rest]
    with pytest.raises(ValueError, match="only adapters.*enable_lora"):
        tf_gems.PruningReport(model.layers[0])


def test_scores_are_not_prunable():
    model = models.dense_network()
    paths = [v.path for v in tf_gems.PruningReport(model).prunable]
    sparse = tf_gems.SparseModel(model, seed=0)
    for _ in range(2):
        found = tf_gems.PruningReport(sparse)
        assert [v.path for v in found.prunable] == paths
        assert not any("score" in v.path for v, _ in found.skipped)
        sparse.start_finetuning(tf_gems.methods.RandomPruning(0.5).find(sparse))


def test_class_as_filter_is_refused():
    with pytest.raises(ValueError, match="filters=Dense, a class"):
        tf_gems.PruningReport(
            models.dense_network(), filters=keras.layers.Dense
        )
