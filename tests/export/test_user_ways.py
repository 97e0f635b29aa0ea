"""Tests exports for the ways in which users build and pass models."""

import os

import keras
import numpy as np
import pytest
import user_models as users
from keras import ops

import tf_gems

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")

layers = keras.layers
EXPORTS = [
    tf_gems.export_litert,
    tf_gems.export_saved_model,
    tf_gems.export.export_gem,
]


def signature(path):
    """Returns the function of a SavedModel and the names of its inputs."""
    import tensorflow as tf

    serve = tf.saved_model.load(path).signatures["serving_default"]
    return serve, list(serve.structured_input_signature[1])


def runner(path):
    from ai_edge_litert.interpreter import Interpreter

    serve = Interpreter(os.fspath(path)).get_signature_runner()
    return serve, list(serve.get_input_details())


def perceptron():
    return keras.Sequential(
        [keras.Input((9,)), layers.Dense(24, "relu"), layers.Dense(3)]
    )


@pytest.mark.parametrize("inputs", [None, users.floats(4, 9)])
def test_first_call_does_not_fix_batch_size(inputs, tmp_path):
    model = keras.Sequential([layers.Dense(24, "relu"), layers.Dense(3)])
    model(users.floats(4, 9))
    sparse = users.pruned(model)
    tf_gems.export_litert(sparse, tmp_path / "m.tflite", inputs)
    tf_gems.export_saved_model(sparse, tmp_path / "m", inputs)
    for serve, [name] in (
        runner(tmp_path / "m.tflite"),
        signature(tmp_path / "m"),
    ):
        for size in (1, 7):
            x = users.floats(size, 9)
            [received] = serve(**{name: x}).values()
            np.testing.assert_allclose(
                received, np.asarray(sparse(x)), atol=1e-5
            )


def test_inputs_may_have_any_name(tmp_path):
    """The names have other meanings in Python or TensorFlow."""
    sizes = {"self": 5, "class": 4, "a b": 3, "a_b": 2, "1st": 6, "größe": 7}
    inputs = {k: keras.Input((size,), name=k) for k, size in sizes.items()}
    outputs = layers.Dense(3)(layers.Concatenate()(list(inputs.values())))
    sparse = users.pruned(keras.Model(inputs, outputs))
    x = {name: users.floats(4, size) for name, size in sizes.items()}
    tf_gems.export_litert(sparse, tmp_path / "m.tflite", x)
    tf_gems.export_saved_model(sparse, tmp_path / "m", x)
    expected = np.asarray(sparse(x))
    widths = {size: x[name] for name, size in sizes.items()}
    serve, _ = runner(tmp_path / "m.tflite")
    details = serve.get_input_details()
    fed = {n: widths[int(d["shape"][1])] for n, d in details.items()}
    np.testing.assert_allclose(serve(**fed)["output_0"], expected, atol=1e-5)
    serve, _ = signature(tmp_path / "m")
    specs = serve.structured_input_signature[1]
    fed = {n: widths[spec.shape[1]] for n, spec in specs.items()}
    np.testing.assert_allclose(serve(**fed)["output_0"], expected, atol=1e-5)


@pytest.mark.parametrize("export", EXPORTS)
def test_wrapped_model_is_not_exported_directly(export, tmp_path):
    """The user's model is not pruned, so the file would not be either."""
    model = perceptron()
    x, y = users.floats(8, 9), users.floats(8, 3)
    sparse = tf_gems.SparseModel(model, seed=0)
    sparse.compile("sgd", "mse")
    callback = tf_gems.GemMinerCallback(0.6, freeze_period=1)
    sparse.fit(x, y, epochs=2, verbose=0, callbacks=[callback])
    part = keras.Model(model.inputs, model.layers[0].output)
    for refused in (model, part):
        with pytest.raises(ValueError, match="kernel' is being mined. Pass"):
            export(refused, tmp_path / "m.tflite", x)
    assert not os.listdir(tmp_path)
    export(sparse, tmp_path / "m.tflite", x)
    sparse.start_finetuning()
    export(model, tmp_path / "fine.tflite", x)


