"""Tests that exports have the outputs of the user's model."""

import os

import keras
import numpy as np
import pytest
import user_models as users

import tf_gems

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")

layers = keras.layers
TYPES = [
    users.in_type(policy)
    for policy in ("mixed_bfloat16", "bfloat16", "float16", "float64")
]
IN_LITERT = [
    users.graph,
    users.text,
    users.recurrent_heads,
    users.named_inputs,
    users.contrastive,
    users.stateful,
    users.augmented,
    users.attributes,
    users.adapted,
    users.looked_up,
    *TYPES,
]
# Models that TFLite does not support, and one model of each other kind.
IN_SAVED_MODEL = [
    *(users.text, users.stateful, users.looked_up, users.named_inputs),
    *(users.words, users.labels, users.pooled_3d, TYPES[0]),
]
MORE_IN_SAVED_MODEL = [f for f in IN_LITERT if f not in IN_SAVED_MODEL]


def named(builders, more=()):
    """Returns parameters. Those of `more` are marked as slow."""
    return [
        *(pytest.param(f, id=f.__name__) for f in builders),
        *(pytest.param(f, id=f.__name__, marks=pytest.mark.slow) for f in more),
    ]


def flat(outputs):
    """Returns the outputs of the user's model in the order of their names."""
    return [np.asarray(x) for x in keras.tree.flatten(outputs)]


def feed(model, inputs):
    """Returns inputs by name, as the user's model names them."""
    if isinstance(inputs, dict):
        return inputs
    names = getattr(model, "input_names", None) or [
        f"input_{i}" for i in range(len(keras.tree.flatten(inputs)))
    ]
    if isinstance(model, keras.Sequential):
        names = [model.inputs[0].name]
    return dict(zip(names, keras.tree.flatten(inputs), strict=True))


class Unchanged:
    """Checks that a block leaves all variables of a model unchanged."""

    def __init__(self, sparse):
        self.variables = list(sparse.variables)
        for layer in sparse._flatten_layers():
            self.variables += getattr(layer, "states", None) or []

    def __enter__(self):
        self.before = [v.numpy().tobytes() for v in self.variables]
        return self

    def __exit__(self, *error):
        after = [v.numpy().tobytes() for v in self.variables]
        assert after == self.before


def tolerance(build):
    return 5e-2 if "float16" in build.__name__ else 1e-4


def check(received, expected, share):
    assert len(received) == len(expected)
    for ours, theirs in zip(received, expected, strict=True):
        assert ours.shape == theirs.shape
        if theirs.dtype == object:
            assert ours.tolist() == theirs.tolist()
            continue
        theirs = theirs.astype("float64")
        error = np.abs(ours.astype("float64") - theirs).max()
        assert error <= share * np.abs(theirs).max()


