"""Compares rounds of training and pruning with NumPy."""

import keras
import numpy as np
import pytest
from interruption import Interrupted
from keras import layers

import tf_gems as gems
from tf_gems import methods
from tf_gems.methods import RewindPoint

RATE, MOMENTUM = 0.1, 0.9
random = np.random.default_rng(0)
DATA = [
    (
        random.normal(size=(8, 5)).astype("float32"),
        random.normal(size=(8, 3)).astype("float32"),
    )
    for _ in range(4)
]


def network(deep=False, **settings):
    keras.utils.set_random_seed(0)
    more = [layers.BatchNormalization(), layers.Dropout(0.2)] if deep else []
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(10, activation="relu", name="first"),
            *more,
            layers.Dense(3, name="last"),
        ]
    )
    sparse = gems.SparseModel(model, seed=0)
    optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM)
    sparse.compile(optimizer, "mse", **settings)
    return sparse


def train_by_hand(weights, masks, epochs, rates, snapshot_at=None):
    """Momentum on the mean squared error of `relu(x V + a) W + b`."""
    v, a, w, b = (value.astype("float64") for value in weights)
    velocity = [np.zeros_like(value) for value in (v, a, w, b)]
    step, snapshot = 0, None
    for x, y in DATA * epochs:
        if step == snapshot_at:
            snapshot = [v, a, w, b]
        first, last = v * masks[0], w * masks[1]
        hidden = np.maximum(x @ first + a, 0)
        slope = 2 * (hidden @ last + b - y) / y.size
        back = (slope @ last.T) * (hidden > 0)
        gradients = [
            (x.T @ back) * masks[0],
            back.sum(0),
            (hidden.T @ slope) * masks[1],
            slope.sum(0),
        ]
        velocity = [
            MOMENTUM * m - rates(step) * g
            for m, g in zip(velocity, gradients, strict=True)
        ]
        v, a, w, b = (
            p + m for p, m in zip((v, a, w, b), velocity, strict=True)
        )
        step += 1
    return [v, a, w, b], snapshot


def search_by_hand(weights, counts, epochs, rates, rewind_steps):
    """Returns the masks of every round and the weights of the last ticket."""
    masks = [np.ones(weights[0].shape), np.ones(weights[2].shape)]
    found, start = [], weights
    for number, count in enumerate(counts):
        weights, snapshot = train_by_hand(
            weights, masks, epochs, rates, rewind_steps
        )
        sizes = np.concatenate(
            [
                np.where(m, np.abs(w), -1).ravel()
                for m, w in zip(masks, weights[::2], strict=True)
            ]
        )
        flat = np.zeros(sizes.size)
        flat[np.argsort(-sizes)[:count]] = 1
        split = masks[0].size
        masks = [
            part.reshape(m.shape)
            for part, m in zip(np.split(flat, [split]), masks, strict=True)
        ]
        found.append(masks)
        if rewind_steps is not None:
            start = snapshot if number == 0 else start
            weights = start
    weights[0] = weights[0] * masks[0]
    weights[2] = weights[2] * masks[1]
    return found, weights


def constant(step):
    return RATE


def cosine(step):
    return 0.2 * (1 + np.cos(np.pi * step / 8)) / 2


@pytest.mark.parametrize(
    "name, rewind_steps, rates",
    [
        ("imp", 0, constant),
        ("imp", 5, cosine),
        ("lr_rewinding", None, cosine),
    ],
)
def test_golden_three_rounds(name, rewind_steps, rates, tmp_path):
    sparse = network()
    start = [v.numpy() for v in gems.network.network_weights(sparse)]
    arguments = {"rounds": 3, "epochs": 2, "distribution": "global"}
    if rates is cosine:
        arguments["learning_rate"] = 0.2
    if rewind_steps is not None:
        arguments["rewind_steps"] = rewind_steps
    method = methods.get(name, target_sparsity=0.7, **arguments)
    assert method.epochs_of_search == 6
    ticket = method.find(sparse, DATA, directory=tmp_path)

    # 80 weights: 80 * 0.3 ** (1/3), 80 * 0.3 ** (2/3) and 80 * 0.3.
    counts = [54, 36, 24]
    masks, weights = search_by_hand(start, counts, 2, rates, rewind_steps)
    rounds = [gems.Ticket.load(tmp_path / f"round_{i}.gem") for i in (1, 2, 3)]
    assert [r.kept for r in rounds] == counts
    for expected, found in zip(masks, [*rounds[:2], ticket], strict=True):
        for a, b in zip(expected, found.masks.values(), strict=True):
            np.testing.assert_array_equal(a, b)
    ticket.apply(sparse)
    for expected, variable in zip(
        weights, gems.network.network_weights(sparse), strict=True
    ):
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-5)
    # The masks depend on training: those of the initial weights differ.
    one_shot = methods.Magnitude(0.7, "global").find(network())
    assert any(
        (a != b).any()
        for a, b in zip(
            ticket.masks.values(), one_shot.masks.values(), strict=True
        )
    )
    backups = [p.name for p in tmp_path.iterdir()]
    rewind = ["rewind.gem"] if name == "imp" else []
    assert sorted(backups) == rewind + [f"round_{i}.gem" for i in (1, 2, 3)]


