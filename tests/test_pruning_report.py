import json

import keras
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
    bias = "bias or normalisation"
    assert reasons["attention/query/bias"] == bias  # of rank 2
    assert reasons["gru/gru_cell/bias"] == bias  # of rank 2
    assert reasons["prelu/alpha"] == bias  # of rank 2
    assert reasons["norm/gamma"] == reasons["batch/beta"] == bias
    assert reasons["frozen/kernel"] == "not trainable"
    assert "batch/moving_mean" not in reasons  # state, and no weight
    weights = {v.path for v in network().trainable_weights}
    assert weights == {v.path for v in report.prunable} | {
        path for path, reason in reasons.items() if reason == bias
    }


def test_filters_narrow_and_callables_decide():
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


def test_renders_for_people_and_for_json():
    report = tf_gems.PruningReport(network(), filters="top")
    text = str(report)
    assert text == report.render()
    assert "1 prunable weights with 8 entries" in text
    assert len(text.splitlines()) == 1 + 1 + len(report.skipped)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["prunable"] == [{"path": "top/kernel", "shape": [4, 2]}]
    assert {"path", "shape", "reason"} == set(data["skipped"][0])


def test_nothing_to_prune_is_refused():
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
