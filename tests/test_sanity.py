"""Tests the sanity checks: reinitialized weights and shuffled masks."""

import keras
import models
import numpy as np
import pytest
from keras import layers
from keras import ops

import tf_gems as gems
from tf_gems import methods
from tf_gems import sanity


def mixed_network():
    """Sequential: layers with different initializers."""
    image = keras.Input((8, 8, 32))
    x = layers.Conv2D(64, 3, kernel_initializer="he_normal", name="conv")(image)
    x = layers.DepthwiseConv2D(3, depth_multiplier=4, name="depthwise")(x)
    x = layers.BatchNormalization(gamma_initializer="zeros", name="norm")(x)
    x = layers.Reshape((16, 256))(x)
    x = layers.MultiHeadAttention(4, 16, name="attention")(x, x)
    x = layers.RMSNormalization(name="rms")(x)
    x = layers.LSTM(32, name="lstm")(x)
    fixed = keras.initializers.RandomUniform(-0.2, 0.2, seed=3)
    x = layers.Dense(50, kernel_initializer=fixed, name="one")(x)
    x = layers.Dense(50, kernel_initializer=fixed, name="two")(x)
    x = layers.Dense(99, trainable=False, name="frozen")(x)
    x = layers.Dense(3, "relu", bias_initializer="ones", name="last")(x)
    return keras.Model(image, x, name="mixed")


def random_ticket(model, sparsity=0.5):
    return methods.RandomPruning(sparsity, seed=7).find(model)


def test_reinitialized_weights_have_same_distribution():
    keras.utils.set_random_seed(1)
    sparse = gems.SparseModel(mixed_network(), seed=0)
    initial = {v.path: ops.convert_to_numpy(v) for v in sparse.model.weights}
    for variable in sparse.model.weights:
        if len(variable.shape) == 1:  # Changes the weights like training.
            variable.assign(variable + 0.5)
    ticket = random_ticket(sparse)
    new = sanity.reinitialize(ticket, sparse, seed=0)
    other = sanity.reinitialize(ticket, sparse, seed=1)
    again = sanity.reinitialize(ticket, sparse, seed=0)

    assert new.masks.keys() == ticket.masks.keys()
    for path, mask in ticket.masks.items():
        np.testing.assert_array_equal(mask, new.masks[path])
    for path, first in initial.items():
        weight = new.weights[path]
        np.testing.assert_array_equal(weight, again.weights[path])
        if path.startswith("frozen"):
            np.testing.assert_array_equal(weight, ticket.weights[path])
        elif np.unique(first).size <= 2:  # Biases, scales and statistics.
            np.testing.assert_array_equal(weight, first, err_msg=path)
        else:
            # Different values from the same distribution.
            for a, b in [(weight, first), (weight, other.weights[path])]:
                assert np.mean(np.isclose(a, b, atol=1e-6)) < 0.01, path
            np.testing.assert_allclose(
                np.sort(weight.ravel()),
                np.sort(first.ravel()),
                atol=0.25 * np.abs(first).max(),
                err_msg=path,
            )
            np.testing.assert_allclose(weight.std(), first.std(), rtol=0.1)
    # Layers with the same seeded initializer still get different values.
    assert np.any(new.weights["one/kernel"] != new.weights["two/kernel"][:32])
    query, key = (
        new.weights[f"attention/{name}/kernel"] for name in ("query", "key")
    )
    assert np.mean(query == key) < 0.01
    # A recurrent kernel is orthogonal, and the initial forget bias is 1.
    recurrent = new.weights["lstm/lstm_cell/recurrent_kernel"]
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(32), atol=1e-5)
    bias = new.weights["lstm/lstm_cell/bias"]
    np.testing.assert_array_equal(bias, np.repeat([0, 1, 0, 0], 32))
    # The network itself has not changed.
    new.apply(sparse)
    assert sparse.ticket().kept == ticket.kept


