"""Compares freezing on an accelerator with freezing in NumPy."""

import contextlib

import hypothesis.extra.numpy as hnp
import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import layers

import tf_gems as gems
from tf_gems import gem_miner
from tf_gems.layers.prunable_weight import PrunableWeight
from tf_gems.selection import distributions
from tf_gems.selection import patterns

SHAPES = [(5, 7), (3, 3, 2, 4), (33,), (4, 8)]
TIED = st.sampled_from([-0.0, 0.0, 0.25, 0.5, 0.5, 1.0, 1e-40])
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.fixture
def in_place(monkeypatch):
    """Simulates scores on an accelerator, and counts the freezes there."""
    if keras.backend.backend() not in ("tensorflow", "jax"):
        pytest.skip("XLA compiles the step")
    done = []
    freeze = gem_miner.freeze_in_place
    monkeypatch.setattr(PrunableWeight, "on_accelerator", True)
    monkeypatch.setattr(
        gem_miner,
        "freeze_in_place",
        lambda *args: done.append(freeze(*args)) or done[-1],
    )
    return done


@pytest.fixture(scope="module")
def weights():
    layer = keras.layers.Layer()
    return [
        PrunableWeight.add_to(
            layer, f"w{index}", layer.add_weight(shape=shape), "zeros", False
        )
        for index, shape in enumerate(SHAPES)
    ]


def joined(arrays):
    return np.concatenate([np.ravel(a) for a in arrays])


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    elements=st.sampled_from([TIED, ANY, st.floats(0, 1, width=32)]),
    inverted=st.booleans(),
    minimum=st.integers(0, 2),
)
def test_in_place_freeze_matches_numpy(
    weights, data, elements, inverted, minimum
):
    for w in weights:
        w.score.assign(
            data.draw(hnp.arrays("float32", w.alive.shape, elements=elements))
        )
    alive = [data.draw(hnp.arrays(bool, w.alive.shape)) for w in weights]
    for flags in alive:
        flags.reshape(-1)[:2] = True  # As many weights as the minimum.
    count = data.draw(st.integers(8, int(joined(alive).sum())))
    found = []
    for _ in range(2):
        for w, flags in zip(weights, alive, strict=True):
            w.alive.assign(flags)
        if not found:  # On a CPU, NumPy is used.
            distribution = distributions.Global(minimum)
            whole = patterns.get("unstructured")
            gem_miner.freeze(weights, count, distribution, whole, inverted)
            below = distributions.Global(0)
        else:
            done = gem_miner.freeze_in_place(weights, count, minimum, inverted)
        found.append([np.asarray(w.alive) for w in weights])
    assert joined(found[0]).sum() == count
    if done:
        np.testing.assert_array_equal(joined(found[0]), joined(found[1]))
        return
    # If the minimum matters, nothing changes and NumPy is used.
    np.testing.assert_array_equal(joined(found[1]), joined(alive))
    gem_miner.freeze(weights, count, below, whole, inverted)
    kept = [w.alive.count() for w in weights]
    assert min(kept) < minimum


def mined(callbacks=(), scope=None, **arguments):
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 12)).astype("float32")
    with scope or contextlib.nullcontext():
        network = keras.Sequential(
            [
                keras.Input((12,)),
                layers.Dense(20, activation="relu", name="hidden"),
                layers.Dense(2, name="output"),
            ]
        )
        model = gems.SparseModel(network, seed=0)
        model.compile(
            keras.optimizers.SGD(0.5, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    callback = gems.GemMinerCallback(0.8, freeze_period=1, **arguments)
    labels = (x[:, 0] > 0).astype("int64")
    model.fit(
        *(x, labels),
        batch_size=16,
        epochs=5,
        shuffle=False,
        verbose=0,
        callbacks=[callback, *callbacks],
    )
    return model


def bits(model):
    ticket = model.ticket()
    return [mask.tobytes() for mask in ticket.masks.values()]


def test_in_place_mining_gives_same_ticket(in_place, monkeypatch):
    there = bits(mined())
    assert in_place == [True] * 4
    monkeypatch.setattr(PrunableWeight, "on_accelerator", False)
    assert bits(mined()) == there
    assert len(in_place) == 4


@pytest.mark.parametrize(
    "arguments", [{"distribution": "erk"}, {"pattern": "2:4"}]
)
def test_structured_patterns_use_numpy(in_place, arguments):
    model = mined(**arguments)
    assert in_place == [] and model.ticket().kept <= round(0.2 * 280)


def test_every_replica_freezes(in_place, mirrored_strategy):
    two = mined(scope=mirrored_strategy.scope())
    assert in_place == [True] * 4
    for weight in two.gem.prunable:
        packed = weight.alive.packed.value.values
        assert len(packed) == 2
        np.testing.assert_array_equal(packed[0], packed[1])
    assert two.ticket().kept == round(0.2 * 280)


def test_nan_score_is_found_in_place(in_place):
    class Lose(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            score = self.model.gem.prunable[1].score
            values = keras.ops.convert_to_numpy(score).copy()
            values[0, 0] = np.nan if epoch == 2 else values[0, 0]
            score.assign(values)

    with pytest.raises(RuntimeError, match="scores lost in: .*output/kernel"):
        mined([Lose()])


def kernels_on_host(operation):
    """Returns the names of arguments that a GPU kernel reads on the host."""
    from tensorflow.python.framework import kernels

    for kernel in kernels.get_registered_kernels_for_op(operation.type).kernel:
        if kernel.device_type in ("GPU", "DEFAULT") and all(
            operation.get_attr(c.name).as_datatype_enum
            in c.allowed_values.list.type
            for c in kernel.constraint
        ):
            return set(kernel.host_memory_arg)
    return set()


def test_no_step_copies_masks_to_host():
    """Checks steps without XLA, as with `MirroredStrategy`."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("needs TensorFlow kernels")
    import tensorflow as tf

    network = keras.Sequential(
        [keras.Input((40,)), layers.Dense(50), layers.Dense(40)]
    )
    model = gems.SparseModel(network, seed=0)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True)) + sum(model.losses)
        return tape.gradient(loss, model.trainable_variables)

    graph = step.get_concrete_function(tf.zeros((2, 40))).graph
    operations = graph.get_operations()
    assert {"BitwiseAnd", "MatMul", "Sum"} <= {o.type for o in operations}
    for operation in operations:
        on_host = kernels_on_host(operation)
        definition = operation.op_def
        if not definition or len(definition.input_arg) != len(operation.inputs):
            continue
        pairs = zip(definition.input_arg, operation.inputs, strict=True)
        for argument, tensor in pairs:
            if argument.name in on_host:
                size = tensor.shape.num_elements() or 0
                assert size < 1000, (operation.type, operation.name, tensor)
