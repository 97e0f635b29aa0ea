"""Tests that `find` takes all forms of data that `fit` takes."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import tf_gems as gems
from tests.models import TEXT_LOSS
from tests.models import text_data
from tests.models import text_network
from tf_gems import methods

pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() not in ("tensorflow", "jax"),
        reason="needs gradients",
    ),
    pytest.mark.usefixtures("eagerly"),
]

random = np.random.default_rng(0)
X = random.normal(size=(16, 6)).astype("float32")
Y = random.integers(0, 3, 16)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(loss=LOSS):
    kernels = [keras.initializers.GlorotUniform(seed=s) for s in (1, 2)]
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(10, "tanh", kernel_initializer=kernels[0], name="a"),
            layers.Dense(3, kernel_initializer=kernels[1], name="b"),
        ],
        name="net",
    )
    sparse = gems.SparseModel(model, seed=0)
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    return sparse


class Dataset(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        place = slice(8 * index, 8 * index + 8)
        return X[place], Y[place]


def generator():
    while True:
        yield from list(Dataset()[i] for i in range(2))


def tf_dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


def loader():
    data = pytest.importorskip("torch.utils.data")
    torch = pytest.importorskip("torch")
    pairs = data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return data.DataLoader(pairs, batch_size=8)


FORMS = {
    "arrays": lambda: ((X, Y), {"batch_size": 8, "shuffle": False}),
    "tensors": lambda: (
        (ops.convert_to_tensor(X), ops.convert_to_tensor(Y)),
        {"batch_size": 8, "shuffle": False},
    ),
    "list": lambda: (([(X[:8], Y[:8]), (X[8:], Y[8:])],), {}),
    "PyDataset": lambda: ((Dataset(),), {}),
    "generator": lambda: ((generator(),), {"steps_per_epoch": 2}),
    "tf.data": lambda: ((tf_dataset(),), {}),
    "loader": lambda: ((loader(),), {}),
}
METHODS = {
    "snip": methods.Snip(0.5, batches=None),
    "gradual": methods.GradualMagnitude(0.5, epochs=2),
}
_expected = {}


@pytest.mark.parametrize(
    "form, name",
    [
        *((form, "snip") for form in FORMS),
        *((form, "gradual") for form in ("arrays", "PyDataset", "generator")),
        *(
            pytest.param(form, "gradual", marks=pytest.mark.slow)
            for form in ("tensors", "list", "tf.data", "loader")
        ),
    ],
)
def test_every_data_form_gives_same_ticket(form, name):
    positional, named = FORMS[form]()
    found = METHODS[name].find(network(), *positional, verbose=0, **named)
    if name not in _expected:
        _expected[name] = METHODS[name].find(
            network(), [(X[:8], Y[:8]), (X[8:], Y[8:])], verbose=0
        )
    expected = _expected[name]
    for path, mask in expected.masks.items():
        np.testing.assert_array_equal(found.masks[path], mask)
        np.testing.assert_allclose(
            found.weights[path], expected.weights[path], rtol=1e-5, atol=1e-6
        )


def test_sample_and_class_weights_count():
    snip = methods.Snip(0.5)
    whole = {"batch_size": 16, "shuffle": False}
    weights = np.where(Y == 1, 4.0, 1.0).astype("float32")
    one = snip.find(network(), X, Y, sample_weight=weights, **whole)
    other = snip.find(network(), X, Y, class_weight={1: 4.0}, **whole)
    plain = snip.find(network(), (X, Y, weights))
    for path, mask in one.masks.items():
        np.testing.assert_array_equal(mask, other.masks[path])
        np.testing.assert_array_equal(mask, plain.masks[path])
    with pytest.raises(ValueError, match="a score of 0 for every weight"):
        snip.find(network(), X, Y, sample_weight=np.zeros(16), **whole)


def test_missing_loss_is_named():
    sparse = network(loss=None)
    for name in ("snip", "grasp", "prospr"):
        method = methods.get(name, target_sparsity=0.5)
        with pytest.raises(ValueError, match="No loss to compute"):
            method.find(sparse, X, Y, batch_size=4)


class Reconstruction(layers.Layer):
    """The loss of an autoencoder, which needs no targets."""

    def call(self, pair):
        outputs, inputs = pair
        self.add_loss(ops.mean(ops.square(outputs - inputs)))
        return outputs


@pytest.mark.parametrize("form", ["array", "dict", "batches"])
def test_inputs_without_targets(form):
    inputs = keras.Input((6,), name="values")
    outputs = layers.Dense(6)(layers.Dense(8, "tanh")(inputs))
    outputs = Reconstruction()([outputs, inputs])
    named = {"values": inputs} if form == "dict" else inputs
    sparse = gems.SparseModel(keras.Model(named, outputs), seed=0)
    sparse.compile("sgd")
    data = {"array": X, "dict": {"values": X}, "batches": [X[:8], X[8:]]}[form]
    for method in (methods.Snip(0.5), methods.GradualMagnitude(0.5, epochs=1)):
        assert method.find(sparse, data, verbose=0).kept == 48


def test_nested_inputs_and_targets():
    sparse = gems.SparseModel(text_network(), seed=0)
    sparse.compile("sgd", TEXT_LOSS)
    x, y = text_data()
    ticket = methods.Snip(0.5).find(sparse, x, y, batch_size=16)
    assert ticket.kept == round(0.5 * ticket.size)


@pytest.mark.parametrize("verbose", ["auto", 0])
def test_progress_and_validation_as_in_fit(verbose, capsys):
    history = keras.callbacks.History()
    methods.GradualMagnitude(0.5, epochs=2).find(
        network(),
        X,
        Y,
        validation_data=(X, Y),
        verbose=verbose,
        callbacks=[history],
    )
    assert len(history.history["val_loss"]) == 2
    assert ("Epoch 2/2" in capsys.readouterr().out) == (verbose == "auto")


def test_rigl_scores_use_training_arrays():
    rigl = methods.RigL(0.5, epochs=2, update_period=1)
    first = rigl.find(network(), X, Y, batch_size=8, verbose=0)
    again = rigl.find(network(), X, Y, batch_size=8, verbose=0)
    assert first.kept == 45
    for path, mask in first.masks.items():
        np.testing.assert_array_equal(mask, again.masks[path])


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


@pytest.mark.parametrize(
    "method",
    [
        methods.GemMiner(0.5, epochs=4, freeze_period=1),
        methods.GradualMagnitude(0.5, epochs=4),
    ],
)
def test_stopped_search_gives_no_ticket(method):
    with pytest.raises(RuntimeError, match="EarlyStopping"):
        method.find(network(), X, Y, verbose=0, callbacks=[Stop()])


def test_too_short_data_is_refused():
    batches = iter([(X, Y)])
    with pytest.raises(
        ValueError, match="yields each batch only once.*for 3 epochs"
    ):
        methods.GradualMagnitude(0.5, epochs=3).find(network(), batches)
    with pytest.raises(ValueError, match="data=None"):
        methods.GemMiner(0.5, epochs=2, freeze_period=1).find(network())


def test_layers_at_minimum_are_named():
    sparse = network()
    kernel = sparse.model.layers[1].kernel
    kernel.assign(1e-6 * np.ones(kernel.shape))
    with pytest.warns(UserWarning, match=r"b/kernel' \(1 of 30 weights\)"):
        methods.Magnitude(0.5, distribution="global").find(sparse)


def test_unserializable_schedule_is_refused_early():
    class Own(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1

    with pytest.raises(ValueError, match="Own.*no `get_config`"):
        methods.GemMiner(0.5, learning_rate=Own())
    sparse = network()
    sparse.compile(keras.optimizers.SGD(Own()), LOSS)
    method = methods.GradualMagnitude(0.5, epochs=1)
    assert method.find(sparse, X, Y, verbose=0).kept == 45


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="needs custom training steps",
)
def test_custom_step_loss_is_differentiated():
    class Own(keras.Model):
        def train_step(self, data):
            raise NotImplementedError

        def compute_loss(self, x, y, y_pred, sample_weight, training=True):
            # Only the first output counts.
            return ops.mean(ops.square(y_pred[:, :1] - y[:, :1]))

    random = np.random.default_rng(0)
    x = random.normal(size=(8, 3)).astype("float32")
    y = random.normal(size=(8, 2)).astype("float32")
    inputs = keras.Input((3,))
    outputs = layers.Dense(2, use_bias=False, name="head")(inputs)
    sparse = gems.SparseModel(Own(inputs, outputs), start="trained")
    sparse.compile("sgd")
    ticket = gems.methods.Snip(0.5).find(sparse, (x, y))
    [mask] = ticket.masks.values()
    np.testing.assert_array_equal(mask, [[1, 0]] * 3)
