"""Compares plans with real exports and with the table of speed-ups."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_gems
from tf_gems.planning import speeds
from tf_gems.planning.channels import removable_kernels
from tf_gems.planning.converted import Converted

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)

layers = keras.layers


def perceptron(*sizes):
    return keras.Sequential(
        [keras.Input(sizes[:1]), *(layers.Dense(n) for n in sizes[1:])]
    )


@pytest.fixture(scope="module")
def mobile():
    return tf_gems.zoo.mobilenet_v1((96, 96, 3), 1000)


@pytest.mark.parametrize(
    "filters, distribution", [(None, "global"), ("pointwise", "uniform")]
)
def test_bytes_match_export(tmp_path, filters, distribution):
    model = tf_gems.zoo.mobilenet_v1((64, 64, 3), 20, alpha=0.25)
    sparsity = 0.93
    expected = Converted(model).bytes(
        sparsity, filters == "pointwise", False, "size"
    )
    sparse = tf_gems.SparseModel(model, filters, seed=0)
    method = tf_gems.methods.RandomPruning(
        sparsity, 0, distribution=distribution
    )
    sparse.start_finetuning(method.find(sparse))
    report = tf_gems.export_litert(
        sparse, tmp_path / "model.tflite", batch_size=1
    )
    np.testing.assert_allclose(expected, report.bytes, rtol=0.02)


@pytest.mark.parametrize(
    "pattern, sparsity",
    [("unstructured", 0.98), ("unstructured", 0.9), ("4x1", 0.9)],
)
def test_bytes_of_dense_layers(tmp_path, pattern, sparsity):
    model = perceptron(784, 300, 100, 10)
    blocks = pattern != "unstructured"
    expected = Converted(model).bytes(sparsity, False, blocks, "latency")
    sparse = tf_gems.SparseModel(model, seed=0)
    method = tf_gems.methods.RandomPruning(
        sparsity, 0, distribution="uniform", pattern=pattern
    )
    sparse.start_finetuning(method.find(sparse))
    report = tf_gems.export_litert(
        sparse, tmp_path / "model.tflite", batch_size=1, optimize="latency"
    )
    np.testing.assert_allclose(expected, report.bytes, rtol=0.03)


def test_plan_of_measured_network_uses_its_measurements(mobile):
    plan = tf_gems.plan(mobile, speedup=3.0)
    [network] = [
        n
        for n in speeds.table()["targets"]["browser"]["unstructured"]
        if n["name"] == "MobileNet v1 x1, 96 px"
    ]
    points = {s: speed for s, speed, *_ in network["points"]}
    below = max(s for s, speed in points.items() if speed < 3)
    above = min(s for s, speed in points.items() if speed >= 3)
    assert below < plan.target_sparsity <= above
    part = (plan.target_sparsity - below) / (above - below)
    value = points[below] ** (1 - part) * points[above] ** part
    np.testing.assert_allclose(plan.speedup.speedup, value, rtol=1e-3)
    np.testing.assert_allclose(value, 3.0, rtol=0.02)
    assert plan.speedup.certainty == speeds.BETWEEN_SPARSITIES
    assert plan.speedup.networks == [network["name"]]
    assert (plan.filters, plan.distribution) == ("pointwise", "uniform")
    assert plan.speedup.low <= 3.001 and plan.speedup.high >= 2.999
    # With a size limit as well, more weights are pruned, in all layers.
    small = tf_gems.plan(mobile, max_bytes=1_500_000, speedup=3.0)
    assert small.filters is None
    assert small.bytes <= 1_500_000 < plan.bytes
    assert small.target_sparsity > plan.target_sparsity
    assert "about 16,9" not in small.render() and "Prune" in small.render()
    assert json.loads(json.dumps(small.to_dict()))["bytes"] == small.bytes


def test_plan_arguments_for_callback_and_export(tmp_path):
    model = perceptron(64, 64, 10)
    plan = tf_gems.plan(model, max_bytes=8_000)
    assert plan.speedup is None and "not measured" in str(plan)
    assert plan.distribution == "global"
    sparse = tf_gems.SparseModel(model, filters=plan.filters, seed=0)
    sparse.compile(keras.optimizers.SGD(1.0), "mse")
    callback = tf_gems.GemMinerCallback(**plan.settings, freeze_period=1)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(64, 64)), random.normal(size=(64, 10))
    sparse.fit(x, y, epochs=3, verbose=0, callbacks=[callback])
    sparse.start_finetuning()
    np.testing.assert_allclose(sparse.sparsity, plan.target_sparsity, atol=1e-3)
    report = tf_gems.export_litert(
        sparse,
        tmp_path / "small.tflite",
        batch_size=1,
        optimize=plan.optimize,
    )
    np.testing.assert_allclose(report.bytes, plan.bytes, rtol=0.05)


def test_native_plan_chooses_pattern_with_least_pruning():
    plan = tf_gems.plan(
        perceptron(784, 300, 100, 10), speedup=3.0, target="native"
    )
    tables = speeds.load("native")
    tables.pop("channel")  # By the fraction of removed multiply-adds.
    assert plan.pattern == "4x1" and plan.optimize == "latency"
    features = [np.log(784 * 300 + 300 * 100 + 1000)]
    for shape, table in tables.items():
        found = [s for s in (0.9, 0.95, 0.98) if s < plan.target_sparsity]
        for sparsity in found:
            assert table.at(features, sparsity).speedup < 3, (shape, sparsity)
    assert tables[plan.pattern].at(features, plan.target_sparsity).speedup >= 3
    larger = tf_gems.plan(
        perceptron(784, 500, 300, 10), speedup=3.0, target="native"
    )
    assert larger.speedup.certainty == speeds.BETWEEN_NETWORKS
    assert larger.speedup.low < 3 < larger.speedup.high
    assert "may be less than 3 times" in str(larger)
    tiny = tf_gems.plan(perceptron(64, 32, 10), speedup=2.0, target="native")
    assert tiny.speedup.certainty == speeds.EXTRAPOLATED
    assert tiny.speedup.high / tiny.speedup.low > (
        larger.speedup.high / larger.speedup.low
    )


def test_unreachable_target_is_refused_with_best_value(mobile):
    with pytest.raises(
        ValueError, match=r"The best values are: about [\d,]+ bytes and"
    ):
        tf_gems.plan(mobile, speedup=100.0)
    with pytest.raises(ValueError, match="max_bytes=900,.* at sparsity 0.999"):
        tf_gems.plan(perceptron(64, 64, 10), max_bytes=900)
    convolution = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten()]
    )
    with pytest.raises(ValueError, match="CONV_2D, from which no.* Use target"):
        tf_gems.plan(convolution, speedup=2.0, target="native")
    with pytest.raises(ValueError, match="does not begin.*sparse_ready"):
        tf_gems.plan(perceptron(8, 4), speedup=2.0)
    with pytest.raises(ValueError, match="stride 2 over three channels"):
        tf_gems.plan(convolution, speedup=2.0)
    with pytest.raises(ValueError, match="requires a target"):
        tf_gems.plan(mobile)
    with pytest.raises(ValueError, match="`speedup` must be a number above 1"):
        tf_gems.plan(mobile, speedup=0.5)
    with pytest.raises(ValueError, match="target='phone'"):
        tf_gems.plan(mobile, speedup=2.0, target="phone")


def pruned_file(tmp_path, model, plan):
    """Returns the report of an export that carries a plan out."""
    sparse = tf_gems.SparseModel(model, plan.filters, start=plan.start)
    method = tf_gems.methods.Magnitude(**plan.settings)
    sparse.start_finetuning(method.find(sparse))
    np.testing.assert_allclose(sparse.sparsity, plan.target_sparsity, atol=1e-3)
    return tf_gems.export_litert(
        sparse,
        tmp_path / "model.tflite",
        batch_size=1,
        optimize=plan.optimize,
    )


def test_weights_in_a_loop_are_counted(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 6)), layers.LSTM(48), layers.Dense(4)]
    )
    plan = tf_gems.plan(model, max_bytes=30_000, start="trained")
    report = pruned_file(tmp_path, model, plan)
    np.testing.assert_allclose(report.bytes, plan.bytes, rtol=0.03)
    assert plan.bytes < 0.8 * plan.dense_bytes
    # The speed of what runs in a loop is not that of its dense layers.
    with pytest.raises(ValueError, match="with WHILE, from which"):
        tf_gems.plan(model, speedup=1.5, target="native")


def test_what_is_not_prunable_keeps_its_bytes(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((16, 16, 16)),
            layers.DepthwiseConv2D(9),
            layers.Conv2D(64, 1),
            layers.Conv2D(64, 1),
            layers.GlobalAveragePooling2D(),
        ]
    )
    model.layers[2].trainable = False
    plan = tf_gems.plan(model, max_bytes=25_000, start="trained")
    report = pruned_file(tmp_path, model, plan)
    np.testing.assert_allclose(report.bytes, plan.bytes, rtol=0.02)
    assert plan.distribution == "lamp" and "but depthwise" in str(plan)
    mined = tf_gems.plan(model, max_bytes=25_000)
    assert mined.target_sparsity < plan.target_sparsity
    with pytest.raises(ValueError, match="does not reach the target"):
        tf_gems.plan(model, max_bytes=4 * 64 * 64)
    [kernel] = removable_kernels(model)
    assert kernel is model.layers[1].kernel
    model.layers[1].trainable = False
    assert removable_kernels(model) == []


def test_zeros_that_are_there_count_and_wrapped_models_are_refused():
    model = perceptron(64, 64, 10)
    kernel = model.layers[0].kernel
    kernel.assign(kernel * (np.arange(64) % 8 == 0))
    plan = tf_gems.plan(model, max_bytes=15_000)
    zeros = 64 * 64 * 7 / 8 / (64 * 64 + 640)
    np.testing.assert_allclose(plan.target_sparsity, zeros, atol=1e-3)
    assert plan.target_sparsity >= zeros
    with pytest.raises(ValueError, match="before it is wrapped"):
        tf_gems.plan(tf_gems.SparseModel(model), max_bytes=15_000)


def test_table_matches_results():
    """Fails if a benchmark was run again without `speed_table.py`."""
    results = Path(__file__).parents[2] / "benchmarks" / "results"
    table = speeds.table()
    assert table["sources"]
    for source in table["sources"]:
        assert (results.parents[1] / source.split(",")[0]).is_file()
    points = {
        (target, shape, n["name"], p[0]): p[1:]
        for target, shapes in table["targets"].items()
        for shape, networks in shapes.items()
        for n in networks
        for p in n["points"]
    }
    for name, target in (("browser", "browser"), ("native", "native")):
        found = json.loads((results / f"{name}.json").read_text("utf-8"))
        for row in found["results"]:
            if not row["sparsity"]:
                continue
            shape = "4x1" if "blocks" in row.get("places", "") else None
            title = f"MobileNet {row['network']} x1, {row.get('size')} px"
            if target == "native":
                title = "-".join(map(str, row["network"]))
            key = (target, shape or "unstructured", title, row["sparsity"])
            speedup, low, high = points[key]
            expected = min(row["speedup"], row["speedup_of_fastest"])
            np.testing.assert_allclose(speedup, expected, atol=1e-4)
            assert low <= speedup <= high


def test_estimates_interpolate_measurements():
    networks = [
        {"name": name, "features": [x], "points": [[0.9, v, v, v]]}
        for name, x, v in (("a", 0.0, 2.0), ("b", 1.0, 8.0))
    ]
    table = speeds.Speeds(networks)
    assert table.at([0.0], 0.9).certainty == speeds.MEASURED
    assert table.at([0.0], 0.9).speedup == 2.0
    middle = table.at([0.5], 0.9)
    np.testing.assert_allclose(middle.speedup, 4.0)  # Mean of the logarithms.
    # Each network differs from the other's prediction by a factor of four.
    np.testing.assert_allclose(table.error, 3.0)
    np.testing.assert_allclose([middle.low, middle.high], [1.0, 16.0])
    assert middle.certainty == speeds.BETWEEN_NETWORKS
    outside = table.at([3.0], 0.9)
    assert outside.certainty == speeds.EXTRAPOLATED
    weights = np.array([1 / 9, 1 / 4])
    expected = np.exp(weights @ np.log([2, 8]) / weights.sum())
    np.testing.assert_allclose(outside.speedup, expected)
    np.testing.assert_allclose(outside.high, 7 * expected)
