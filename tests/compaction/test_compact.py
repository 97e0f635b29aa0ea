"""Tests that a compact model has the outputs of the pruned model."""

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import layers

import tf_gems as gems


def zero_channels(model, part, seed):
    """Sets some channels of each kernel to zero, with random other weights."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        values = generator.normal(size=weight.shape)
        if "variance" in weight.path:
            values = np.abs(values) + 0.5
        elif "gamma" in weight.path:
            values *= generator.random(values.shape) > part / 2
        elif "kernel" in weight.path:
            for axis in (-1, -2):
                size = values.shape[axis]
                dead = generator.random(size) < part
                np.moveaxis(values, axis, -1)[..., dead] = 0
        weight.assign(values * 0.5)


def assert_equal(model, compacted, seed=0):
    generator = np.random.default_rng(seed)
    shape = [2, *model.inputs[0].shape[1:]]
    inputs = generator.normal(size=shape).astype("float32")
    one = keras.ops.convert_to_numpy(model(inputs, training=False))
    other = keras.ops.convert_to_numpy(compacted(inputs, training=False))
    largest = np.max(np.abs(one))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * largest)


def test_dead_unit_is_folded_into_next_bias():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, activation="relu"),
            layers.Dense(1, use_bias=False),
        ]
    )
    first = np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 4.0]], "float32")
    second = np.array([[1.0], [5.0], [0.0]], "float32")
    bias = np.array([0.5, 2.0, 1.0], "float32")
    model.set_weights([first, bias, second])
    compacted, report = gems.compact(model)
    # Unit 1 is always 2, and no layer reads unit 2.
    kernel, bias, last, added = compacted.get_weights()
    np.testing.assert_array_equal(kernel, first[:, :1])
    np.testing.assert_array_equal(bias, [0.5])
    np.testing.assert_array_equal(last, second[:1])
    np.testing.assert_array_equal(added, [2.0 * 5.0])
    assert report.rows[0]["channels"] == (3, 1)
    assert report.parameters == (6 + 3 + 3, 2 + 1 + 1 + 1)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_constant_at_padded_border_is_not_folded(padding):
    model = keras.Sequential(
        [
            keras.Input((5, 5, 1)),
            layers.Conv2D(2, 1),
            layers.Conv2D(1, 3, padding=padding),
        ]
    )
    zero_channels(model, 0, 0)
    kernel, bias, *rest = model.get_weights()
    kernel[..., 1] = 0
    model.set_weights([kernel, np.array([1.0, 3.0]), *rest])
    compacted, report = gems.compact(model)
    left = 2 if padding == "same" else 1
    assert report.rows[0]["channels"] == (2, left)
    assert_equal(model, compacted)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(3, 3, padding="same"),
        lambda: layers.Conv2D(3, 3, 2, padding="same", use_bias=False),
        lambda: layers.Conv2DTranspose(3, 3, 2, padding="same"),
    ],
)
def test_one_constant_replaces_others_at_padded_border(layer):
    model = keras.Sequential(
        [keras.Input((5, 5, 1)), layers.Conv2D(6, 1), layer()]
    )
    zero_channels(model, 0, 0)
    kernel, bias, *rest = model.get_weights()
    kernel[..., 1:5] = 0
    bias = np.array([1.0, 1e-4, 3.0, -2.0, 0.0, 0.5])
    model.set_weights([kernel, bias, *rest])
    compacted, report = gems.compact(model)
    # Channels 0 and 5 vary, and 2 is the largest constant.
    assert report.rows[0]["channels"] == (6, 3)
    _, found, *_ = compacted.get_weights()
    np.testing.assert_array_equal(found, [1.0, 3.0, 0.5])
    assert_equal(model, compacted)


def test_add_loses_only_unused_channels():
    inputs = keras.Input((4,))
    one = layers.Dense(3, name="one")(inputs)
    other = layers.Dense(3, name="other")(inputs)
    outputs = layers.Dense(2)(layers.Add()([one, other]))
    model = keras.Model(inputs, outputs)
    zero_channels(model, 0, 0)
    kernel, bias = model.get_layer("one").get_weights()
    kernel[:, :2] = 0  # Channel 0 is dead in this input, and channel 1 in both.
    model.get_layer("one").set_weights([kernel, bias])
    kernel, bias = model.get_layer("other").get_weights()
    kernel[:, 1] = 0
    model.get_layer("other").set_weights([kernel, bias])
    compacted, report = gems.compact(model)
    assert [row["channels"] for row in report.rows[:2]] == [(3, 2), (3, 2)]
    assert_equal(model, compacted)


def test_zero_gate_removes_channel():
    inputs = keras.Input((6, 6, 3))
    maps = layers.Conv2D(4, 3, name="maps")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(maps)
    gate = layers.Conv2D(4, 1, activation="relu", name="gate")(gate)
    outputs = layers.Conv2D(2, 3, padding="same")(maps * gate)
    model = keras.Model(inputs, outputs)
    zero_channels(model, 0, 0)
    kernel, bias = model.get_layer("gate").get_weights()
    kernel[..., :2], bias[:2] = 0, -1.0
    kernel[..., :2, :] = 0
    model.get_layer("gate").set_weights([kernel, bias])
    compacted, report = gems.compact(model)
    assert report.rows[0]["channels"] == (4, 2)
    assert_equal(model, compacted)


def _block(kind, x):
    """Returns the output of another random layer on a tensor."""
    channels = x.shape[-1]
    if kind == "conv":
        return layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    if kind == "valid":
        return layers.Conv2D(5, 3, use_bias=False)(x)
    if kind == "strided":
        return layers.Conv2D(4, 3, 2, padding="same")(x)
    if kind == "depthwise":
        return layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    if kind == "separable":
        return layers.SeparableConv2D(5, 3, activation="tanh")(x)
    if kind == "transposed":
        return layers.Conv2DTranspose(4, 3, 2, padding="same")(x)
    if kind == "norm":
        return layers.BatchNormalization()(x)
    if kind == "bare norm":
        return layers.BatchNormalization(center=False, scale=False)(x)
    if kind == "activation":
        return layers.Activation("sigmoid")(x)
    if kind == "slope":
        return layers.PReLU(shared_axes=[1, 2])(x)
    if kind == "pad":
        return layers.ZeroPadding2D(1)(x)
    if kind == "pool":
        return layers.AveragePooling2D(2, padding="same")(x)
    if kind == "max":
        return layers.MaxPooling2D(2, padding="same")(x)
    if kind == "upsample":
        return layers.UpSampling2D()(x)
    if kind == "residual":
        y = layers.Conv2D(channels, 3, padding="same")(x)
        return layers.Add()([x, layers.BatchNormalization()(y)])
    if kind == "concatenate":
        y = layers.Conv2D(3, 3, padding="same")(x)
        return layers.Concatenate()([x, y])
    if kind == "squeeze":
        y = layers.GlobalAveragePooling2D()(x)
        y = layers.Dense(3, activation="relu")(y)
        y = layers.Dense(channels, activation="sigmoid")(y)
        return layers.Multiply()([x, layers.Reshape((1, 1, channels))(y)])
    if kind == "channel pad":
        pads = [(0, 0), (1, 0), (0, 1), (1, 2)]
        return keras.ops.pad(x, pads)
    if kind == "operation":
        return keras.ops.relu6(x * 0.5 + 1.0)
    if kind == "layer normalization":
        return layers.LayerNormalization()(x)
    inner = keras.Sequential(
        [keras.Input(x.shape[1:]), layers.Conv2D(4, 1), layers.ReLU()]
    )
    return inner(x)


KINDS = [
    *("conv", "valid", "strided", "depthwise", "separable", "transposed"),
    *("norm", "bare norm", "activation", "slope", "pad", "pool", "max"),
    *("upsample", "residual", "concatenate", "squeeze", "operation"),
    *("layer normalization", "nested", "channel pad"),
]
ENDS = ["flatten", "average", "maps"]


@hypothesis.settings(
    max_examples=25, deadline=None, derandomize=True, database=None
)
@hypothesis.given(
    st.lists(st.sampled_from(KINDS), min_size=2, max_size=6),
    st.sampled_from(ENDS),
    st.sampled_from([0.2, 0.5, 0.8]),
    st.integers(0, 99),
)
def test_random_graphs_keep_outputs(kinds, end, part, seed):
    keras.backend.clear_session(free_memory=False)
    inputs = x = keras.Input((9, 9, 3))
    for kind in kinds:
        if kind in ("valid", "depthwise", "separable") and x.shape[1] < 3:
            continue
        x = _block(kind, x)
    if end == "flatten":
        x = layers.Dense(4)(layers.Flatten()(x))
    elif end == "average":
        x = layers.GlobalAveragePooling2D()(x)
        x = layers.Dense(4, activation="softmax")(x)
    model = keras.Model(inputs, x)
    zero_channels(model, part, seed)
    compacted, report = gems.compact(model)
    assert_equal(model, compacted, seed)
    assert model.count_params() == report.parameters[0]
    assert compacted.count_params() == report.parameters[1]


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv1D(4, 3, padding="causal"),
        lambda: layers.SeparableConv1D(4, 3),
        lambda: layers.DepthwiseConv1D(3),
        lambda: layers.Conv1DTranspose(4, 3, 2),
        lambda: layers.ZeroPadding1D(1),
        lambda: layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        lambda: layers.Dense(4, activation="relu"),
    ],
)
def test_sequences(layer):
    model = keras.Sequential(
        [
            keras.Input((9, 3)),
            layers.Conv1D(6, 3),
            layer(),
            layers.Conv1D(5, 3),
            layers.GlobalMaxPooling1D(),
            layers.Dense(2),
        ]
    )
    zero_channels(model, 0.4, 1)
    compacted, _ = gems.compact(model)
    assert_equal(model, compacted)


def test_volumes():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 6, 2)),
            layers.Conv3D(6, 3, activation="relu"),
            layers.Conv3DTranspose(5, 3),
            layers.MaxPooling3D(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    zero_channels(model, 0.5, 1)
    compacted, report = gems.compact(model)
    assert report.parameters[1] < report.parameters[0]
    assert_equal(model, compacted)


@pytest.mark.parametrize(
    "name", ["MobileNetV2", "MobileNetV3Small", "EfficientNetB0"]
)
def test_keras_applications(name):
    network = getattr(keras.applications, name)
    model = network(weights=None, input_shape=(32, 32, 3), classes=5)
    zero_channels(model, 0.7, 0)
    before = model.get_weights()
    compacted, report = gems.compact(model)
    assert report.difference <= 1e-5
    assert report.parameters[1] < 0.5 * report.parameters[0]
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_shared_and_custom_layers_are_unchanged():
    class Own(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.directions = np.random.default_rng().normal(size=4)

        def call(self, inputs):
            return inputs * keras.ops.cast(self.directions, inputs.dtype)

    inputs = keras.Input((4,))
    twice = layers.Dense(4, name="twice")
    x = Own(name="own")(twice(twice(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(6)(x)))
    zero_channels(model, 0.5, 0)
    compacted, report = gems.compact(model)
    assert "called 2 times" in report.kept["twice"]
    assert "Own" in report.kept["own"]
    # The array is not in the config, so the layer itself must be used.
    assert "own" in report.shared
    assert "'own' is left unchanged" in str(report)
    assert_equal(model, compacted)


def test_named_inputs_keep_their_names():
    inputs = {"b": keras.Input((3,), name="b"), "a": keras.Input((4,))}
    x = layers.Concatenate()([inputs["b"], inputs["a"]])
    model = keras.Model(inputs, {"y": layers.Dense(2)(layers.Dense(5)(x))})
    zero_channels(model, 0.5, 0)
    compacted, _ = gems.compact(model)
    given = {"a": np.ones((2, 4)), "b": np.zeros((2, 3))}
    np.testing.assert_allclose(
        compacted.predict(given, verbose=0)["y"],
        model.predict(given, verbose=0)["y"],
        atol=1e-6,
    )


def test_compact_model_saves_and_trains(tmp_path):
    model = keras.applications.MobileNet(
        (32, 32, 3), 0.25, weights=None, classes=3, dropout=0.0
    )
    zero_channels(model, 0.5, 0)
    compacted, _ = gems.compact(model)
    compacted.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert_equal(compacted, loaded)
    loaded.compile(
        "sgd", "sparse_categorical_crossentropy", run_eagerly=True
    )  # A single step.
    loaded.fit(np.zeros((4, 32, 32, 3)), np.zeros(4), verbose=0)


class _Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "Received: model=None"),
        (_Subclassed(name="own"), "Received: model='own' of type _Subclassed"),
        (keras.Sequential([layers.Dense(2)], name="bare"), "'bare'"),
    ],
)
def test_unsupported_graphs_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        gems.compact(model)


def test_unstripped_model_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"tf_gems\.strip\(model\)"):
        gems.compact(gems.SparseModel(model))


def test_nonfinite_weights_are_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    model.layers[0].bias.assign([np.nan, 0.0])
    with pytest.raises(ValueError, match="bias.*are NaN or infinite"):
        gems.compact(model)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.full((2, 4), np.nan, "float32"), "holds NaN or infinite"),
        (np.zeros((0, 4), "float32"), "returns no value"),
    ],
)
def test_inputs_without_comparable_outputs(inputs, message):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=f"Received: .*{message}"):
        gems.compact(model, inputs=inputs)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float16"])
def test_half_precision_networks(policy):
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5),
        ]
    )
    keras.config.set_dtype_policy("float32")
    zero_channels(model, 0.5, 0)
    compacted, report = gems.compact(model)
    assert report.parameters[1] < report.parameters[0]
    assert [x.compute_dtype for x in compacted.layers[1:]] == [
        x.compute_dtype for x in model.layers
    ]


def test_recurrent_state_is_kept():
    inputs = keras.Input(batch_shape=(2, 4, 3))
    x = layers.LSTM(5, stateful=True)(layers.Dense(6)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(7)(x)))
    zero_channels(model, 0.5, 0)
    lstm = model.layers[2]
    model(np.ones((2, 4, 3), "float32"))
    before = [keras.ops.convert_to_numpy(state) for state in lstm.states]
    assert any(state.any() for state in before)
    _, report = gems.compact(model)
    assert lstm.name in report.shared
    for state, old in zip(lstm.states, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(state), old)


def tanh_and_more(x):
    return keras.ops.tanh(x) + 0.1


class OwnRegularizer(keras.regularizers.Regularizer):
    """A regularizer without a config."""

    def __call__(self, x):
        return keras.ops.sum(keras.ops.square(x))


def _inner(name):
    inputs = keras.Input((9, 9, 3))
    x = layers.Conv2D(8, 3, padding="same", name="conv")(inputs)
    return keras.Model(inputs, layers.ReLU(name="act")(x), name=name)


def _twins(x):
    """Two models whose layers have the same names, and one layer outside."""
    x = layers.Concatenate()([_inner("one")(x), _inner("two")(x)])
    return layers.Conv2D(8, 3, name="conv")(x)


def _activation_twice(x):
    relu = layers.ReLU()
    return relu(layers.Conv2D(8, 3)(relu(layers.Conv2D(8, 3)(x))))


def _own_functions(x):
    x = layers.Conv2D(
        8, 3, activation="relu", kernel_regularizer=OwnRegularizer()
    )(x)
    x = layers.Conv2D(8, 3, activation=tanh_and_more)(x)
    x = layers.Activation(tanh_and_more)(layers.Conv2D(8, 3)(x))
    return layers.EinsumDense(
        "bhwc,cd->bhwd", (None, None, 6), kernel_regularizer=OwnRegularizer()
    )(x)


def _one_slope(x):
    return layers.PReLU(shared_axes=[1, 2, 3])(layers.Conv2D(8, 3)(x))


def _by_name(x):
    """A model with a list of inputs that is called with a dict."""
    one, two = (keras.Input((9, 9, 8), name=name) for name in "ba")
    outputs = layers.Subtract()([one, layers.Conv2D(8, 1)(two)])
    inner = keras.Model([one, two], outputs)
    a, b = (layers.Conv2D(8, 3, padding="same")(x) for _ in range(2))
    return inner({"a": a, "b": b})


def _as_in_training(x):
    return _normalized((9, 9, 3))(x, training=True)


def _normalized(shape):
    inputs = keras.Input(shape)
    x = layers.Conv2D(8, 3)(inputs)
    return keras.Model(inputs, layers.BatchNormalization()(x))


def _masked(x):
    x = layers.Masking()(layers.Reshape((9, 27))(x))
    x = layers.Dense(8, activation="sigmoid")(x)
    x = layers.BatchNormalization()(layers.Dense(8)(x))
    return layers.GlobalAveragePooling1D()(x)


@pytest.mark.parametrize(
    "graph",
    [
        *(_twins, _activation_twice, _own_functions, _one_slope, _by_name),
        *(_as_in_training, _masked),
    ],
)
def test_user_graphs(graph):
    inputs = keras.Input((9, 9, 3))
    x = graph(inputs)
    x = layers.GlobalMaxPooling2D()(x) if len(x.shape) > 2 else x
    model = keras.Model(inputs, layers.Dense(2)(x))
    zero_channels(model, 0.5, 3)
    compacted, _ = gems.compact(model)
    x = np.random.default_rng(1).normal(size=(3, 9, 9, 3)).astype("float32")
    x[:, 6:] = 0
    one, other = (keras.ops.convert_to_numpy(m(x)) for m in (model, compacted))
    np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(one).max())


def test_shared_layers_with_equal_names_are_refused():
    class Own(layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    def inner():
        inputs = keras.Input((4,))
        return keras.Model(inputs, Own(name="own")(inputs))

    inputs = keras.Input((4,))
    model = keras.Model(
        inputs, layers.Add()([inner()(inputs), inner()(inputs)])
    )
    with pytest.raises(ValueError, match="two layers named 'own'"):
        gems.compact(model)
