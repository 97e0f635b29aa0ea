import math

import keras
import numpy as np
import pytest

import tf_gems as gems

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="tf.distribute needs the TensorFlow backend",
)

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(128, 8, 8, 1)).astype("float32")
Y = (X.mean(axis=(1, 2, 3)) > 0).astype("int32")


def mined(scope, watch):
    """Mines a network whose loss includes regularizers."""
    with scope:
        keras.utils.set_random_seed(5)
        network = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                # Without BatchNormalization, since its statistics differ
                # between replicas in Keras itself.
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(
                    2, kernel_regularizer=keras.regularizers.L2(0.01)
                ),
            ],
            name="network",
        )
        sparse = gems.SparseModel(network, seed=5)
        compiled(sparse)
    history = fit(
        sparse, gems.GemMinerCallback(0.8, 2, regularization=1e-3), watch
    )
    return sparse, history


def compiled(model):
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


def fit(model, *callbacks, epochs=6):
    return model.fit(
        X,
        Y,
        batch_size=32,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    ).history


class ReplicasAgree(keras.callbacks.Callback):
    """Compares all copies of the pruning variables after every epoch."""

    def __init__(self):
        super().__init__()
        self.replicas, self.compared = 0, 0

    def on_epoch_end(self, epoch, logs=None):
        for variable in self.model.gem.own_variables():
            copies = [v.numpy() for v in getattr(variable.value, "values", [])]
            self.replicas = len(copies)
            for copy in copies[1:]:
                np.testing.assert_array_equal(copies[0], copy)
                self.compared += copy.size


class OneDevice:
    """The scope without a strategy."""

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass


def test_two_replicas_find_ticket_of_one(mirrored_strategy, tmp_path):
    watch = ReplicasAgree()
    one, history_of_one = mined(OneDevice(), ReplicasAgree())
    two, history_of_two = mined(mirrored_strategy.scope(), watch)
    assert watch.replicas == mirrored_strategy.num_replicas_in_sync == 2
    added = sum(math.prod(v.shape) for v in one.gem.own_variables())
    assert watch.compared == 6 * added

    for name in ("alive_density", "regularization"):
        assert history_of_one[name] == history_of_two[name]
    # Neither the penalty nor the regularizer is counted once per replica.
    for name in ("score_penalty", "loss"):
        np.testing.assert_allclose(
            history_of_one[name], history_of_two[name], rtol=1e-3
        )
    tickets = [one.ticket(), two.ticket()]
    assert tickets[0].kept == tickets[1].kept == round(0.2 * one.gem.size)
    agreement = np.concatenate(
        [
            (a == b).ravel()
            for a, b in zip(
                tickets[0].masks.values(),
                tickets[1].masks.values(),
                strict=True,
            )
        ]
    )
    assert agreement.mean() > 0.99

    tickets[1].save(tmp_path / "two.gem")
    loaded = gems.Ticket.load(tmp_path / "two.gem")
    for path, mask in tickets[1].masks.items():
        np.testing.assert_array_equal(mask, loaded.masks[path])

    # Fine-tuning keeps the masks on both replicas.
    two.start_finetuning()
    with mirrored_strategy.scope():
        compiled(two)
    before = two.ticket()
    loss = fit(two, watch, epochs=3)["loss"]
    assert loss[-1] < loss[0]
    assert watch.compared == 9 * added
    after = two.ticket()
    assert after.kept == before.kept
    for path, mask in after.masks.items():
        np.testing.assert_array_equal(mask, before.masks[path])
        assert (after.weights[path] != before.weights[path])[mask].any()

    plain = gems.strip(two)
    np.testing.assert_allclose(
        plain.predict(X, verbose=0), two.predict(X, verbose=0), atol=1e-6
    )
    two.save(tmp_path / "two.keras")
    again = keras.models.load_model(tmp_path / "two.keras")
    np.testing.assert_allclose(
        again.predict(X, verbose=0), two.predict(X, verbose=0), atol=1e-6
    )
