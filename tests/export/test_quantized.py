"""Tests that 8-bit files have the outputs of quantization-aware models.

LiteRT rescales its sums with 32-bit integers and a shift, and uses lookup
tables for some functions. A value between two quantization steps may therefore
round either way, in hidden layers as well as in the outputs.
"""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import tf_gems as gems
from tf_gems.export import flatbuffer
from tf_gems.export import weight_rows
from tf_gems.export.quantized import output_step

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
litert = pytest.importorskip("ai_edge_litert.interpreter")


def digits_network():
    """A depthwise separable network for 8 x 8 images."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(16, 1, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def one_dimension():
    return keras.Sequential(
        [
            keras.Input((32, 3)),
            layers.Conv1D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv1D(3, depth_multiplier=2),
            layers.AveragePooling1D(2),
            layers.ReLU(),
            layers.SeparableConv1D(8, 3, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(4),
        ]
    )


def nested():
    """Transfer learning: a frozen part and preprocessing of pixels."""
    base = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
        ]
    )
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 2, 0.25)(inputs)
    x = base(x, training=False)
    return keras.Model(
        inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    )


def branches():
    """Sums, products, concatenations, and normalization that is not folded."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    y = layers.BatchNormalization()(x)
    y = layers.Conv2D(8, 3, padding="same", activation="hard_silu")(y)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = layers.Conv2D(8, 1, activation="hard_sigmoid")(gate)
    x = layers.Add()([layers.Multiply()([y, gate]), x])
    x = layers.Concatenate()([x, layers.MaxPooling2D(3, 1, "same")(y)])
    x = layers.Conv2DTranspose(4, 3, strides=2, activation="relu")(x)
    x = layers.Conv2D(4, 3, activation="silu")(x)
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))


@keras.saving.register_keras_serializable(package="tests.export.quantized")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Conv2D(6, 3, padding="same")
        self.second = layers.Conv2D(6, 3, padding="same", use_bias=False)
        self.norm = layers.BatchNormalization()
        self.head = layers.Dense(4, activation="softmax")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 6))
        self.norm.build((*shape[:-1], 6))
        self.head.build((None, 6))
        self.gain = self.add_weight(name="gain", shape=(6,))

    def call(self, x, training=None):
        x = ops.relu(self.first(x))
        y = self.norm(self.second(x), training=training) * self.gain
        return self.head(ops.mean(ops.relu(x + y), axis=(1, 2)))


def subclassed():
    model = Subclassed()
    model.build((None, 8, 8, 3))
    return model


class Own(layers.Layer):
    """Computes with weights of its own, as users write it."""

    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=(shape[-1],))
        self.w = self.add_weight(name="w_kernel", shape=(shape[-1], 6))
        self.b = self.add_weight(name="b", shape=(6,))

    def call(self, x):
        x = (1.0 + self.gain) * x / ops.exp(self.gain)
        return ops.relu(ops.matmul(x, self.w) + self.b)


