"""Compares edge-popup with a NumPy implementation, step by step."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import tf_gems as gems
from tf_gems import methods
from tf_gems.methods import EdgePopupCallback

EPOCHS, BATCHES, BATCH = 6, 3, 16
RATE, MOMENTUM, SPARSITY = 0.1, 0.9, 0.83

random = np.random.default_rng(5)
X = random.normal(size=(BATCHES * BATCH, 9)).astype("float32")
Y = np.argmax(X @ random.normal(size=(9, 4)), axis=1)
WEIGHTS = [
    random.normal(size=(9, 15)).astype("float32"),
    random.normal(size=(15, 4)).astype("float32"),
]
BIASES = [0.3 * random.normal(size=n).astype("float32") for n in (15, 4)]
SIZE = 9 * 15 + 15 * 4
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
DATA = [(X[i : i + BATCH], Y[i : i + BATCH]) for i in range(0, len(X), BATCH)]


def largest(scores, count):
    """Marks the `count` largest magnitudes of one array."""
    order = np.argsort(-np.abs(scores.ravel()), kind="stable")
    mask = np.zeros(scores.size, "float32")
    mask[order[:count]] = 1
    return mask.reshape(scores.shape)


def largest_of_all(scores, count):
    mask = largest(np.concatenate([s.ravel() for s in scores]), count)
    parts = np.split(mask, [scores[0].size])
    return [m.reshape(s.shape) for m, s in zip(parts, scores, strict=True)]


def step(scores, velocity, masks, x, y, penalty):
    """One step of SGD with momentum on the scores of a ReLU network."""
    first, second = [w * m for w, m in zip(WEIGHTS, masks, strict=True)]
    before = x @ first + BIASES[0]
    hidden = np.maximum(before, 0)
    logits = hidden @ second + BIASES[1]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax = powers / powers.sum(axis=1, keepdims=True)
    of_logits = (softmax - np.eye(4)[y]) / len(x)
    of_hidden = (of_logits @ second.T) * (before > 0)
    for i, slope in enumerate([x.T @ of_hidden, hidden.T @ of_logits]):
        # The gradient passes the mask unchanged, and then the magnitude.
        slope = slope * WEIGHTS[i] * np.sign(scores[i])
        slope = slope + 2 * penalty * scores[i]
        velocity[i] = MOMENTUM * velocity[i] - RATE * slope
        scores[i] = (scores[i] + velocity[i]).astype("float32")


class Recorder(keras.callbacks.Callback):
    """Records scores and masks after every step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        parts = gems.network.gems_of(self.model)
        scores = [w.score for part in parts for w in part.prunable]
        masks = [mask for part in parts for mask in part.masks()]
        self.steps.append(
            [
                [np.array(ops.convert_to_numpy(v)) for v in values]
                for values in (scores, masks)
            ]
        )


def network():
    return keras.Sequential(
        [
            keras.Input((9,)),
            layers.Dense(15, activation="relu", name="hidden"),
            layers.Dense(4, name="output"),
        ],
        name="network",
    )


def assign(model):
    found = gems.network.network_weights(model)
    values = [WEIGHTS[0], BIASES[0], WEIGHTS[1], BIASES[1]]
    for variable, value in zip(found, values, strict=True):
        variable.assign(value)
    return model


def whole():
    return assign(gems.SparseModel(network(), seed=0))


def layer_by_layer():
    parts = enumerate(network().layers)
    parts = [gems.GemLayer(part, seed=seed) for seed, part in parts]
    return assign(keras.Sequential([keras.Input((9,)), *parts]))


def train(finder, model):
    """Returns the initial scores, the recorded scores and the epoch logs."""
    finder.prepare(model)
    before = [
        np.array(ops.convert_to_numpy(w.score))
        for w in gems.network.prunable_weights(model)
    ]
    model.compile(keras.optimizers.SGD(RATE, momentum=MOMENTUM), LOSS)
    recorder = Recorder()
    history = model.fit(
        X,
        Y,
        batch_size=BATCH,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[finder.callback(), recorder],
    )
    return before, recorder.steps, history.history


def compare(steps, scores, masks_of, penalty=0.0):
    """Repeats the recorded steps with the masks of `masks_of`."""
    velocity = [np.zeros_like(s) for s in scores]
    moved = 0
    for index, (found, found_masks) in enumerate(steps):
        epoch, batch = divmod(index, BATCHES)
        masks = masks_of(epoch, batch, scores)
        step(scores, velocity, masks, *DATA[batch], penalty)
        after = masks_of(epoch, -1, scores)
        for i in range(2):
            np.testing.assert_allclose(found[i], scores[i], atol=1e-5)
            np.testing.assert_array_equal(found_masks[i], after[i])
            moved += np.count_nonzero(masks[i] != after[i])
    assert len(steps) == EPOCHS * BATCHES
    assert moved > 20, "the masks change too rarely to test anything"