class Sampling(layers.Layer):
    """Uses TensorFlow's global generator, as older examples do."""

    def call(self, x):
        import tensorflow as tf

        return x + tf.random.normal(tf.shape(x))


def test_unseeded_random_layers_are_named(tmp_path):
    inputs = keras.Input((9,))
    x = layers.Dense(24)(inputs)
    outputs = [layers.Dense(3)(x), layers.Dense(9)(Sampling(name="z")(x))]
    sparse = users.pruned(keras.Model(inputs, outputs))
    x = users.floats(4, 9)
    for export in EXPORTS[:2]:
        for compact in (False, True):
            with pytest.raises(
                RuntimeError, match="'z', which draws different"
            ):
                export(sparse, tmp_path / "m.tflite", x, compact=compact)
    assert not os.listdir(tmp_path)
    path = tmp_path / "m.tflite"
    tf_gems.export_litert(sparse, path, x, tolerance=100)
    serve, [name] = runner(path)
    received = serve(**{name: x})["output_0"]
    np.testing.assert_allclose(received, np.asarray(sparse(x)[0]), atol=1e-5)


@pytest.mark.parametrize("name", ["inputs", "representative_data"])
def test_dataset_in_place_of_arrays_is_refused(name, tmp_path):
    import tensorflow as tf

    x = users.floats(8, 9)
    model = users.pruned(perceptron()).model
    wrongs = [lambda: ([row[None]] for row in x)]
    if name == "inputs":  # `representative_data` can be a dataset
        wrongs.append(tf.data.Dataset.from_tensor_slices(x).batch(4))
    for wrong in wrongs:
        given = {"representative_data": x, name: wrong}
        kind = type(wrong).__name__
        with pytest.raises(ValueError, match=rf"{kind} for input .* taken fro"):
            tf_gems.export_litert(
                model, tmp_path / "m.tflite", form="int8", **given
            )
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("export", EXPORTS)
def test_fixed_batch_size_takes_more_examples(export, tmp_path):
    model, x = users.stateful()
    sparse = users.pruned(model)
    more = users.floats(9, *x.shape[1:])
    report = export(sparse, tmp_path / "m.tflite", more)
    assert report.largest_difference <= 1e-4 * report.largest_output
    with pytest.raises(
        ValueError, match="`inputs` must contain at least one.*3 exam"
    ):
        export(sparse, tmp_path / "other.tflite", more[:3])


class Convolution(keras.layers.Layer):
    """A graph convolution: the product of two computed matrices."""

    def __init__(self, batched, **kwargs):
        super().__init__(**kwargs)
        self.batched = batched
        self.dense = keras.layers.Dense(8)

    def call(self, inputs):
        features, edges = inputs
        x = self.dense(features)
        if self.batched:
            return ops.relu(ops.matmul(edges[None], x[None])[0])
        return ops.relu(ops.matmul(edges, x))


@pytest.mark.parametrize("batched", [False, True])
def test_activation_lost_by_converter_is_named(batched, tmp_path):
    class Graph(keras.Model):
        def __init__(self):
            super().__init__()
            self.sent = Convolution(batched, name="sent")

        def call(self, inputs):
            return self.sent(inputs)

    random = np.random.default_rng(0)
    x = [random.normal(size=(5, n)).astype("float32") for n in (9, 5)]
    model = Graph()
    model(x)
    path = tmp_path / "m.tflite"
    if batched:  # The remedy.
        export = tf_gems.export_litert(model, path, inputs=x)
        assert export.largest_difference < 1e-4
        return
    with pytest.raises(RuntimeError, match="'sent', which multiplies two com"):
        tf_gems.export_litert(model, path, inputs=x)
    assert not path.exists()