def test_signed_constants_get_new_signs():
    network = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.DepthwiseConv2D(3, depth_multiplier=64, name="depthwise"),
            layers.Flatten(),
            layers.Dense(3, name="dense"),
        ],
        name="net",
    )
    sparse = gems.SparseModel(
        network, kernel_initializer="signed_constant", seed=0
    )
    ticket = random_ticket(sparse)
    # The model's own seed must not reproduce its weights.
    for seed in (0, 1):
        new = sanity.reinitialize(ticket, sparse, seed=seed)
        for path, fan in [
            ("net/depthwise/kernel", 9),
            ("net/dense/kernel", 2048),
        ]:
            a, b = ticket.weights[path], new.weights[path]
            np.testing.assert_allclose(np.abs(b), np.sqrt(2 / fan), rtol=1e-6)
            assert 0.4 < np.mean(a == b) < 0.6
        np.testing.assert_array_equal(
            new.weights["net/dense/bias"], np.zeros(3)
        )


@keras.saving.register_keras_serializable(package="tests")
class Scaled(layers.Layer):
    """A custom layer whose initialization is unknown."""

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.hidden = seed

    def build(self, shape):
        normal = keras.initializers.RandomNormal(seed=self.hidden)
        self.table = self.add_weight(
            shape=(shape[-1], 2), initializer=normal, name="table"
        )

    def call(self, inputs):
        return inputs @ self.table

    def get_config(self):
        return {**super().get_config(), "hidden": self.hidden}

    @classmethod
    def from_config(cls, config):
        return cls(config.pop("hidden"), **config)


def scaled_network(seed):
    network = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Normalization(name="n"),
            Scaled(seed, name="own"),
        ],
        name="scaled",
    )
    network.get_layer("n").adapt(np.arange(8.0).reshape(2, 4))
    return gems.SparseModel(network, seed=0)


def test_custom_layers():
    sparse = scaled_network(None)
    ticket = random_ticket(sparse)
    new, again, other = (
        sanity.reinitialize(ticket, sparse, seed=seed).weights
        for seed in (0, 0, 1)
    )
    table = "scaled/own/table"
    np.testing.assert_array_equal(new[table], again[table])
    assert np.all(new[table] != other[table])
    assert np.all(new[table] != ticket.weights[table])
    # Adapted statistics are kept.
    np.testing.assert_array_equal(new["scaled/n/mean"], [2, 3, 4, 5])


def test_unsupported_reinitialization_is_refused_by_name():
    sparse = scaled_network(5)
    with pytest.raises(ValueError, match="scaled/own/table.*fixed seed"):
        sanity.reinitialize(random_ticket(sparse), sparse, seed=0)

    class NoConfig(Scaled):
        def get_config(self):
            raise NotImplementedError("no config.")

    model = keras.Sequential([keras.Input((4,)), NoConfig(name="own")])
    sparse = gems.SparseModel(model)
    ticket = random_ticket(sparse)
    with pytest.raises(ValueError, match="own' of type NoConfig.*no config"):
        sanity.reinitialize(ticket, sparse, seed=0)
    with pytest.raises(ValueError, match="only be used with the network"):
        sanity.reinitialize(ticket, models.dense_network(), seed=0)


def test_shuffled_masks_keep_their_counts(tmp_path):
    sparse = gems.SparseModel(models.image_network(), seed=0)
    ticket = methods.Magnitude(0.7).find(sparse)
    counts = [row["kept"] for row in ticket.layers()]
    masks = []
    for seed in range(3):
        shuffled = sanity.shuffle(ticket, seed=seed)
        assert [row["kept"] for row in shuffled.layers()] == counts
        for path, weight in ticket.weights.items():
            np.testing.assert_array_equal(shuffled.weights[path], weight)
        random = sanity.randomize(ticket, sparse, seed=seed)
        assert [row["kept"] for row in random.layers()] == counts
        masks += [
            np.concatenate([m.ravel() for m in t.masks.values()])
            for t in (shuffled, random)
        ]
    masks.append(np.concatenate([m.ravel() for m in ticket.masks.values()]))
    # The random ticket has the shuffled masks of its seed. All other masks
    # differ, and magnitudes have no effect.
    agreement = np.mean([[np.mean(a == b) for a in masks] for b in masks], 0)
    assert len({m.tobytes() for m in masks}) == 4
    assert agreement.max() < 0.8

    # A file does not hold pruned weights, but the model does.
    ticket.save(tmp_path / "ticket.gem")
    loaded = gems.Ticket.load(tmp_path / "ticket.gem")
    with pytest.raises(ValueError, match="weights that the ticket prunes"):
        sanity.shuffle(loaded, seed=0)
    whole, expected = (
        sanity.shuffle(loaded, sparse, seed=0),
        sanity.shuffle(ticket, seed=0),
    )
    for path, weight in expected.weights.items():
        np.testing.assert_array_equal(whole.weights[path], weight)
    again = sanity.randomize(loaded, sparse, seed=0)
    for path, mask in expected.masks.items():
        np.testing.assert_array_equal(whole.masks[path], mask)
        np.testing.assert_array_equal(again.masks[path], mask)


