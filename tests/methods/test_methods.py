"""Tests properties of every registered method."""

import keras
import models
import numpy as np
import pytest
from interruption import Interrupted
from keras import layers
from keras import ops

import tf_gems as gems
from tf_gems import methods
from tf_gems.selection import distributions

SPARSITY = 0.8
SETTINGS = {
    "edge_popup": {"epochs": 2, "learning_rate": 0.1},
    "gem_miner": {"epochs": 3, "freeze_period": 1, "learning_rate": 0.1},
    "acdc": {"epochs": 3, "learning_rate": 0.1},
    "gradual_magnitude": {"epochs": 3, "learning_rate": 0.1},
    "imp": {"epochs": 1, "rounds": 2, "rewind_steps": 1},
    "lr_rewinding": {"epochs": 1, "rounds": 2, "learning_rate": 0.1},
    "prospr": {"steps": 1, "learning_rate": 0.01},
    "rigl": {"epochs": 3, "update_period": 1, "learning_rate": 0.1},
    "set": {"epochs": 3, "update_period": 1, "learning_rate": 0.1},
    "snip": {"batches": 2},
    "synflow": {"rounds": 3},
}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
DISTRIBUTIONS = [
    *("global", "uniform", "erk", "lamp", "layer_normalized", "smart_ratio"),
    {"output": 0.5},
]
REFUSED = {"edge_popup": DISTRIBUTIONS[2:]}

random = np.random.default_rng(0)
DATA = [
    (random.normal(size=(8, 6, 6, 2)).astype("float32"), np.arange(8) % 3),
    (random.normal(size=(8, 6, 6, 2)).astype("float32"), np.arange(8) % 3),
]


def network(seed=0, run_eagerly=False):
    """A network with every kind of layer.

    Args:
        seed: Integer, random seed.
        run_eagerly: Boolean, for trainings of so few steps that compiling would
            take most of the time.
    """
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(8, 3, activation="relu", name="stem"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(12, activation="relu", name="hidden"),
            layers.Dense(3, name="output"),
        ],
        name="network",
    )
    sparse = gems.SparseModel(model, seed=0)
    sparse.compile("sgd", LOSS, run_eagerly=run_eagerly)
    return sparse


def method(name, **arguments):
    settings = {"target_sparsity": SPARSITY, **SETTINGS.get(name, {})}
    return methods.get(name, **{**settings, **arguments})


def arrays(variables):
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def each_distribution():
    """Yields names and distributions, one of each kind for training methods."""
    for name, kind in methods.METHODS.items():
        trains, refused = issubclass(kind, methods.Trained), REFUSED.get(name)
        for chosen in DISTRIBUTIONS:
            marks = []
            if trains and chosen in DISTRIBUTIONS[1:-1] and not refused:
                if chosen not in ("lamp", "smart_ratio"):
                    continue
                marks = [pytest.mark.slow]
            yield pytest.param(name, chosen, marks=marks, id=f"{name}-{chosen}")


@pytest.mark.parametrize("name, chosen", each_distribution())
def test_exact_counts(name, chosen):
    if chosen in REFUSED.get(name, []):
        with pytest.raises(ValueError, match="Received: distribution="):
            method(name, distribution=chosen)
        return
    sparse = network(run_eagerly=True)
    ticket = method(name, distribution=chosen).find(sparse, DATA)
    shapes = [w.weight.shape for w in sparse.gem.prunable]
    paths = [w.path for w in sparse.gem.prunable]
    density = 1 - SPARSITY
    assert ticket.kept == round(density * ticket.size)
    counts = distributions.get(chosen)(shapes, density, paths)
    if counts is not None:
        assert [row["kept"] for row in ticket.layers()] == counts


@pytest.mark.parametrize("name", methods.METHODS)
def test_same_seed_gives_same_ticket_and_model_is_unchanged(name, tmp_path):
    sparse = network(run_eagerly=True)
    before = arrays(sparse.weights)
    trainable = [v.trainable for v in sparse.weights]
    finder = method(name)
    ticket = finder.find(sparse, DATA)
    if not isinstance(finder, methods.Trained):
        for variable, value in zip(sparse.weights, before, strict=True):
            np.testing.assert_array_equal(arrays([variable])[0], value)
        assert [v.trainable for v in sparse.weights] == trainable
        assert sparse.phase == "mining" and sparse.compiled
        assert not sparse.losses

    # The file records the method, and that method finds the ticket again.
    ticket.save(tmp_path / "ticket.gem")
    loaded = gems.Ticket.load(tmp_path / "ticket.gem")
    copy = methods.get(loaded.metadata["method"])
    assert type(copy) is type(finder)
    assert copy.get_config() == finder.get_config()
    again = copy.find(network(run_eagerly=True), DATA)
    for path, mask in loaded.masks.items():
        np.testing.assert_array_equal(again.masks[path], mask)

    sparse.start_finetuning(ticket)
    np.testing.assert_allclose(sparse.density, ticket.density)
    sparse.compile("sgd", LOSS, run_eagerly=True)
    assert np.isfinite(sparse.train_on_batch(*DATA[0]))
    assert sparse.ticket().kept == ticket.kept


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_layer_is_alive(name):
    finder = method(name, target_sparsity=0.98, distribution="global")
    ticket = finder.find(network(), DATA)
    kept = [row["kept"] for row in ticket.layers()]
    assert min(kept) >= 1 and sum(kept) == round(0.02 * ticket.size)