def same(ticket, other):
    for a, b in ((ticket.masks, other.masks), (ticket.weights, other.weights)):
        for x, y in zip(a.values(), b.values(), strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "name", ["imp", pytest.param("lr_rewinding", marks=pytest.mark.slow)]
)
def test_interrupted_search_resumes(name, tmp_path):
    more = {"rewind_steps": 6} if name == "imp" else {}
    method = methods.get(
        name,
        target_sparsity=0.8,
        epochs=3,
        rounds=2,
        learning_rate=0.1,
        **more,
    )
    whole = method.find(network(deep=True, run_eagerly=True), DATA)
    # Rounds of 12 batches. Reading fails after about 10.
    stops, ticket = [], None
    while ticket is None and len(stops) < 9:
        sparse = network(deep=True, run_eagerly=True)
        try:
            data = Interrupted(DATA, 10)
            ticket = method.find(sparse, data, directory=tmp_path)
        except Exception as error:
            assert "Simulated interruption" in str(error)
            stops.append({path.name for path in tmp_path.iterdir()})
    assert any("round_2" in names for names in stops)  # The backup of a round.
    same(ticket, whole)
    # A later `fit` does not start at the epoch of the resumed one.
    sparse.compile("sgd", "mse")
    assert len(sparse.fit(*DATA[0], epochs=2, verbose=0).epoch) == 2
    # A finished search is not trained again, and reads no batch.
    again = Interrupted(DATA, 0)
    same(method.find(network(deep=True), again, directory=tmp_path), whole)


def test_directory_belongs_to_one_search(tmp_path):
    method = methods.IterativeMagnitude(0.5, epochs=1, rounds=1)
    method.find(network(), DATA, directory=tmp_path)
    other = methods.get(method, target_sparsity=0.6)
    with pytest.raises(ValueError, match="one search.*Choose another"):
        other.find(network(), DATA, directory=tmp_path)


def test_impossible_last_round_is_refused_before_first():
    method = methods.IterativeMagnitude(0.5, 1, rounds=2, pattern="2:4")
    method.find(network(), DATA[:1])
    for distribution in ({"last": 0.1}, "smart_ratio"):
        other = methods.get(
            method, target_sparsity=0.9, distribution=distribution
        )
        with pytest.raises(
            ValueError, match="distribution|Smart ratio|given sparsities"
        ):
            other.find(network(), Interrupted(DATA, 0))


def test_rounds_are_derived_from_rate():
    assert methods.IterativeMagnitude(0.2).rounds == 1
    assert methods.IterativeMagnitude(0.36).rounds == 2
    assert methods.IterativeMagnitude(0.9856).rounds == 19  # The papers' rate.
    assert methods.IterativeMagnitude(0.98, rate=0.5).rounds == 6
    assert methods.IterativeMagnitude(0.98, rounds=4).rounds == 4
    assert methods.IterativeMagnitude(0.0).rounds == 1
    other = methods.get(methods.LearningRateRewinding(0.36), rate=0.36)
    assert other.rounds == 1


def test_several_steps_in_one_execution():
    sparse = network(steps_per_execution=2)
    point = RewindPoint(3)
    sparse.start_finetuning(methods.Magnitude(0.5).find(sparse))
    sparse.compile("sgd", "mse", steps_per_execution=2)
    weights = []
    read = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: weights.append(
            np.array(sparse.model.get_layer("last").kernel)
        )
    )
    x, y = (np.concatenate(part) for part in zip(*DATA, strict=True))
    sparse.fit(x, y, batch_size=8, epochs=1, callbacks=[point, read], verbose=0)
    taken = [
        value
        for path, value in point.ticket.weights.items()
        if "last/k" in path
    ]
    # After the fourth step, the end of the second execution.
    np.testing.assert_array_equal(taken[0], weights[1])
    assert (weights[0] != weights[1]).any()


def test_out_of_range_arguments_are_refused():
    for arguments, message in [
        ({"rate": 0}, "`rate`.*Received: rate=0"),
        ({"rate": 1.0}, "rate=1.0"),
        ({"rounds": 0}, "rounds=0"),
        ({"rewind_steps": -1}, "rewind_steps=-1"),
        ({"rewind_steps": 0.5}, "rewind_steps=0.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            methods.IterativeMagnitude(0.9, **arguments)
    late = methods.IterativeMagnitude(0.5, epochs=2, rounds=1, rewind_steps=9)
    with pytest.raises(ValueError, match="rewind_steps=9.*of 8 steps"):
        late.find(network(), DATA)
    with pytest.raises(NotImplementedError, match="Call `find`"):
        late.callback()
