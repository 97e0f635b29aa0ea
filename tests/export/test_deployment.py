"""Tests that the report on all formats agrees with the files."""

import gzip
import json
import shutil

import keras
import numpy as np
import pytest
from export_networks import mobile
from export_networks import prune

import tf_gems
from tf_gems.export import latency
from tf_gems.export.accuracy import accuracy
from tf_gems.export.sparse_operators import host_has_sparse_kernels

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")

layers = keras.layers
FORMS = ("float32", "float16", "dynamic_int8", "int8", "saved_model", "gem")


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    sparse, ticket = prune(mobile(), 0.9)
    x = random.normal(size=(130, 16, 16, 3)).astype("float32")
    labels = np.asarray(sparse(x)).argmax(-1)
    labels[:13] = (labels[:13] + 1) % 24  # A tenth of the labels is wrong.
    directory = tmp_path_factory.mktemp("report") / "new"
    report = tf_gems.deployment_report(sparse, directory, (x, labels), runs=3)
    return sparse, ticket, directory, report, (x, labels)


def test_files_match_report(reported):
    _, ticket, directory, report, _ = reported
    assert [row["form"] for row in report.rows] == list(FORMS)
    assert report.accuracy == pytest.approx(0.9) and report.examples == 130
    text = report.render()
    for row in report.rows:
        export = row["export"]
        if row["form"] != "saved_model":
            names = {"gem": "ticket.gem"}
            name = names.get(row["form"], f"{row['form']}.tflite")
            data = (directory / name).read_bytes()
            assert export.bytes == len(data)
            assert export.gzip_bytes == len(gzip.compress(data, mtime=0))
        assert export.zeros >= ticket.size - ticket.kept
        assert row["accuracy"] >= 0.8 and row["refused"] is None
        assert f"{export.bytes:,}" in text
    # Exact formats have exactly the accuracy of Keras.
    assert report.rows[0]["accuracy"] == report.accuracy
    assert report.rows[-2]["accuracy"] == report.accuracy
    assert report.rows[-1]["accuracy"] == report.accuracy
    assert json.loads(json.dumps(report.to_dict()))["examples"] == 130


def test_zstd_sizes_match_zstandard(reported):
    _, _, directory, report, _ = reported
    export = report.rows[0]["export"]
    zstandard = pytest.importorskip("zstandard")
    data = (directory / "float32.tflite").read_bytes()
    compressed = zstandard.ZstdCompressor(level=19).compress(data)
    assert export.zstd_bytes == len(compressed) < export.dense_bytes


def test_latency_is_measured_if_files_differ(reported):
    report = reported[3]
    for row in report.rows:
        export = row["export"]
        differs = export.bytes < export.dense_bytes and row["form"] != "gem"
        assert differs == (row["seconds"] is not None)
        assert differs == (row["dense_seconds"] is not None)
        if differs:
            assert row["seconds"] > 0 and row["dense_seconds"] > 0
    exact = report.rows[0]
    emulated = exact["emulated_seconds"] is not None
    assert emulated == (
        host_has_sparse_kernels() is False
        and shutil.which("qemu-x86_64") is not None
    )


def test_reasons_per_layer(reported):
    report = reported[3]
    by_form = {row["form"]: row["layers"] for row in report.rows}
    where = [
        (layer["operator"], layer["runs_sparse"])
        for layer in by_form["float32"]
    ]
    assert where == [
        ("CONV_2D", "nowhere"),  # The stem.
        ("DEPTHWISE_CONV_2D", "nowhere"),
        ("CONV_2D", "without AVX"),
        ("CONV_2D", "without AVX"),
        ("FULLY_CONNECTED", "nowhere"),
    ]
    for form in ("dynamic_int8", "int8"):
        assert {layer["runs_sparse"] for layer in by_form[form]} == {"nowhere"}
    assert by_form["saved_model"] == []