@pytest.mark.parametrize(
    "name",
    [n for n, m in methods.METHODS.items() if issubclass(m, methods.Trained)],
)
def test_interrupted_search_resumes(name, tmp_path):
    whole = method(name).find(network(run_eagerly=True), DATA)
    stops, ticket = 0, None
    reads = 9 if name == "rigl" else 5  # This also reads batches.
    while ticket is None and stops < 9:
        try:
            ticket = method(name).find(
                network(run_eagerly=True),
                Interrupted(DATA, reads),
                directory=tmp_path,
            )
        except Exception as error:
            assert "Simulated interruption" in str(error)
            stops += 1
    assert stops
    for a, b in ((ticket.masks, whole.masks), (ticket.weights, whole.weights)):
        for x, y in zip(a.values(), b.values(), strict=True):
            np.testing.assert_array_equal(x, y)


def test_frozen_layers_stay_frozen():
    sparse = network()
    sparse.start_finetuning(method("random").find(sparse))
    sparse.compile("sgd", LOSS)
    hidden = sparse.model.get_layer("hidden")
    hidden.bias.trainable = False
    method("snip").find(sparse, DATA)
    assert hidden.kernel.trainable and not hidden.bias.trainable
    assert sparse.phase == "finetuning"


@pytest.mark.parametrize("name", ["grasp", "snip", "synflow"])
def test_subclassed_networks(name):
    sparse = gems.SparseModel(models.two_towers(), seed=0)
    sparse.compile("sgd", "mse")
    finder = method(name, **({} if name == "synflow" else {"batches": 1}))
    data = models.two_towers_data()
    assert all(np.any(s > 0) for s in finder.scores(sparse, data))
    assert finder.find(sparse, data).kept == round((1 - SPARSITY) * 40)


def test_random_pruning():
    sparse = network()

    def masks(**arguments):
        found = method("random", **arguments).find(sparse).masks.values()
        return np.concatenate([mask.ravel() for mask in found])

    assert (masks(seed=0) != masks(seed=1)).any()
    # Every weight is kept with the same probability.
    mean = np.mean([masks(seed=s) for s in range(100)], axis=0)
    deviation = np.sqrt(SPARSITY * (1 - SPARSITY) / 100)
    assert np.abs(mean - (1 - SPARSITY)).max() < 5 * deviation


def test_magnitude():
    sparse = network()
    ticket = methods.Magnitude(SPARSITY, "global").find(sparse)
    kept, cut = [], []
    for path, mask in ticket.masks.items():
        weight = np.abs(ticket.weights[path])
        kept.append(weight[mask])
        cut.append(weight[~mask])
    assert np.concatenate(kept).min() >= np.concatenate(cut).max()


class First(methods.Method):
    """A user's method."""

    def scores(self, model, data):
        shapes = [w.weight.shape for w in model.gem.prunable]
        return [np.zeros(shape) for shape in shapes]


def test_custom_method_breaks_ties_by_index():
    own = methods.get(First(0.98, distributions.Global(minimum=0)))
    [mask, *others] = own.find(network()).masks.values()
    flat = np.concatenate([m.ravel() for m in (mask, *others)])
    assert flat[: flat.sum()].all()


def test_get():
    snip = methods.get("snip", target_sparsity=0.9, batches=3)
    assert methods.get(snip) is snip
    other = methods.get(snip, target_sparsity=0.5, distribution="erk")
    assert (other.target_sparsity, other.batches) == (0.5, 3)
    assert isinstance(other.distribution, distributions.ErdosRenyiKernel)
    assert snip.target_sparsity == 0.9


@pytest.mark.parametrize(
    "identifier, message",
    [
        ("synflw", "method='synflw'. Did you mean 'synflow'"),
        (None, "`method` must be a name, a config or an instance"),
        (distributions.Global(), "`method` must be a name"),
    ],
)
def test_get_refuses(identifier, message):
    with pytest.raises(ValueError, match=message):
        methods.get(identifier)


def test_wrong_arguments_are_refused():
    for build, message in [
        (
            lambda: methods.Magnitude(98),
            "target_sparsity=98.*Did you mean 0.98",
        ),
        (lambda: methods.Snip(0.9, batches=0), "batches=0"),
        (lambda: methods.Grasp(0.9, temperature=0), "temperature=0"),
        (lambda: methods.SynFlow(0.9, rounds=0), "rounds=0"),
        (lambda: methods.Magnitude(0.9, "layer"), "distribution='layer'"),
    ]:
        with pytest.raises(ValueError, match=message):
            build()


def test_missing_requirements_are_named():
    sparse = network()
    snip = methods.Snip(0.5, batches=3)
    with pytest.raises(ValueError, match="requires data. Received: data=None"):
        snip.find(sparse)
    with pytest.raises(ValueError, match="2 batches, for batches=3"):
        snip.find(sparse, DATA)
    sparse.compiled = False
    with pytest.raises(ValueError, match="'sparse_model.*Call `compile`"):
        snip.find(sparse, DATA)
    with pytest.raises(ValueError, match="'network' of type Sequential.*Wrap"):
        methods.Magnitude(0.5).find(sparse.model)


def test_synflow_names_layer_without_flow():
    inputs = keras.Input((None, 3))
    x = layers.GlobalAveragePooling1D()(layers.Dense(4)(inputs))
    outputs = keras.activations.softmax(layers.Dense(2)(x))
    sparse = gems.SparseModel(keras.Model(inputs, outputs, name="net"), seed=0)
    synflow = methods.SynFlow(0.5, rounds=1)
    with pytest.raises(ValueError, match="shape.*'sparse_model.*None.*`data`"):
        synflow.find(sparse)
    with pytest.raises(ValueError, match="flow.*in round 1.*softmax"):
        synflow.find(sparse, (np.zeros((7, 5, 3)), np.zeros((7, 2))))
