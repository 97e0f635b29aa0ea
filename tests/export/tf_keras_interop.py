"""Prunes on digits, converts to tfmot and back, and prints JSON.

`test_tf_keras.py` runs this program in a separate process, since tfmot switches
`tf.keras` to Keras 2 for the whole process.
"""

import json
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
import tensorflow_model_optimization as tfmot

# isort: split
import keras
import numpy as np
import tf_keras

import tf_gems
from tf_gems import datasets
from tf_gems.export import from_tf_keras
from tf_gems.export import to_tf_keras

layers = keras.layers


def dense_network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(
                64, activation="relu", kernel_regularizer="l2", name="first"
            ),
            layers.Dense(10, name="last"),
        ],
        name="dense",
    )


def convolutional_network():
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.Add()([x, layers.Conv2D(16, 1)(y)])
    x = layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x))
    return keras.Model(inputs, layers.Dense(10)(x), name="convolutional")


def zeros(model):
    return {
        weight.path: np.asarray(weight) == 0
        for weight in model.weights
        if len(weight.shape) > 1
    }


def accuracy(model, images, labels):
    outputs = np.asarray(model(images, training=False))
    return float(np.mean(outputs.argmax(-1) == labels))


def run(network, epochs):
    keras.utils.set_random_seed(0)
    tf_keras.utils.set_random_seed(0)
    data = datasets.load("digits")
    network.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    network.fit(*data.train, batch_size=64, epochs=epochs, verbose=0)
    sparse = tf_gems.SparseModel(network, seed=0)
    tf_gems.methods.Magnitude(0.8).find(sparse).apply(sparse)
    plain = tf_gems.strip(sparse)
    before = zeros(plain), accuracy(plain, *data.test)

    twin = to_tf_keras(plain)
    images = data.test[0][:50]
    difference = np.abs(
        np.asarray(twin(images)) - np.asarray(plain(images))
    ).max()
    quantize = tfmot.quantization.keras
    combine = tfmot.experimental.combine
    aware = quantize.quantize_apply(
        quantize.quantize_annotate_model(twin),
        scheme=combine.Default8BitPrunePreserveQuantizeScheme(),
    )
    aware.compile(
        tf_keras.optimizers.Adam(0.003),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    aware.fit(*data.train, batch_size=64, epochs=2, verbose=0)
    values = [np.array(weight) for weight in plain.weights]
    try:
        from_tf_keras(aware, plain)
        lost = ""
    except RuntimeError as error:  # Zeros in depthwise kernels, from tfmot.
        lost = str(error)
        from_tf_keras(aware, plain, restore_zeros=True)
    moved = [
        bool(np.any(np.asarray(weight) != value))
        for weight, value in zip(plain.weights, values, strict=True)
    ]
    kept = all(
        np.array_equal(found, before[0][path])
        for path, found in zeros(plain).items()
    )

    # Without the scheme zeros are lost, which raises an error.
    ordinary = quantize.quantize_model(to_tf_keras(plain))
    ordinary.compile(
        "sgd", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    ordinary.fit(data.train[0][:64], data.train[1][:64], verbose=0)
    after = [np.array(weight) for weight in plain.weights]
    try:
        from_tf_keras(ordinary, plain)
        refusal = ""
    except RuntimeError as error:
        refusal = str(error)
    unchanged = all(
        np.array_equal(weight, value)
        for weight, value in zip(plain.weights, after, strict=True)
    )
    return {
        "difference": float(difference),
        "kernels": len(before[0]),
        "zeros_before": int(sum(z.sum() for z in before[0].values())),
        "zeros_after": int(sum(z.sum() for z in zeros(plain).values())),
        "same_zeros": kept,
        "lost": lost,
        "moved": moved,
        "accuracy_before": before[1],
        "accuracy_aware": accuracy(aware, *data.test),
        "accuracy_after": accuracy(plain, *data.test),
        "refusal": refusal,
        "unchanged": unchanged,
    }


def run_pruning():
    """Prunes a converted model with tfmot's wrappers, and converts it back."""
    keras.utils.set_random_seed(0)
    data = datasets.load("digits")
    plain, pruning = dense_network(), tfmot.sparsity.keras
    wrapped = pruning.prune_low_magnitude(
        to_tf_keras(plain),
        pruning_schedule=pruning.ConstantSparsity(0.75, 0, frequency=1),
    )
    wrapped.compile(
        "adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    wrapped.fit(*data.train, verbose=0, callbacks=[pruning.UpdatePruningStep()])
    from_tf_keras(wrapped, plain)
    direct = [float(z.mean()) for z in zeros(plain).values()]
    same = dense_network()
    from_tf_keras(pruning.strip_pruning(wrapped), same)
    difference = max(
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(plain.weights, same.weights, strict=True)
    )
    return {"zeros": direct, "difference": difference}


def run_schedules():
    """Returns densities with tfmot's schedules and tfmot's own sparsities."""
    pruning = tfmot.sparsity.keras
    schedules = [
        pruning.PolynomialDecay(0.2, 0.9, 100, 900, power=2, frequency=10),
        pruning.ConstantSparsity(0.9, 100, 900),
    ]
    found = []
    for schedule in schedules:
        callback = tf_gems.GradualMagnitudeCallback(
            0.9, begin=0.1, end=0.9, schedule=schedule
        )
        again = type(callback).from_config(callback.get_config())
        for epoch in range(1, 10):
            _, sparsity = schedule(100 * epoch)
            found.append([again.density(epoch, 10), 1 - float(sparsity)])

    class Own(pruning.PruningSchedule):
        def __call__(self, step):
            return True, 0.5

        def get_config(self):
            return {"config": {}}

    Own.__module__ = schedules[0].__module__
    try:
        tf_gems.schedules.get(Own())
        refusal = ""
    except ValueError as error:
        refusal = str(error)
    return {"densities": found, "refusal": refusal}


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "dense": run(dense_network(), 4),
                "convolutional": run(convolutional_network(), 12),
                "pruned": run_pruning(),
                "schedules": run_schedules(),
            }
        )
    )