def test_reasons_against_speed_up(tmp_path):
    reasons = {}
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    for name, model, sparsity in [
        ("no stem", mobile(stem_padding=False), 0.9),
        ("few zeros", mobile(), 0.5),
        ("pooled", mobile(layers.MaxPooling2D()), 0.9),
    ]:
        sparse, _ = prune(model, sparsity)
        path = tmp_path / "model.tflite"
        tf_gems.export_litert(sparse, path, x)
        rows = tf_gems.export.sparse_operators(path)
        assert {row["runs_sparse"] for row in rows} == {"nowhere"}
        reasons[name] = " ".join(row["reason"] for row in rows)
    assert "does not begin with a 3x3" in reasons["no stem"]
    assert "too few zeros" in reasons["few zeros"]
    assert "stored densely" in reasons["pooled"]

    inputs = keras.Input((128,))
    sparse, _ = prune(keras.Model(inputs, layers.Dense(64)(inputs)), 0.97)
    tf_gems.export_litert(sparse, path, optimize="latency")
    [row] = tf_gems.export.sparse_operators(path)
    assert row["runs_sparse"] == "everywhere" and 0.9 < row["zeros"] < 1


def test_maps_of_one_pixel_are_not_sparse(tmp_path):
    """The reason is that of the layer, not one for the whole network."""

    def shrink(x):
        for _ in range(3):  # From 8x8 to one pixel.
            x = layers.ZeroPadding2D(1)(x)
            x = layers.DepthwiseConv2D(3, strides=2)(x)
        return x

    sparse, _ = prune(mobile(shrink), 0.9)
    tf_gems.export_litert(sparse, tmp_path / "model.tflite")
    _, first, last = (  # After the stem.
        row
        for row in tf_gems.export.sparse_operators(tmp_path / "model.tflite")
        if row["operator"] == "CONV_2D"
    )
    assert first["runs_sparse"] == "without AVX"
    assert last["runs_sparse"] == "nowhere"
    assert "single pixel" in last["reason"]


