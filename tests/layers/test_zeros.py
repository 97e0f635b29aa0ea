"""Tests that a ticket keeps no weight that is zero before pruning."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_gems as gems
from tests.models import dense_data
from tests.models import mine
from tf_gems import methods
from tf_gems.layers.zeros import nonzero


def network(zeros=0.8, seed=0):
    """A network in which some weights are zero."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(40, "tanh", kernel_initializer="he_normal"),
            layers.Dense(3),
        ]
    )
    generator = np.random.default_rng(seed)
    for kernel in (layer.kernel for layer in model.layers):
        value = generator.normal(size=kernel.shape)
        cut = np.quantile(abs(value), zeros)
        kernel.assign(np.where(abs(value) > cut, value, 0.0))
    return model


def zeros_kept(ticket):
    return sum(
        int(np.sum(mask & (ticket.weights[path] == 0)))
        for path, mask in ticket.masks.items()
    )


def compiled(model):
    sparse = gems.SparseModel(model, seed=0)
    sparse.compile(keras.optimizers.SGD(0.1), "mse")
    return sparse


ARGUMENTS = {
    "gem_miner": {"epochs": 3, "freeze_period": 1},
    "edge_popup": {"epochs": 2},
    "gradual_magnitude": {"epochs": 3},
    "imp": {"epochs": 1, "rounds": 3},
    "lr_rewinding": {"epochs": 1, "rounds": 3},
    "rigl": {"epochs": 1, "update_period": 50},
    "set": {"epochs": 1, "update_period": 50},
}


@pytest.mark.parametrize("name", sorted({*methods.METHODS} - {"acdc"}))
def test_methods_do_not_keep_zeros(name):
    if keras.backend.backend() not in ("tensorflow", "jax"):
        pytest.skip("needs gradients")
    sparse = compiled(network())
    method = methods.get(name, target_sparsity=0.9, **ARGUMENTS.get(name, {}))
    ticket = method.find(sparse, 4 * [dense_data()], verbose=0)
    assert ticket.kept == round(0.1 * ticket.size)
    assert zeros_kept(ticket) == 0


def test_dense_phases_need_a_dense_network():
    method = methods.ACDC(0.9, epochs=2)
    with pytest.raises(ValueError, match="must start from a dense"):
        method.find(compiled(network()), dense_data(), verbose=0)


@pytest.mark.parametrize("distribution", ["uniform", "erk", "global"])
def test_layers_with_few_weights_pass_on_their_share(distribution):
    for method in (
        methods.Magnitude(0.9, distribution),
        methods.GradualMagnitude(0.9, epochs=3, distribution=distribution),
    ):
        model = network()
        kernel = model.layers[1].kernel
        value = np.array(kernel)
        value[8:] = 0.0  # This layer has few nonzero weights.
        kernel.assign(value)
        ticket = method.find(compiled(model), dense_data(), verbose=0)
        assert ticket.kept == round(0.1 * ticket.size)
        assert zeros_kept(ticket) == 0


def test_target_below_current_sparsity_is_refused():
    for method in (methods.Magnitude(0.5), methods.GemMiner(0.5, epochs=2)):
        sparse = compiled(network())
        with pytest.raises(ValueError, match="0.5.*already zero or frozen"):
            method.find(sparse, dense_data(), verbose=0)
    with pytest.raises(ValueError, match="Use a target of 0.8"):
        mine(gems.SparseModel(network()), *dense_data(), target_sparsity=0.5)


def test_second_mining_with_lower_target_is_refused():
    sparse = gems.SparseModel(network(0.0), seed=0)
    mine(sparse, *dense_data(), target_sparsity=0.8)
    with pytest.raises(ValueError, match="stay pruned"):
        mine(sparse, *dense_data(), target_sparsity=0.8)
    with pytest.raises(ValueError, match="which keeps 180 weights"):
        mine(sparse, *dense_data(), target_sparsity=0.5)


def test_density_counts_nonzero_weights():
    sparse = gems.SparseModel(network(0.8))
    sparse.gem.set_phase("finetuning")
    assert sparse.density == pytest.approx(0.2, abs=0.01)
    with pytest.raises(RuntimeError, match="no ticket before mining"):
        gems.SparseModel(network(0.8)).ticket()


def test_zeros_stay_zero_during_training():
    model = network()
    before = [np.array(layer.kernel) for layer in model.layers]
    sparse = gems.SparseModel(model, phase="finetuning")
    sparse.compile(keras.optimizers.SGD(0.1), "mse")
    sparse.fit(*dense_data(), verbose=0)
    masks = [np.array(mask) for mask in sparse.gem.masks()]
    for mask, value in zip(masks, before, strict=True):
        np.testing.assert_array_equal(mask != 0, value != 0)


def test_initializer_zeros_are_not_pruned():
    """A zero initializer, an identity and reinitialized kernels."""
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            layers.SimpleRNN(6, recurrent_initializer="identity"),
            layers.Dense(3, kernel_initializer="zeros"),
        ]
    )
    assert gems.SparseModel(model, phase="finetuning").density == 1.0
    drawn = gems.SparseModel(
        network(), kernel_initializer="signed_constant", seed=0
    )
    assert drawn.gem.count_alive() == drawn.gem.size


def test_sparse_model_file_round_trip(tmp_path):
    sparse = gems.SparseModel(network(0.8), phase="finetuning")
    sparse.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.density == sparse.density


def test_counted_entries():
    cases = {
        "dense": (np.ones((2, 3)), np.ones((2, 3))),
        "zero": (np.zeros((2, 3)), np.ones((2, 3))),
        "identity": (3 * np.eye(3), np.ones((3, 3))),
        "diagonal": (np.diag([1.0, 2.0, 0.0]), np.diag([1, 1, 0])),
        "part": (np.array([[1.0, 0.0]]), np.array([[1, 0]])),
    }
    for value, expected in cases.values():
        found = nonzero(keras.Variable(value.astype("float32")))
        np.testing.assert_array_equal(found, expected.astype(bool))