def test_golden_edge_popup():
    model = whole()
    finder = methods.EdgePopup(SPARSITY, EPOCHS)
    scores, steps, logs = train(finder, model)
    assert min(s.min() for s in scores) < 0 and finder.epochs_of_search == 6
    counts = [round((1 - SPARSITY) * w.size) for w in WEIGHTS]

    def masks(epoch, batch, scores):
        return [largest(s, k) for s, k in zip(scores, counts, strict=True)]

    compare(steps, scores, masks)
    np.testing.assert_allclose(logs["density"], sum(counts) / SIZE)
    # 22.95 and 10.2 weights: 33 in total, rounded to 23 and 10.
    kept = finder.masks(model)
    assert [int(mask.sum()) for mask in kept] == counts == [23, 10]
    for mask, expected in zip(kept, masks(0, 0, scores), strict=True):
        np.testing.assert_array_equal(mask, expected)
    assert model.ticket().kept == 33


@pytest.mark.parametrize("gradual, penalty", [(False, 0.0), (True, 0.01)])
def test_golden_global_edge_popup(gradual, penalty):
    model = whole()
    finder = methods.EdgePopup(
        SPARSITY,
        EPOCHS,
        distribution="global",
        gradual=gradual,
        freeze_period=1,
        regularization=penalty,
    )
    scores, steps, logs = train(finder, model)
    # Five reductions, the first of which applies from the start.
    powers = [1, 1, 2, 3, 4, 5] if gradual else [5] * EPOCHS
    counts = [round(SIZE * (1 - SPARSITY) ** (i / 5)) for i in powers]
    compare(
        steps,
        scores,
        lambda epoch, batch, scores: largest_of_all(scores, counts[epoch]),
        penalty,
    )
    np.testing.assert_allclose(logs["density"], np.array(counts) / SIZE)
    np.testing.assert_allclose(logs["regularization"], penalty)
    for mask, expected in zip(
        finder.masks(model), largest_of_all(scores, 33), strict=True
    ):
        np.testing.assert_array_equal(mask, expected)
    assert model.ticket().kept == 33


def test_golden_global_edge_popup_with_several_gem_layers():
    model = layer_by_layer()
    finder = methods.EdgePopup(
        SPARSITY, EPOCHS, distribution="global", gradual=True, freeze_period=2
    )
    scores, steps, _ = train(finder, model)
    counts = [round(SIZE * (1 - SPARSITY) ** (i / 2)) for i in (1, 2)]
    places = []

    def masks(epoch, batch, scores):
        if batch == 0:
            kept = largest_of_all(scores, counts[epoch >= 4])
            places.append([int(mask.sum()) for mask in kept])
        return [largest(s, k) for s, k in zip(scores, places[-1], strict=True)]

    compare(steps, scores, masks)
    assert len({tuple(p) for p in places}) > 2
    expected = largest_of_all(scores, 33)
    for mask, wanted in zip(finder.masks(model), expected, strict=True):
        np.testing.assert_array_equal(mask, wanted)


def test_scores_use_fan_in_of_kernel():
    model = keras.Sequential(
        [
            keras.Input((5, 5, 64)),
            layers.DepthwiseConv2D(3, depth_multiplier=2, name="each"),
            layers.SeparableConv2D(40, 3),
            layers.Flatten(),
            layers.Dense(20),
        ]
    )
    sparse = gems.SparseModel(model, seed=0)
    methods.EdgePopup(0.5).prepare(sparse)
    # The pointwise kernel reads 128 channels, and the dense one reads 40.
    fans = [9, 9, 128, 40]
    for weight, fan_in in zip(sparse.gem.prunable, fans, strict=True):
        score = ops.convert_to_numpy(weight.score)
        assert np.abs(score).max() <= fan_in**-0.5
        np.testing.assert_allclose(score.std(), (3 * fan_in) ** -0.5, rtol=0.05)
        assert weight.score.constraint is None
    # The same model can be mined by Gem-Miner.
    methods.GemMiner(0.5).prepare(sparse)
    scores = [ops.convert_to_numpy(w.score) for w in sparse.gem.prunable]
    assert all(0 <= s.min() and 0.95 < s.max() <= 1 for s in scores)


def test_wrong_arguments_are_refused():
    for arguments, message in [
        (
            {"distribution": "erk"},
            'ErdosRenyiKernel. Use `distribution="global"`',
        ),
        (
            {"gradual": True},
            'gradual=True, distribution=Uniform. Use .*"global"',
        ),
        (
            {"gradual": True, "distribution": "global", "freeze_period": 100},
            "freeze_period=100, epochs=150. Use freeze_period=37",
        ),
        ({"freeze_period": 0}, "freeze_period=0"),
        ({"regularization": -1.0}, "regularization=-1"),
        ({"epochs": 0}, "epochs=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            methods.EdgePopup(0.9, **arguments)
    model = whole()
    model.compile("sgd", LOSS)
    with pytest.raises(
        ValueError, match="must keep at least one.*195 prunable"
    ):
        methods.EdgePopup(0.999, 1).find(model, DATA)
    model = whole()
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match="mask=RoundMask.*magnitude=True"):
        model.fit(X, Y, callbacks=[EdgePopupCallback(0.5)], verbose=0)


def test_callback_config_round_trip():
    callback = EdgePopupCallback(
        0.9, "global", True, 3, gems.schedules.Geometric(1e-3, 1e-4), 12
    )
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(callback)
    )
    assert copy.get_config() == callback.get_config()
    assert copy.regularization(0.5) == callback.regularization(0.5)
