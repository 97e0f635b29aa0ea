import math

import keras
import numpy as np
import pytest
from keras import ops

import tf_gems as gems

SIZE = 3 * 3 * 1 * 4 + 4 * 6 + 6 * 3


def network(hidden=6):
    return keras.Sequential(
        [
            keras.Input((5, 5, 1)),
            keras.layers.Conv2D(4, 3, name="stem"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(hidden, activation="tanh", name="hidden"),
            keras.layers.Dense(3, name="output"),
        ],
        name="network",
    )


def read(variable):
    return np.array(ops.convert_to_numpy(variable))


def predict(model):
    x = np.random.default_rng(1).normal(size=(9, 5, 5, 1)).astype("float32")
    return read(model(x, training=False))


@pytest.fixture(scope="module")
def ticket():
    """A random ticket of a network with noninitial weights."""
    keras.utils.set_random_seed(11)
    sparse = gems.SparseModel(network(), seed=0)
    random = np.random.default_rng(2)
    for variable in sparse.model.weights:
        variable.assign(0.5 + random.random(variable.shape))
    return gems.methods.RandomPruning(0.7, seed=3).find(sparse)


def outputs(ticket):
    """Returns the outputs of a network masked by hand."""
    plain = network()
    plain.set_weights(
        [
            value * ticket.masks.get(path, True)
            for path, value in ticket.weights.items()
        ]
    )
    return predict(plain)


def test_counts_and_table(ticket):
    assert ticket.size == SIZE
    assert ticket.kept == round(0.3 * SIZE)
    np.testing.assert_allclose(ticket.density, ticket.kept / SIZE)
    np.testing.assert_allclose(ticket.density + ticket.sparsity, 1)
    layers = ticket.layers()
    assert [row["path"] for row in layers] == list(ticket.masks)
    assert [row["shape"] for row in layers] == [[3, 3, 1, 4], [4, 6], [6, 3]]
    for row, mask in zip(layers, ticket.masks.values(), strict=True):
        assert row["kept"] == mask.sum()
        np.testing.assert_allclose(row["density"], mask.mean())
    table = str(ticket).splitlines()
    assert len(table) == 1 + 3 + 1
    for row, line in zip(layers, table[1:], strict=False):
        assert line.startswith(row["path"])
        assert str(row["kept"]) in line and f"{row['density']:.2%}" in line
    assert f"{SIZE}" in table[-1] and f"{ticket.sparsity:.2%}" not in table[-1]


def test_apply_to_sparse_model(ticket):
    sparse = gems.SparseModel(network(), seed=1)
    sparse.compile("sgd", "mse")
    ticket.apply(sparse)
    assert sparse.phase == "finetuning"
    np.testing.assert_allclose(predict(sparse), outputs(ticket), atol=1e-6)
    np.testing.assert_allclose(sparse.density, ticket.density)
    with pytest.raises(ValueError, match="compile"):
        sparse.fit(np.zeros((2, 5, 5, 1)), np.zeros((2, 3)), verbose=0)
    again = sparse.ticket()
    for path, mask in ticket.masks.items():
        np.testing.assert_array_equal(again.masks[path], mask)
        np.testing.assert_array_equal(
            again.weights[path], ticket.weights[path] * mask
        )
    # A denser ticket may follow, since the previous target is reset.
    dense = gems.methods.RandomPruning(0.1).find(gems.SparseModel(network()))
    sparse.start_finetuning(dense)
    assert sparse.ticket().kept == dense.kept > ticket.kept


def test_apply_to_plain_model(ticket):
    plain = network()
    ticket.apply(plain)
    np.testing.assert_allclose(predict(plain), outputs(ticket), atol=1e-6)
    for variable, (path, value) in zip(
        plain.weights, ticket.weights.items(), strict=True
    ):
        mask = ticket.masks.get(path, True)
        np.testing.assert_array_equal(read(variable), value * mask)


def test_apply_after_save_and_load(ticket, tmp_path):
    ticket.save(tmp_path / "ticket.gem")
    loaded = gems.Ticket.load(tmp_path / "ticket.gem")
    sparse = gems.SparseModel(network(), seed=1)
    loaded.apply(sparse)
    np.testing.assert_allclose(predict(sparse), outputs(ticket), atol=1e-6)


def test_nonfinite_pruned_weight_is_zero(ticket):
    path = list(ticket.masks)[0]
    weights = {**ticket.weights, path: ticket.weights[path].copy()}
    weights[path][~ticket.masks[path]] = np.nan
    plain = network()
    gems.Ticket(ticket.masks, weights).apply(plain)
    np.testing.assert_allclose(predict(plain), outputs(ticket), atol=1e-6)


def test_bfloat16_weights_round_trip(tmp_path):
    layers = [keras.Input((4,)), keras.layers.Dense(5, dtype="bfloat16")]
    sparse = gems.SparseModel(keras.Sequential(layers), seed=0)
    ticket = gems.methods.RandomPruning(0.5).find(sparse)
    ticket.save(tmp_path / "half.gem")
    other = gems.SparseModel(keras.models.clone_model(sparse.model), seed=0)
    gems.Ticket.load(tmp_path / "half.gem").apply(other)
    [kernel] = [w.weight for w in other.gem.prunable]
    assert kernel.dtype == "bfloat16"
    [mask] = ticket.masks.values()
    expected = list(ticket.weights.values())[0].astype("float32") * mask
    np.testing.assert_array_equal(read(ops.cast(kernel, "float32")), expected)


def unchanged(model, ticket, message):
    before = [read(v) for v in model.weights]
    with pytest.raises(ValueError, match=message) as error:
        ticket.apply(model)
    assert "only be used with the network that it was" in str(error.value)
    assert f"model='{model.name}'" in str(error.value)
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(read(variable), value)


def test_other_networks_are_refused(ticket):
    wider = network(hidden=7)
    unchanged(wider, ticket, r"hidden/kernel' of shape \(4, 7\).*\(4, 6\)")
    unchanged(gems.SparseModel(wider, seed=0), ticket, "hidden/kernel")
    deeper = keras.Sequential([network(), keras.layers.Dense(3)])
    unchanged(deeper, ticket, "with 12 weights; the ticket has 10")


def test_other_filters_are_refused(ticket):
    sparse = gems.SparseModel(network(), filters="hidden|output", seed=0)
    unchanged(sparse, ticket, "'network/stem/kernel'.*same `filters`")
    assert sparse.phase == "mining"


def test_model_without_masks_has_no_ticket():
    with pytest.raises(ValueError, match="'network' of type Sequential.*Wrap"):
        gems.Ticket.from_model(network())
    sparse = gems.SparseModel(network(), seed=0)
    with pytest.raises(RuntimeError, match="no ticket before mining"):
        sparse.ticket()
    with pytest.raises(ValueError, match="masks='round'.*'rounded'"):
        sparse.ticket(masks="round")


def test_presets():
    sparse = gems.SparseModel.from_preset("paper", network(), seed=0)
    magnitudes = {
        w.path: np.unique(np.abs(read(w.weight))).size
        for w in sparse.gem.prunable
    }
    assert set(magnitudes.values()) == {1}
    with pytest.raises(ValueError, match="preset='pper'.*Did you mean 'paper'"):
        gems.SparseModel.from_preset("pper", network())
    with pytest.raises(ValueError, match="preset='zzz'. Known: 'paper'"):
        gems.SparseModel.from_preset("zzz", network())


def test_metadata_round_trip_or_are_refused(tmp_path):
    parts = {"k": np.array([True, False])}, {"k": np.ones(2, "float32")}
    path = tmp_path / "ticket.gem"
    assert gems.Ticket(*parts, None).metadata == {}
    given = {
        "loss": np.float32(0.5),
        "epochs": np.int64(3),
        "done": np.bool_(True),
        "curve": np.array([1.0, 2.0]),
        "shape": (2, 3),
        "none": None,
    }
    gems.Ticket(*parts, given).save(path)
    assert gems.Ticket.load(path).metadata == {
        "loss": 0.5,
        "epochs": 3,
        "done": True,
        "curve": [1.0, 2.0],
        "shape": [2, 3],
        "none": None,
    }
    before = path.read_bytes()
    for value in (math.nan, np.float32(np.inf), {1: 2}, object(), b"", 1j):
        ticket = gems.Ticket(*parts, {"results": [0, value]})
        with pytest.raises(ValueError, match="metadata.'results'..1"):
            ticket.save(path)
        assert path.read_bytes() == before


def test_ticket_contains_adapted_statistics():
    x = 10 * np.random.default_rng(0).normal(size=(32, 6)).astype("float32") + 3
    norm = keras.layers.Normalization()
    norm.adapt(x)

    def network(norm):
        parts = [keras.Input((6,)), norm, keras.layers.Dense(3)]
        return keras.Sequential(parts)

    sparse = gems.SparseModel(network(norm), seed=0)
    sparse.start_finetuning(gems.methods.RandomPruning(0.5).find(sparse))
    expected = sparse.predict(x, verbose=0)
    ticket = sparse.ticket()
    other = keras.layers.Normalization()
    other.adapt(np.ones((8, 6)))
    plain, again = network(other), gems.SparseModel(network(other), seed=1)
    ticket.apply(plain)
    ticket.apply(again)
    for model in (ticket.network(), plain, again):
        np.testing.assert_allclose(
            model.predict(x, verbose=0), expected, atol=1e-6
        )


class OwnOptimizer(keras.optimizers.SGD):
    pass


class OwnSchedule(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return self.rate

    def get_config(self):
        return {"rate": self.rate}


def test_methods_train_with_unregistered_optimizers():
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    parts = [keras.Input((4,)), keras.layers.Dense(3)]
    sparse = gems.SparseModel(keras.Sequential(parts), seed=0)
    sparse.compile(
        OwnOptimizer(OwnSchedule(0.1)),
        lambda y, z: keras.ops.mean((y - z) ** 2),
    )
    method = gems.methods.GemMiner(0.5, epochs=4, freeze_period=1)
    ticket = method.find(sparse, (x, x[:, :3]))
    assert ticket.density == 0.5
    assert type(sparse.optimizer) is OwnOptimizer
