"""Tests the guards against wrong outputs of LiteRT.js without an error.

Both failures look like a large speed-up. Exported files have the outputs of
Keras. The same networks, stored sparsely without the guards, do not, and the
check before every timing detects this.
"""

import keras
import numpy as np
import pytest

import tf_gems
from tf_gems.export import flatbuffer
from tf_gems.export import make_sparse_ready
from tf_gems.export import readiness_report
from tf_gems.export.sparsify import sparsify

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)

layers = keras.layers
TOLERANCE = 1e-4
CHECK = """async ([url, shape]) => {
  const inputs = await measure.floats('/run/inputs.bin');
  const outputs = await measure.floats('/run/outputs.bin');
  try {
    return String(await measure.check(url, shape, inputs, outputs));
  } catch (error) {
    return `refused: ${error.message}`;
  }
}"""


def network(keepdims):
    """XNNPACK's stem, two 1x1 convolutions, and one of two heads."""
    x = inputs = keras.Input((32, 32, 3), name="image")
    for index, filters in enumerate((16, 64, 64)):
        if not index:
            x = layers.ZeroPadding2D(1)(x)
            x = layers.Conv2D(filters, 3, strides=2, name="stem")(x)
        else:
            x = layers.DepthwiseConv2D(3, padding="same")(x)
            x = layers.Conv2D(filters, 1, name=f"pointwise{index}")(x)
        x = layers.ReLU(6.0)(x)
    x = layers.GlobalAveragePooling2D(keepdims=keepdims)(x)
    if keepdims:
        x = layers.Conv2D(12, 1, name="head")(x)
        return keras.Model(inputs, layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(12, name="head")(x))


def pruned(model):
    """Returns a plain model in which 95 % of all kernels are zero."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        value = random.normal(size=variable.shape)
        if len(variable.shape) == 4 and "stem" not in variable.path:
            value *= random.random(variable.shape) < 0.05
        variable.assign(value.astype("float32"))
    return model


@pytest.fixture
def check(opened, tmp_path):
    """Function of a file and its model that returns the result of the check."""
    images = np.random.default_rng(1).normal(size=(3, 32, 32, 3))
    images = images.astype("float32")
    images.tofile(tmp_path / "inputs.bin")

    def found(name, model):
        np.asarray(model(images)).tofile(tmp_path / "outputs.bin")
        page = opened(tmp_path, "benchmark.html")
        page.wait_for_function("() => window.measure")
        return page.evaluate(CHECK, [f"/run/{name}", [1, 32, 32, 3]])

    return found


def assert_caught(answer):
    """Asserts that the check raises an error or detects other outputs."""
    if not answer.startswith("refused"):
        assert answer == "Infinity" or float(answer) > TOLERANCE


def test_average_pooling_with_keepdims(check, tmp_path):
    model = pruned(network(keepdims=True))
    assert "MEAN" in readiness_report(model).obstacle
    report = tf_gems.export_litert(
        model, tmp_path / "guarded.tflite", batch_size=1
    )
    assert {t["encoding"] for t in report.tensors} == {"dense"}
    assert any("wrong outputs" in note for note in report.notes)
    assert float(check("guarded.tflite", model)) < TOLERANCE
    # Without the guard.
    file = flatbuffer.read((tmp_path / "guarded.tflite").read_bytes())
    sparsify(file, True, "size")
    (tmp_path / "forced.tflite").write_bytes(flatbuffer.write(file))
    assert_caught(check("forced.tflite", model))
    # After the rewrite, it is stored sparsely and is correct.
    ready, _ = make_sparse_ready(model)
    report = tf_gems.export_litert(
        ready, tmp_path / "ready.tflite", batch_size=1
    )
    encodings = {t["name"]: t["encoding"] for t in report.tensors}
    assert encodings["pointwise2/kernel"] == "sparse"
    assert float(check("ready.tflite", model)) < TOLERANCE


def test_sparse_int8_weights_with_float_inputs(check, tmp_path):
    import tensorflow as tf

    model = pruned(network(keepdims=False))
    path = tmp_path / "guarded.tflite"
    report = tf_gems.export_litert(
        model, path, form="dynamic_int8", batch_size=1
    )
    encodings = {t["name"]: t["encoding"] for t in report.tensors}
    assert encodings["pointwise2/kernel"] == "dense"
    error = check("guarded.tflite", model)
    assert float(error) < 0.1  # That of 8 bits.
    # The file of the converter's own option.
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [
        tf.lite.Optimize.EXPERIMENTAL_SPARSITY,
        tf.lite.Optimize.DEFAULT,
    ]
    (tmp_path / "forced.tflite").write_bytes(converter.convert())
    answer = check("forced.tflite", model)
    if not answer.startswith("refused"):
        assert answer == "Infinity" or float(answer) > 10 * float(error)