def test_reasons_never_raise(tmp_path, reported):
    data = (reported[2] / "float32.tflite").read_bytes()
    broken = [b"", b"x" * 100, data[: len(data) // 2], tmp_path / "absent", 3]
    random = np.random.default_rng(0)
    for _ in range(20):
        changed = np.frombuffer(data, "uint8").copy()
        places = random.integers(0, len(changed), 20)
        changed[places] = random.integers(0, 256, 20)
        broken.append(changed.tobytes())
    for file in broken:
        for row in tf_gems.export.sparse_operators(file):
            assert row["reason"]
    assert "cannot be read" in tf_gems.export.sparse_operators(3)[0]["reason"]


def test_failed_formats_are_rows_with_reasons(tmp_path):
    class Chaos(layers.Layer):
        def call(self, x):
            return keras.ops.sin(1e8 * x)

    inputs = keras.Input((64,))
    x = layers.Dense(64)(inputs)
    sparse, _ = prune(keras.Model(inputs, Chaos()(x)))
    data = np.random.default_rng(0).normal(size=(8, 64)).astype("float32")
    report = tf_gems.deployment_report(
        sparse, tmp_path, (data, None), forms=("float16",), runs=0
    )
    [row] = report.rows
    assert row["export"] is None and "must equal" in row["refused"]
    assert "not written, float16" in str(report)
    assert "Median time" not in str(report)  # Nothing was timed.
    assert report.accuracy is None
    with pytest.raises(ValueError, match="forms='int4'"):
        tf_gems.deployment_report(
            sparse, tmp_path, (data, None), forms=("int4",)
        )


@pytest.mark.parametrize("runs", [-1, 1.5, "x", None, True])
def test_number_of_timed_runs(tmp_path, runs):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="`runs` must be an integer of at le"):
        tf_gems.deployment_report(
            model, tmp_path / "new", (np.ones((2, 4)), None), runs=runs
        )
    assert not list(tmp_path.iterdir())


def test_accuracy_matches_numpy():
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    for labels in (
        [1, 1, 1],
        [[1], [1], [1]],
        [[0, 1], [0, 1], [0, 1]],
    ):
        assert accuracy(labels, outputs) == pytest.approx(2 / 3)


def test_interleaved_timing_runs_each_function_equally_often():
    calls = []
    times = latency.in_turns(
        [lambda: calls.append(0), lambda: calls.append(1)], 20
    )
    assert calls.count(0) == calls.count(1) == 22 and min(times) >= 0
    assert {0, 1} == {calls[0], calls[2]}  # Forwards, then backwards.


def test_accuracy_of_single_output_uses_probabilities():
    outputs = np.array([[0.1], [0.8], [0.6], [0.4]])
    for labels in ([0, 1, 0, 1], [[0], [1], [0], [1]], [False, True] * 2):
        assert accuracy(labels, outputs) == 0.5
    assert accuracy([1, 1, 1, 1], outputs[:, 0]) == 0.5


@pytest.mark.parametrize(
    "labels, outputs, said",
    [
        ([[0.3], [1.7]], [[0.2], [1.5]], "from 0.2 to 1.5"),  # A regression.
        ([0, 1], [[-2.0], [3.0]], "from -2 to 3"),  # Logits.
        ([[1, 1], [0, 0]], [[0.9, 0.8], [0.1, 0.3]], "several classes"),
        ([0, 2], [[0.9, 0.1], [0.1, 0.9]], "labels from 0 to 2"),
        ([0, 1, 1], [[0.9, 0.1], [0.1, 0.9]], r"labels of shape \(3,\)"),
    ],
)
def test_unsupported_accuracy_is_refused(labels, outputs, said):
    with pytest.raises(ValueError, match=rf"Received: .*{said}.* `metric`"):
        accuracy(labels, np.array(outputs))


def report_on(sparse, x, y, directory, runs=0):
    """Returns the accuracies of Keras and of the files."""
    report = tf_gems.deployment_report(
        sparse, directory, (x, y), ("float32", "saved_model"), runs=runs
    )
    return [report.accuracy, *(row["accuracy"] for row in report.rows)]


def test_labels_select_output(tmp_path):
    inputs = keras.Input((64,))
    x = layers.Dense(64)(inputs)
    outputs = {"a": layers.Dense(2)(x), "z": layers.Dense(5)(x)}
    sparse, _ = prune(keras.Model(inputs, outputs), 0.5)
    x = np.random.default_rng(0).normal(size=(30, 64)).astype("float32")
    with pytest.raises(ValueError, match=r"outputs \['a', 'z'\]"):
        report_on(sparse, x, np.zeros(30, int), tmp_path)
    assert not list(tmp_path.iterdir())
    z = np.asarray(sparse(x)["z"]).argmax(-1)
    assert report_on(sparse, x, {"z": z}, tmp_path) == [1.0, 1.0, 1.0]


def test_graph_is_not_split_into_batches(tmp_path):
    """Nodes and edges are not batches, so neither is split into batches."""

    class Graph(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(5)

        def call(self, inputs):
            nodes, edges = inputs
            return keras.ops.take(self.dense(nodes), edges[:, 0], axis=0)

    random = np.random.default_rng(0)
    nodes = random.normal(size=(120, 64)).astype("float32")
    edges = random.integers(0, 120, (150, 2)).astype("int32")
    model = Graph()
    model((nodes, edges))
    sparse, _ = prune(model, 0.5)
    y = np.asarray(sparse((nodes, edges))).argmax(-1)
    accuracies = report_on(sparse, (nodes, edges), y, tmp_path)
    assert accuracies == [1.0, 1.0, 1.0]


def test_adjacency_matrix_is_not_split_into_rows(tmp_path):
    """Features and adjacency have equally many rows, but are one graph."""

    class Graph(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(5)

        def call(self, inputs):
            features, adjacency = inputs
            return keras.ops.matmul(adjacency, self.dense(features))

    random = np.random.default_rng(0)
    features = random.normal(size=(120, 64)).astype("float32")
    adjacency = (random.random((120, 120)) < 0.1).astype("float32")
    model = Graph()
    model((features, adjacency))
    sparse, _ = prune(model, 0.5)
    y = np.asarray(sparse((features, adjacency))).argmax(-1)
    accuracies = report_on(sparse, (features, adjacency), y, tmp_path)
    assert accuracies == [1.0, 1.0, 1.0]


def test_states_persist_across_batches(tmp_path):
    inputs = keras.Input(batch_shape=(4, 3, 8))
    x = layers.SimpleRNN(32, stateful=True)(inputs)
    model = keras.Model(inputs, layers.Dense(3)(x))
    x = np.random.default_rng(0).normal(size=(12, 3, 8)).astype("float32")
    sparse, _ = prune(model, 0.5)
    y = sparse.predict(x, batch_size=4, verbose=0).argmax(-1)
    model.layers[1].reset_state()
    assert report_on(sparse, x, y, tmp_path, runs=2) == [1.0, 1.0, 1.0]
