"""Compares AC/DC with its algorithm in NumPy."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_gems as gems
from tf_gems import methods
from tf_gems.methods.acdc import ACDCCallback
from tf_gems.methods.acdc import is_compressed
from tf_gems.network import prunable_weights

random = np.random.default_rng(0)
X = random.normal(size=(24, 8)).astype("float32")
Y = random.normal(size=(24, 4)).astype("float32")
RATE = 0.1


def network(start="trained"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, activation="relu", use_bias=False, name="a"),
            layers.Dense(4, use_bias=False, name="b"),
        ],
        name="network",
    )
    sparse = gems.SparseModel(model, start=start)
    sparse.compile(keras.optimizers.SGD(RATE), "mse")
    return sparse


def kept(weights, count):
    """Returns masks of the `count` largest magnitudes of all weights."""
    flat = np.concatenate([abs(w).ravel() for w in weights])
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-flat, kind="stable")[:count]] = True
    sizes = np.cumsum([w.size for w in weights])[:-1]
    parts = np.split(mask, sizes)
    return [m.reshape(w.shape) for m, w in zip(parts, weights, strict=True)]


def in_numpy(first, second, epochs, count):
    """Algorithm 1 with plain gradient descent on the network above."""
    first, second = first.astype("float64"), second.astype("float64")
    one, two = np.ones(first.shape), np.ones(second.shape)
    for epoch in range(epochs):
        if "DCDCDCDCDDCC"[epoch] == "D":
            one, two = np.ones(first.shape), np.ones(second.shape)
        elif epoch == 0 or "DCDCDCDCDDCC"[epoch - 1] == "D":
            one, two = kept([first, second], count)
            first, second = first * one, second * two
        for i in range(0, 24, 8):
            x, y = X[i : i + 8], Y[i : i + 8]
            z = x @ first
            h = np.maximum(z, 0)
            error = 2 * (h @ second - y) / y.size
            back = (error @ second.T) * (z > 0)
            second = second - RATE * two * (h.T @ error)
            first = first - RATE * one * (x.T @ back)
    return first * one, second * two


def test_weights_and_masks_match_algorithm():
    sparse = network()
    before = [np.array(w.weight) for w in prunable_weights(sparse)]
    history = sparse.fit(
        X,
        Y,
        batch_size=8,
        epochs=12,
        shuffle=False,
        verbose=0,
        callbacks=[ACDCCallback(0.75, distribution="global")],
    ).history
    expected = in_numpy(*before, 12, 36)
    for weight, values in zip(prunable_weights(sparse), expected, strict=True):
        np.testing.assert_array_equal(weight.alive, values != 0)
        found = np.array(weight.weight) * np.array(weight.alive)
        np.testing.assert_allclose(found, values, atol=1e-5)
    density = [1.0 if c == "D" else 0.25 for c in "DCDCDCDCDDCC"]
    np.testing.assert_allclose(history["density"], density)
    user = gems.strip(sparse)
    zeros = [np.mean(np.array(w) == 0) for w in user.weights]
    assert (
        sum(
            z * w.shape[0] * w.shape[1]
            for z, w in zip(zeros, user.weights, strict=True)
        )
        == 144 - 36
    )


def test_phases_of_the_paper():
    phases = "".join("DC"[is_compressed(e, 100)] for e in range(100))
    expected = "D" * 10 + ("C" * 5 + "D" * 5) * 7 + "D" * 5 + "C" * 15
    assert phases == expected
    for epochs in range(1, 60):
        assert is_compressed(epochs - 1, epochs)
        if epochs > 1:
            assert not is_compressed(0, epochs)


@pytest.mark.parametrize(
    "pattern, distribution", [("2:4", "lamp"), ("2x1", "erk")]
)
def test_method_gives_accurate_ticket(pattern, distribution):
    sparse = network("initialization")
    method = methods.get(
        "acdc",
        target_sparsity=0.75,
        epochs=6,
        pattern=pattern,
        distribution=distribution,
    )
    ticket = method.find(sparse, X, Y, batch_size=8, verbose=0)
    assert all(method.pattern.matches(mask) for mask in ticket.masks.values())
    found = sparse.predict(X, verbose=0)
    ticket.apply(sparse)
    np.testing.assert_allclose(sparse.predict(X, verbose=0), found, rtol=1e-6)


def test_interrupted_search_gives_same_ticket(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    def find(**arguments):
        method = methods.ACDC(0.75, epochs=6)
        sparse = network("initialization")
        return method.find(sparse, X, Y, batch_size=8, verbose=0, **arguments)

    expected = find()
    with pytest.raises(KeyboardInterrupt):
        find(directory=tmp_path / "search", callbacks=[Stop()])
    ticket = find(directory=tmp_path / "search")
    for path, mask in expected.masks.items():
        np.testing.assert_array_equal(ticket.masks[path], mask)
        np.testing.assert_array_equal(
            ticket.weights[path], expected.weights[path]
        )


def test_sparse_network_is_refused():
    sparse = network()
    sparse.start_finetuning(methods.Magnitude(0.5).find(sparse))
    sparse.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must start from a dense"):
        sparse.fit(X, Y, verbose=0, callbacks=[ACDCCallback(0.75)])


def test_stopping_in_dense_phase_warns():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    with pytest.warns(UserWarning, match="ended before pruning did"):
        network().fit(
            X, Y, epochs=8, verbose=0, callbacks=[ACDCCallback(0.75), Stop()]
        )