@pytest.mark.parametrize(
    "build", named([f for f in IN_LITERT if f not in TYPES[1:]], TYPES[1:])
)
def test_litert_keeps_outputs(build, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model, inputs = build()
    sparse = users.pruned(model)
    with Unchanged(sparse):
        report = tf_gems.export_litert(sparse, tmp_path / "m.tflite", inputs)
    assert os.listdir(tmp_path) == ["m.tflite"]
    assert report.largest_difference <= tolerance(build) * report.largest_output
    runner = Interpreter(f"{tmp_path / 'm.tflite'}").get_signature_runner()
    fed = feed(model, inputs)
    details = runner.get_input_details()
    if len(fed) == 1:
        fed = dict(zip(details, fed.values(), strict=True))
    one = any("one example at a time" in note for note in report.notes)
    if one:
        fed = {name: value[:1] for name, value in fed.items()}
    fed = {
        name: value.astype("S").astype(object)
        if value.dtype.kind == "U"
        else value
        for name, value in fed.items()
    }
    outputs = runner(**fed)
    expected = flat(sparse(inputs, training=False))
    if one:
        expected = [value[:1] for value in expected]
    received = [outputs[name] for name in sorted(outputs)]
    check(received, expected, tolerance(build))


@pytest.mark.parametrize("build", named(IN_SAVED_MODEL, MORE_IN_SAVED_MODEL))
def test_saved_model_keeps_outputs(build, tmp_path):
    import tensorflow as tf

    model, inputs = build()
    sparse = users.pruned(model)
    with Unchanged(sparse):
        report = tf_gems.export_saved_model(sparse, tmp_path / "m", inputs)
    assert os.listdir(tmp_path) == ["m"]
    assert report.bytes <= report.dense_bytes
    serve = tf.saved_model.load(f"{tmp_path / 'm'}").signatures[
        "serving_default"
    ]
    fed = feed(model, inputs)
    specs = serve.structured_input_signature[1]
    if len(fed) == 1:
        fed = dict(zip(specs, fed.values(), strict=True))
    outputs = serve(
        **{k: tf.constant(v, specs[k].dtype) for k, v in fed.items()}
    )
    received = [outputs[name].numpy() for name in sorted(outputs)]
    expected = flat(sparse(inputs, training=False))
    check(received, expected, tolerance(build))


@pytest.mark.parametrize(
    "export", [tf_gems.export_litert, tf_gems.export_saved_model]
)
def test_export_matches_predict(export, tmp_path):
    """Keras rounds the result of `Resizing` of integers only in eager calls."""
    model = keras.Sequential(
        [
            keras.Input((9, 9, 1), dtype="uint8"),
            layers.Resizing(6, 6),
            layers.Rescaling(1 / 255),
            layers.Flatten(),
            layers.Dense(12, use_bias=False),
        ]
    )
    inputs = users.integers(256, 4, 9, 9, 1).astype("uint8")
    sparse = users.pruned(model)
    eager = np.asarray(sparse(inputs))
    usual = sparse.predict(inputs, verbose=0)
    assert np.abs(eager - usual).max() > 1e-4 * np.abs(usual).max()
    report = export(sparse, tmp_path / "m.tflite", inputs)
    assert report.largest_difference < 1e-5 * report.largest_output


@pytest.mark.parametrize(
    "build, named",
    [
        (users.pooled_3d, ["layer 'pooled'", "MaxPool3D"]),
        (users.words, ["layer 'text_vectorization", "StringSplitV2"]),
        (users.labels, ["BitwiseAnd", "argmax"]),
        (users.noisy, ["layer 'noise", "StatelessRandomNormalV2"]),
    ],
    ids=lambda f: getattr(f, "__name__", ""),
)
def test_unsupported_models_are_named(build, named, tmp_path):
    model, inputs = build()
    sparse = users.pruned(model)
    with Unchanged(sparse), pytest.raises(RuntimeError) as caught:
        tf_gems.export_litert(sparse, tmp_path / "m.tflite", inputs)
    message = str(caught.value)
    for part in [*named, "export_saved_model", "without zeros"]:
        assert part in message
    for raw in ("loc(", "tensor<", "%0", "__inference"):
        assert raw not in message
    assert not os.listdir(tmp_path)


def test_converter_crash_raises_error(tmp_path):
    model = keras.Sequential(
        [keras.Input((4, 6)), layers.LSTM(8, name="cell"), layers.Dense(3)]
    )
    x = users.floats(8, 4, 6)
    sparse = users.pruned(model)
    with Unchanged(sparse), pytest.raises(RuntimeError, match="'cell'") as got:
        tf_gems.export_litert(
            sparse,
            tmp_path / "m.tflite",
            x,
            form="int8",
            representative_data=x,
        )
    assert "form='dynamic_int8'" in str(got.value)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "export",
    [
        tf_gems.export_litert,
        tf_gems.export_saved_model,
        tf_gems.export.export_gem,
    ],
)
def test_nonfinite_values_are_refused_by_name(export, tmp_path):
    model = keras.Sequential(
        [keras.Input((9,)), layers.Dense(8, name="broken"), layers.Dense(3)]
    )
    kernel = model.get_layer("broken").kernel
    for value in (np.nan, np.inf):
        kernel.assign(np.where(np.arange(72).reshape(9, 8), 1.0, value))
        with pytest.raises(ValueError, match="weight '.*broken/kernel'.* 1 of"):
            export(model, tmp_path / "m.tflite")
    inputs = keras.Input((9,))
    outputs = {"log": keras.ops.log(layers.Dense(8)(inputs))}
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match="output 'log'.*NaN or infinite"):
        export(model, tmp_path / "m.tflite", inputs=users.floats(4, 9))
    assert not os.listdir(tmp_path)


def test_incompatible_inputs_are_refused(tmp_path):
    path = tmp_path / "m.tflite"
    model, inputs = users.named_inputs()
    for wrong, message in [
        ({"a": inputs["a"]}, "missing: .'b'"),
        (
            {"a": inputs["a"], "c": inputs["b"]},
            "where the model takes .'b', 'a'",
        ),
        ([inputs["a"]], "1 arrays, where the model takes 2: 'b', 'a'"),
        ([inputs["a"], inputs["b"][:, :3]], r"\(4, 3\) for input 'a'"),
        ([inputs["a"], inputs["b"].astype(str)], "for input 'a' of float32"),
    ]:
        with pytest.raises(ValueError, match=message):
            tf_gems.export_litert(model, path, inputs=wrong)
    model, _ = users.text()
    with pytest.raises(ValueError, match="does not record the dtypes"):
        tf_gems.export_litert(model, path)
    model, inputs = users.stateful()
    with pytest.raises(ValueError, match="batch_size=2, where .* declares 4"):
        tf_gems.export_litert(model, path, inputs=inputs, batch_size=2)
    assert not os.listdir(tmp_path)
