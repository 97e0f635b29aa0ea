"""Compares SNIP, GraSP and SynFlow with formulas for two layers."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import tf_gems as gems
from tf_gems import methods
from tf_gems import zoo
from tf_gems.selection.distributions import Global

random = np.random.default_rng(0)
X = random.normal(size=(10, 5)).astype("float32")
Y = random.normal(size=(10, 3)).astype("float32")
V = random.normal(size=(5, 4)).astype("float32")
W = random.normal(size=(4, 3)).astype("float32")


def dense(units, **kwargs):
    return layers.Dense(
        units, use_bias=False, kernel_regularizer="l2", **kwargs
    )


def assign(model):
    for kernel, value in zip(model.weights, (V, W), strict=True):
        kernel.assign(value)
    return model


def mining():
    """A network whose scores mask half of the weights."""
    model = keras.Sequential([keras.Input((5,)), dense(4), dense(3)])
    return gems.SparseModel(assign(model), seed=0)


def finetuning():
    """A network with a ticket, whose loss includes regularizers."""
    sparse = mining()
    gems.methods.RandomPruning(0.5).find(sparse).apply(sparse)
    assign(sparse.model)
    return sparse


def layer_by_layer():
    parts = [gems.GemLayer(dense(4), seed=0), gems.GemLayer(dense(3), seed=1)]
    model = keras.Sequential([keras.Input((5,)), *parts])
    for gem, value in zip(parts, (V, W), strict=True):
        gem.prunable[0].weight.assign(value)
    return model


def gradient(x, y, temperature=1.0):
    """Returns the gradient of the mean of `(x V W / t - y)^2`."""
    slope = 2 * (x @ V @ W / temperature - y) / y.size / temperature
    return x.T @ slope @ W.T, V.T @ x.T @ slope


def close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("build", [mining, finetuning, layer_by_layer])
def test_golden_snip(build):
    model = build()
    model.compile("sgd", "mse")
    g, h = gradient(X, Y)
    expected = [np.abs(g * V), np.abs(h * W)]
    close(methods.Snip(0.5).scores(model, (X, Y)), expected)
    # Batches of different sizes: the mean is over all examples.
    batches = [(X[:7], Y[:7]), (X[7:], Y[7:]), (X, 0 * Y)]
    close(methods.Snip(0.5, batches=2).scores(model, batches), expected)
    g, h = gradient(X[:7], Y[:7])
    close(
        methods.Snip(0.5).scores(model, iter(batches)),
        [np.abs(g * V), np.abs(h * W)],
    )


def test_golden_snip_includes_layer_losses():
    last = dense(3, activity_regularizer=keras.regularizers.L2(0.1))
    model = keras.Sequential([keras.Input((5,)), dense(4), last])
    sparse = gems.SparseModel(assign(model), seed=0)
    sparse.compile("sgd", "mse")
    slope = 2 * (X @ V @ W - Y) / Y.size + 0.2 * X @ V @ W / len(X)
    expected = [V * (X.T @ slope @ W.T), W * (V.T @ X.T @ slope)]
    found = methods.Snip(0.5).scores(sparse, (X, Y))
    close(found, [np.abs(e) for e in expected])


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_golden_grasp(temperature):
    model = mining()
    model.compile("sgd", "mse")
    g, h = gradient(X, Y, temperature)
    # The derivative of the gradient in the direction of the gradient.
    t = temperature
    error = 2 * (X @ V @ W / t - Y) / Y.size / t
    change = 2 * (X @ (g @ W + V @ h) / t) / Y.size / t
    expected = [
        V * (X.T @ (change @ W.T + error @ h.T)),
        W * (V.T @ X.T @ change + g.T @ X.T @ error),
    ]
    grasp = methods.Grasp(0.5, batches=None, temperature=temperature)
    batches = [(X[:4], Y[:4]), (X[4:], Y[4:])]
    close(grasp.scores(model, batches), expected)


def test_golden_grasp_keeps_gradient_norm():
    """Removing one weight changes `g . g` by `-2` times its score."""
    scale = 1e-3
    model = mining()
    model.compile("sgd", "mse")
    scores, _ = methods.Grasp(0.5).scores(model, (X, Y))

    def norm(v):
        slope = 2 * (X @ v @ W - Y).astype("float64") / Y.size
        return np.sum((X.T @ slope @ W.T) ** 2) + np.sum(
            (v.T @ X.T @ slope) ** 2
        )

    for place in np.ndindex(V.shape):
        smaller = V.astype("float64")
        smaller[place] *= 1 - scale
        change = norm(smaller) - norm(V.astype("float64"))
        np.testing.assert_allclose(
            change, -2 * scale * scores[place], rtol=0.05
        )


def flow_network():
    """Includes everything that must not block the flow."""
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, bias_initializer="ones", activation="tanh"),
            layers.BatchNormalization(gamma_initializer="zeros"),
            layers.ReLU(max_value=0.1),
            layers.LayerNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3, bias_initializer="ones", activation="softmax"),
        ]
    )
    model.layers[0].kernel.assign(V)
    model.layers[-1].kernel.assign(W)
    return gems.SparseModel(model, seed=0)


def shares(v, w):
    """For every weight, the part of the flow on paths through it."""
    v, w = np.abs(v), np.abs(w)
    through_v = v * w.sum(1)
    through_w = v.sum(0)[:, None] * w
    np.testing.assert_allclose(through_v.sum(), through_w.sum())
    return through_v / through_v.sum(), through_w / through_w.sum()


def test_golden_synflow():
    model = flow_network()
    state = [np.array(ops.convert_to_numpy(v)) for v in model.weights]
    before = ops.convert_to_numpy(model(X))
    close(methods.SynFlow(0.5, rounds=1).scores(model, None), shares(V, W))

    # Two rounds: 32 weights, then 16, then 8.
    first = np.concatenate([s.ravel() for s in shares(V, W)])
    mask = first >= np.sort(first)[-16]
    v, w = V * mask[:20].reshape(5, 4), W * mask[20:].reshape(4, 3)
    p, q = shares(v, w)
    second = [np.where(v, p, -1), np.where(w, q, -1)]
    synflow = methods.SynFlow(0.75, rounds=2, distribution=Global(minimum=0))
    close(synflow.scores(model, None), second)
    flat = np.concatenate([s.ravel() for s in second])
    kept = synflow.find(model).masks.values()
    np.testing.assert_array_equal(
        np.concatenate([m.ravel() for m in kept]), flat >= np.sort(flat)[-8]
    )

    # The network is unchanged.
    np.testing.assert_array_equal(ops.convert_to_numpy(model(X)), before)
    assert {layer.compute_dtype for layer in model.model.layers} == {"float32"}
    for variable, value in zip(model.weights, state, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


def test_golden_synflow_does_not_overflow():
    wide = [dense(4, kernel_initializer="ones") for _ in range(12)]
    model = keras.Sequential([keras.Input((4,)), *wide])
    for kernel in model.weights:
        kernel.assign(1e5 * kernel)  # The flow is 4 * (4e5)^12.
    sparse = gems.SparseModel(model, seed=0)
    for share in methods.SynFlow(0.5, rounds=1).scores(sparse, None):
        np.testing.assert_allclose(share, 1 / 16, rtol=1e-5)


def test_rounds_prevent_layer_collapse():
    parts = [layers.Dense(100, activation="relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((4,)), *parts, layers.Dense(2)])
    sparse = gems.SparseModel(model, seed=0)

    def smallest(rounds):
        synflow = methods.SynFlow(0.995, rounds, distribution=Global(minimum=0))
        return min(row["kept"] for row in synflow.find(sparse).layers())

    assert smallest(1) == 0
    assert smallest(30) > 0


def test_synflow_keeps_every_resnet20_layer_at_99_9_percent():
    sparse = gems.SparseModel(zoo.resnet20(), seed=0)
    ticket = methods.SynFlow(0.999).find(sparse)
    assert ticket.kept == round(0.001 * 268_336)
    assert len(ticket.masks) == 20
    assert min(row["kept"] for row in ticket.layers()) >= 1