def own_layers():
    """Functions, weights in `call`, and activations with weights."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Lambda(lambda x: x / 4 + 0.1)(inputs)
    x = layers.Conv2D(8, 3, activation=lambda x: ops.relu(x) * 0.5)(x)
    x = ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    y = layers.PReLU("uniform", shared_axes=[1, 2])(layers.Conv2D(8, 3)(x))
    z = layers.Conv2D(8, 3, activation="relu6")(x)
    x = layers.Average()([y, z, layers.Conv2D(8, 3, activation="tanh")(x)])
    x = Own()(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(3)(x))


def mobilenet_v3():
    return keras.applications.MobileNetV3Small(
        input_shape=(32, 32, 3), weights=None, classes=10
    )


# Largest error of a file, in steps of its output. Rounding differences in
# hidden layers accumulate.
STEPS = {
    digits_network: 1,
    one_dimension: 2,
    nested: 1,
    branches: 6,
    subclassed: 1,
    own_layers: 2,
    mobilenet_v3: 2,
}


def examples(model, count=64):
    random = np.random.default_rng(0)
    shape = getattr(model, "input_shape", (None, 8, 8, 3))[1:]
    x = random.normal(size=(count, *shape)).astype("float32")
    return 128 + 60 * x if shape[0] == 32 and len(shape) == 3 else x


def made_sparse(model, x):
    """Sets some weights of a model to zero. Randomizes its statistics."""
    random = np.random.default_rng(1)
    for part in model._flatten_layers():
        if isinstance(part, layers.BatchNormalization):
            gamma = random.uniform(0.5, 1.5, part.gamma.shape)
            gamma *= np.where(random.random(gamma.shape) < 0.1, -1, 1)
            part.gamma.assign(gamma)
            part.beta.assign(random.normal(size=part.beta.shape) / 3)
    gems.recalibrate_batch_norm(model, x, batches=2)
    for weight in model.weights:
        if "kernel" in weight.path:
            weight.assign(weight * (random.random(weight.shape) < 0.5))
    return model


def run(path, x):
    interpreter = litert.Interpreter(path)
    [inputs] = interpreter.get_input_details()
    [outputs] = interpreter.get_output_details()
    interpreter.resize_tensor_input(inputs["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(outputs["index"])


def step_of(path):
    return output_step(flatbuffer.read(path.read_bytes()))


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(b, marks=pytest.mark.slow if b is mobilenet_v3 else [])
        for b in STEPS
    ],
    ids=lambda build: build.__name__,
)
def test_file_matches_model_up_to_rounding(build, tmp_path):
    model = build()
    x = examples(model)
    aware = gems.QuantizationAwareModel(made_sparse(model, x), x)
    kept = [ops.convert_to_numpy(w) for w in model.weights]
    path = str(tmp_path / "model.tflite")
    report = gems.export_litert(aware, path, inputs=x, form="int8")
    for before, weight in zip(kept, model.weights, strict=True):
        # The weights are restored.
        np.testing.assert_array_equal(before, weight)
    file = flatbuffer.read((tmp_path / "model.tflite").read_bytes())
    step = output_step(file)
    expected = ops.convert_to_numpy(aware(x))
    steps = np.abs(run(path, x) - expected) / step
    assert steps.max() < STEPS[build] + 0.01
    assert (steps > 1.01).mean() < 0.05
    # The outputs are rounded, and the error is smaller than this rounding.
    rounding = np.abs(ops.convert_to_numpy(model(x)) - expected).max()
    assert rounding > step / 4
    assert any("step" in note for note in report.notes)
    zeros = {w.size: np.count_nonzero(w == 0) for w in kept if w.ndim > 2}
    for row in weight_rows.rows(file).values():
        if int(np.prod(row["shape"])) in zeros and len(row["shape"]) > 2:
            assert row["type"] == "int8" and row["zeros"] > 0
    assert len(file.subgraphs[0].operators) > 3


def small():
    return made_sparse(digits_network(), examples(digits_network()))


@pytest.fixture(scope="module")
def aware():
    model = small()
    return gems.QuantizationAwareModel(model, examples(model))


def test_integer_inputs_and_outputs(aware, tmp_path):
    x = examples(aware.model)
    report = gems.export_litert(
        aware,
        tmp_path / "model.tflite",
        inputs=x,
        form="int8",
        io="int8",
        batch_size=1,
        sparse=False,
    )
    file = flatbuffer.read((tmp_path / "model.tflite").read_bytes())
    graph = file.subgraphs[0]
    for index in (*graph.inputs, *graph.outputs):
        assert flatbuffer.dtype_of(graph.tensors[index]) == "int8"
    assert report.largest_difference < 1.01 * output_step(file)


def test_file_holds_learned_ranges(aware, tmp_path):
    x = examples(aware.model)
    before = [ops.convert_to_numpy(r) for r in aware.gem.ranges]
    try:
        for variable, value in zip(aware.gem.ranges, before, strict=True):
            variable.assign(2 * value)
        gems.export_litert(aware, tmp_path / "a.tflite", inputs=x, form="int8")
    finally:
        for variable, value in zip(aware.gem.ranges, before, strict=True):
            variable.assign(value)
    wide = step_of(tmp_path / "a.tflite")
    gems.export_litert(
        aware,
        tmp_path / "b.tflite",
        representative_data=100 * x,  # It has no effect.
        inputs=x,
        form="int8",
    )
    narrow = step_of(tmp_path / "b.tflite")
    assert wide == pytest.approx(2 * narrow, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "float32"}, "Received: form='float32'"),
        ({"form": "int8", "compact": True}, "Received: compact=True"),
    ],
)
def test_exports_that_lose_ranges_are_refused(
    aware, tmp_path, arguments, message
):
    with pytest.raises(ValueError, match=message):
        gems.export_litert(aware, tmp_path / "model.tflite", **arguments)
    with pytest.raises(ValueError, match="8-bit TFLite file"):
        gems.export_saved_model(aware, tmp_path / "saved")
    assert not list(tmp_path.iterdir())
