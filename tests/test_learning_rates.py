"""Mining reaches its target under any optimizer and learning rate."""

import keras
import numpy as np
import pytest

import tf_gems as gems

RANDOM = np.random.default_rng(7)
X = RANDOM.normal(size=(256, 10)).astype("float32")
Y = np.argmax(X @ RANDOM.normal(size=(10, 3)), axis=-1)
EPOCHS, BATCH, SPARSITY = 24, 16, 0.9
STEPS = EPOCHS * len(X) // BATCH
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
schedules = keras.optimizers.schedules


@keras.saving.register_keras_serializable(package="tests")
class Zigzag(schedules.LearningRateSchedule):
    """A class that nothing here knows: 0.5, and 0.0005 every other 16 steps."""

    def __call__(self, step):
        high = keras.ops.cast(step, "int32") // 16 % 2 == 0
        return keras.ops.where(high, 0.5, 0.0005)

    def get_config(self):
        return {}


class Jump(keras.callbacks.Callback):
    """Multiplies the rate by 1,000 in the middle of an epoch."""

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == STEPS // 10:
            self.model.optimizer.learning_rate = 0.5


def mine(optimizer, *callbacks, data=None, regularization="auto", **kwargs):
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(3),
        ]
    )
    sparse = gems.SparseModel(
        network, kernel_initializer="signed_constant", seed=0
    )
    sparse.compile(optimizer, LOSS, metrics=["accuracy"], **kwargs)
    callback = gems.GemMinerCallback(SPARSITY, 2, regularization=regularization)
    arguments = {"x": data} if data else {"x": X, "y": Y, "batch_size": BATCH}
    logs = sparse.fit(
        **arguments,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[callback, *callbacks],
    ).history
    return sparse, logs


def check(sparse, logs, accuracy, least=0.85):
    density = 1 - SPARSITY
    assert min(logs["density"]) > least * density
    # The penalty has reached the target before the last freeze.
    last = (EPOCHS // 2 - 1) * 2
    assert logs["density"][last - 1] < 1.1 * density
    assert sparse.ticket().kept == round(density * sparse.gem.size)
    assert logs["accuracy"][-1] > accuracy


@pytest.fixture(scope="module")
def good():
    """The accuracy of the best constant weight under SGD."""
    found = []
    for weight in (3e-4, 1e-3):
        optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
        _, logs = mine(optimizer, regularization=weight)
        found.append(logs["accuracy"][-1])
    assert max(found) > 0.85
    return max(found)


RATES = {
    "Adadelta": 30.0,
    "Adafactor": 0.02,
    "Adagrad": 0.3,
    "Adam": 0.02,
    "AdamW": 0.02,
    "Adamax": 0.03,
    "Lamb": 0.02,
    "Lion": 0.01,
    "Muon": 0.02,
    "Nadam": 0.02,
    "RMSprop": 0.01,
    "SGD": 3.0,
}
FORGETFUL = ("Ftrl", "ScheduleFreeAdamW")
WRAPPERS = ("LossScaleOptimizer", "MultiOptimizer", "Optimizer", "OptimizerMap")


def test_every_optimizer_of_keras_is_tried():
    kinds = {
        name
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type) and name != "schedules"
    }
    assert kinds == {*RATES, *FORGETFUL, *WRAPPERS}


# One of each family of rules; all the others are slow.
REPRESENTATIVES = ("Adafactor", "Adam", "Lion", "SGD")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[] if name in REPRESENTATIVES else pytest.mark.slow
        )
        for name in RATES
    ],
)
def test_any_optimizer(name, good):
    optimizer = getattr(keras.optimizers, name)(RATES[name])
    check(*mine(optimizer), good - 0.02)


def of_many():
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.02))
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.5, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.SGD(0.5, momentum=0.9, use_ema=True),
        lambda: keras.optimizers.RMSprop(0.01, momentum=0.5),
        lambda: keras.optimizers.Adam(0.02, global_clipnorm=0.1),
        lambda: keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.5, momentum=0.9)
        ),
        of_many,
    ],
    ids=["nesterov", "ema", "momentum", "clipped", "scaled", "many"],
)
def test_any_kind_of_an_optimizer(make, good):
    check(*mine(make()), good - 0.02)


@pytest.mark.parametrize("start", [1e-5, 1e-2])
@pytest.mark.parametrize("warm", [STEPS // 20, STEPS // 4])
def test_warm_up(start, warm, good):
    rate = schedules.CosineDecay(
        start, STEPS - warm, warmup_target=0.5, warmup_steps=warm
    )
    optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    # A quarter of the steps at small rates leaves less to learn in.
    check(*mine(optimizer), good - (0.02 if warm < STEPS // 10 else 0.04))


@pytest.mark.parametrize(
    "rate",
    [
        schedules.CosineDecay(0.5, STEPS),
        schedules.CosineDecayRestarts(0.5, STEPS // 4),
        schedules.PiecewiseConstantDecay(
            [STEPS // 20, STEPS // 2], [0.0005, 0.5, 0.05]
        ),
        Zigzag(),
    ],
    ids=lambda rate: type(rate).__name__,
)
def test_any_schedule(rate, good):
    optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    check(*mine(optimizer), good - 0.04)


@pytest.mark.parametrize(
    "callback",
    [
        Jump(),
        keras.callbacks.LearningRateScheduler(
            lambda epoch: 0.0005 if epoch < 2 else 0.5
        ),
        keras.callbacks.ReduceLROnPlateau(
            monitor="loss", factor=0.1, patience=3
        ),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_rates_that_callbacks_change(callback, good):
    if keras.backend.backend() == "jax" and isinstance(callback, Jump):
        pytest.skip("Keras reads such a change on JAX in the next epoch")
    plateau = isinstance(callback, keras.callbacks.ReduceLROnPlateau)
    begin = 0.5 if plateau else 0.0005
    optimizer = keras.optimizers.SGD(begin, momentum=0.9)
    # The loss rises while weights are pruned, which a plateau is taken for:
    # the rate is 0.00005 in the end.
    check(*mine(optimizer, callback), good - (0.06 if plateau else 0.04))


def test_accumulated_gradients_of_data_of_unknown_length(good):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    data = data.filter(lambda x, y: True)  # forgets its length
    optimizer = keras.optimizers.SGD(
        0.5, momentum=0.9, gradient_accumulation_steps=4
    )
    sparse, logs = mine(optimizer, data=data, steps_per_execution=3)
    check(sparse, logs, good - 0.08)  # of a quarter of the updates
    assert int(sparse.gem.penalty.steps) == STEPS


@pytest.mark.parametrize("name", FORGETFUL)
def test_refuses_optimizers_that_forget_the_scores(name):
    optimizer = getattr(keras.optimizers, name)(0.01)
    for given in (optimizer, keras.optimizers.LossScaleOptimizer(optimizer)):
        with pytest.raises(ValueError, match=f"={name}.*Use `SGD`"):
            mine(given)