def test_every_entry_is_kept_equally_often():
    mask = np.arange(40).reshape(8, 5) < 10
    ticket = gems.Ticket({"w": mask}, {"w": np.ones((8, 5))})
    mean = np.mean(
        [sanity.shuffle(ticket, seed=s).masks["w"] for s in range(800)], axis=0
    )
    assert np.abs(mean - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 800)


def test_shuffled_ticket_keeps_pattern():
    sparse = gems.SparseModel(models.dense_network(), seed=0)
    for pattern in ("2:4", "2x1"):
        finder = methods.Magnitude(0.5, pattern=pattern)
        ticket = finder.find(sparse)
        shuffled = sanity.shuffle(ticket, seed=0)
        assert shuffled.kept == ticket.kept
        for mask in shuffled.masks.values():
            assert finder.pattern.matches(mask)
        assert any(
            np.any(mask != ticket.masks[path])
            for path, mask in shuffled.masks.items()
        )


def test_inverted_methods_keep_the_smallest():
    sparse = gems.SparseModel(models.dense_network(), seed=0)
    inverted = methods.Inverted(methods.Magnitude(0.6, "uniform"))
    ticket = inverted.find(sparse)
    for path, mask in ticket.masks.items():
        weight = np.abs(ticket.weights[path])
        assert weight[mask].max() <= weight[~mask].min()
        assert mask.sum() == round(0.4 * mask.size)
    copy = methods.get(ticket.metadata["method"])
    assert isinstance(copy, methods.Inverted)
    assert copy.get_config() == inverted.get_config()
    for method in (methods.GemMiner(0.9), methods.SynFlow(0.9)):
        with pytest.raises(ValueError, match=type(method).__name__):
            methods.Inverted(method)
    with pytest.raises(ValueError, match="method='snip'"):
        methods.Inverted("snip")


SIGNAL = 4


def batches(random):
    return np.split(random.permutation(600), 6)


def forward(weights, x):
    kernel, bias, last, offset = weights
    hidden = np.maximum(x @ kernel + bias, 0)
    return hidden, hidden @ last + offset


def gradients(weights, x, y):
    """Returns the gradients of the mean cross-entropy."""
    hidden, logits = forward(weights, x)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    slope = (odds / odds.sum(1, keepdims=True) - np.eye(2)[y]) / len(y)
    back = (slope @ weights[2].T) * (hidden > 0)
    return x.T @ back, back.sum(0), hidden.T @ slope, slope.sum(0)


def planted(signal):
    """Returns a task whose first inputs hold the signal, and its network."""
    random = np.random.default_rng(0)
    x = random.normal(size=(1200, 40)).astype("float32")
    y = (x[:, :signal].sum(axis=1) > 0).astype("int32")
    network = keras.Sequential(
        [
            keras.Input((40,)),
            layers.Dense(8, "relu", name="hidden"),
            layers.Dense(2, name="output"),
        ]
    )
    sparse = gems.SparseModel(network, seed=0)

    def fit(ticket, seed):
        """Trains with momentum in NumPy. The checks need no Keras model."""
        random = np.random.default_rng(seed)
        weights = [v.astype("float64") for v in ticket.weights.values()]
        masks = [ticket.masks.get(path, 1.0) for path in ticket.weights]
        weights = [v * m for v, m in zip(weights, masks, strict=True)]
        velocity = [np.zeros_like(v) for v in weights]
        for batch in [b for _ in range(12) for b in batches(random)]:
            slopes = gradients(weights, x[batch], y[batch])
            for v, g, m, k in zip(
                velocity, slopes, masks, range(4), strict=True
            ):
                v[:] = 0.9 * v - 0.1 * g * m
                weights[k] = weights[k] + v
        return weights

    def evaluate(weights):
        _, logits = forward(weights, x[600:])
        return np.mean(logits.argmax(axis=1) == y[600:])

    return sparse, fit, evaluate


