"""Tests 8-bit files of float models: ranges, integers and limits."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import tf_gems as gems
from tf_gems.export import flatbuffer
from tf_gems.export import litert as litert_export

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
litert = pytest.importorskip("ai_edge_litert.interpreter")

random = np.random.default_rng(0)
X = random.normal(size=(40, 8)).astype("float32")


def network(*parts):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="features")
    x = layers.Dense(6, activation="relu")(inputs)
    for part in parts or [layers.Dense(2)]:
        x = part(x)
    return keras.Model(inputs, x)


def test_calibration_with_fewer_examples_than_a_batch(tmp_path):
    """The ranges include all examples, for any batch size."""
    model = network()
    files = []
    for size in (1, 32):
        path = tmp_path / f"{size}.tflite"
        gems.export_litert(
            *(model, path, X),
            form="int8",
            representative_data=iter([X[:4], X[4:10]]),
            batch_size=size,
            tolerance=100,  # Ten examples are too few for accurate ranges.
        )
        graph = flatbuffer.read(path.read_bytes()).subgraphs[0]
        files.append(
            sorted(
                float(t.quantization.scale[0])
                for t in graph.tensors
                if flatbuffer.dtype_of(t) == "int8"
            )
        )
    assert files[0] and files[0] == pytest.approx(files[1])


def test_examples_from_datasets_and_generators():
    batches = [(X[:30], np.zeros(30)), (X[30:], np.zeros(10))]
    for data in (
        keras_dataset(batches),
        (batch for batch in batches),
        (inputs for inputs, _ in batches),
    ):
        np.testing.assert_array_equal(litert_export.gathered(data), X)
    named = ({"a": inputs, "b": -inputs} for inputs, _ in batches)
    np.testing.assert_array_equal(litert_export.gathered(named)["b"], -X)
    assert litert_export.gathered(X) is X
    with pytest.raises(ValueError, match="which yields no batch"):
        litert_export.gathered(iter([]))


def keras_dataset(batches):
    import tensorflow as tf

    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(30)


def test_integers_are_described(tmp_path):
    """The notes are sufficient to feed integers to the file by hand."""
    path = tmp_path / "model.tflite"
    report = gems.export_litert(
        network(), path, form="int8", representative_data=X, io="int8"
    )
    [taken] = [n for n in report.notes if n.startswith("Input 'features': ")]
    [given] = [n for n in report.notes if n.startswith("Output ")]

    def read(note):
        scale, _, zero = note.split("stands for ")[1].partition(" * (q - ")
        return float(scale), int(zero.removesuffix(")."))

    runner = litert.Interpreter(str(path)).get_signature_runner()
    scale, zero = read(taken)
    q = np.clip(np.round(X / scale) + zero, -128, 127).astype("int8")
    found = runner(features=q)["output_0"].astype("float32")
    scale, zero = read(given)
    expected = network().predict(X, verbose=0)
    assert np.abs(scale * (found - zero) - expected).max() < 4 * scale


class Sine(layers.Layer):
    def call(self, x):
        return ops.sin(x)


def test_float_operators_are_named(tmp_path):
    model = network(Sine(), layers.Dense(2))
    report = gems.export_litert(
        model, tmp_path / "a.tflite", form="int8", representative_data=X
    )
    [note] = [note for note in report.notes if "in floats" in note]
    assert "SIN" in note


def test_softmax_of_many_classes_is_refused_with_reason(tmp_path):
    """Its steps of 1/256 exceed the outputs of a random network."""
    model = network(layers.Dense(1000, activation="softmax"))
    with pytest.raises(RuntimeError, match="in steps of 1/256"):
        gems.export_litert(
            model, tmp_path / "a.tflite", form="int8", representative_data=X
        )