def ticket_of(sparse, hidden):
    """Keeps some weights of the first layer and all of the second layer."""
    return gems.Ticket.from_masks(sparse, [hidden, np.ones((8, 2), bool)])


def test_relevant_and_irrelevant_masks(capsys, tmp_path):
    sparse, fit, evaluate = planted(SIGNAL)
    signal = np.broadcast_to(np.arange(40)[:, None] < SIGNAL, (40, 8)).copy()
    noise = np.roll(signal, SIGNAL, axis=0)
    report = sanity.check(
        ticket_of(sparse, signal),
        fit,
        evaluate,
        model=sparse,
        inverted=ticket_of(sparse, noise),
        verbose=1,
    )
    assert report.mask == "specific"
    # Any weights learn this task, so only the mask matters.
    assert report.weights != "specific"
    means = {k: np.mean(v) for k, v in report.accuracies.items()}
    assert means["ticket"] > 0.9 and means["inverted"] < 0.6
    assert means["ticket"] > means["shuffled"] + 0.05
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 15 and lines[0].startswith("ticket         seed 0: ")
    report.draw(tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 1000

    # If all inputs matter equally, all random masks are equally good.
    sparse, fit, evaluate = planted(40)
    random = np.random.default_rng(1).permuted(signal)
    report = sanity.check(ticket_of(sparse, random), fit, evaluate)
    assert report.mask in ("only its layer densities", "undecided")
    assert report.weights is None
    assert set(report.accuracies) == {"ticket", "shuffled"}


def test_interval_matches_welch():
    # scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    a, b = [0.90, 0.92, 0.91], [0.80, 0.86, 0.81, 0.83]
    difference, low, high = sanity.SanityReport(
        {"ticket": a, "random": b}
    ).difference("random")
    np.testing.assert_allclose(difference, 0.085)
    np.testing.assert_allclose([low, high], [0.04505159, 0.12494841], rtol=1e-5)


@pytest.mark.parametrize(
    "ticket, other, mask",
    [
        ([0.83, 0.84, 0.83], [0.78, 0.79, 0.78], "specific"),
        ([0.83, 0.84, 0.83], [0.832, 0.838, 0.83], "only its layer densities"),
        ([0.70, 0.71, 0.70], [0.80, 0.81, 0.80], "only its layer densities"),
        ([0.80, 0.90, 0.85], [0.80, 0.82, 0.81], "undecided"),
        ([0.9], [0.1], "undecided"),
        ([0.5, 0.5], [0.5, 0.5], "only its layer densities"),
    ],
)
def test_verdicts(ticket, other, mask):
    report = sanity.SanityReport({"ticket": ticket, "shuffled": other})
    assert report.mask == mask
    assert report.weights is None
    weights = sanity.SanityReport(
        {"ticket": ticket, "reinitialized": other}
    ).weights
    assert weights == mask.replace("its layer densities", "their distribution")
    row = report.to_dict()["branches"]["shuffled"]
    assert row["accuracies"] == other
    assert (row["interval"] is None) == (len(other) == 1)


def test_report_as_text():
    report = sanity.SanityReport(
        {"ticket": [0.83, 0.84], "shuffled": [0.5, 0.52], "random": [0.4]}
    )
    text = report.render()
    lines = text.splitlines()
    assert "The mask is specific: the ticket is +32.50 points from" in text
    assert "Against random: the ticket is +43.50 points" in text
    assert "a single run has no spread" in text
    assert ["ticket", "2", "83.50%", "0.71%"] in map(str.split, lines)
    assert str(report) == text


@pytest.mark.parametrize(
    "accuracies, message",
    [
        ({"shuffled": [0.5]}, "with the key 'ticket'.*shuffled"),
        ({"ticket": [0.5], "shufled": [0.5]}, "Received.*shufled"),
        ({"ticket": [83.0]}, "'ticket'.*at most 1.*83"),
        ({"ticket": [float("nan")]}, "Received"),
        ({"ticket": []}, "Received"),
    ],
)
def test_invalid_accuracies_are_refused(accuracies, message):
    with pytest.raises(ValueError, match=message):
        sanity.SanityReport(accuracies)
