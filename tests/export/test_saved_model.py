"""Tests that plain TensorFlow loads SavedModels, and that none is replaced."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from export_networks import prune
from export_networks import save_reference

import tf_gems

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)

layers = keras.layers

LOAD = """
import sys

import numpy as np
import tensorflow as tf


def check(outputs, data):
    assert sum(k[:4] == "out_" for k in data) == len(outputs)
    for name, value in outputs.items():
        expected = data["out_" + name]
        assert np.abs(value - expected).max() < 1e-5 * np.abs(expected).max()


for path in sys.argv[1:]:
    data = np.load(path + ".npz")
    feed = {k[3:]: v for k, v in data.items() if k[:3] == "in_"}
    serve = tf.saved_model.load(path).signatures["serving_default"]
    for _ in range(2):
        check(serve(**{k: tf.constant(v) for k, v in feed.items()}), data)
    one = {k: tf.constant(v[:1]) for k, v in feed.items()}
    for name, value in serve(**one).items():
        assert np.allclose(value, data["out_" + name][:1], 1e-4, 1e-4)
    # As TensorFlow Serving does it: a session, and the init operation.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], path)
        signature = graph.signature_def["serving_default"]
        outputs = session.run(
            {k: v.name for k, v in signature.outputs.items()},
            {signature.inputs[k].name: v for k, v in feed.items()},
        )
        check(outputs, data)
    print("served", path)
assert "tf_gems" not in sys.modules
"""
random = np.random.default_rng(0)


def mixed():
    """Several inputs and outputs, kernels of odd sizes and a float16 layer."""
    image = keras.Input((8, 8, 3), name="image")
    numbers = keras.Input((5,), name="numbers")
    x = layers.Conv2D(16, 3, use_bias=False)(image)
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Concatenate()([x, numbers])
    x = layers.Dense(203)(x)
    outputs = [layers.Dense(100)(x), layers.Dense(2)(x)]
    model = keras.Model([image, numbers], outputs)
    return model, {
        "image": random.normal(size=(7, 8, 8, 3)).astype("float32"),
        "numbers": random.normal(size=(7, 5)).astype("float32"),
    }


def recurrent():
    """A loop, a lookup table and dicts."""
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    x = layers.Embedding(50, 32)(tokens)
    x = layers.Bidirectional(layers.GRU(24, return_sequences=True))(x)
    x = layers.MultiHeadAttention(2, 8)(x, x)
    x = layers.Flatten()(x)
    model = keras.Model(
        {"tokens": tokens}, {"a": layers.Dense(25)(x), "b": layers.Dense(9)(x)}
    )
    return model, {"tokens": random.integers(0, 50, (7, 5)).astype("int32")}


def file_bytes(directory):
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(directory)
        for name in names
    )


def test_plain_tensorflow_serves_same_outputs(tmp_path):
    targets = {}
    for build in (mixed, recurrent):
        keras.utils.set_random_seed(0)
        model, feed = build()
        sparse, ticket = prune(model)
        inputs = list(feed.values()) if build is mixed else feed
        before = sparse(inputs)
        target = tmp_path / build.__name__
        target.mkdir()  # The target may be an empty directory.
        report = tf_gems.export_saved_model(sparse, target)
        outputs = before
        if build is mixed:
            outputs = {f"output_{i}": v for i, v in enumerate(before)}
        save_reference(target, feed, outputs)
        targets[str(target)] = report

        assert report.zeros == ticket.size - ticket.kept
        masks = [int((~mask).sum()) for mask in ticket.masks.values()]
        assert sorted(masks) == sorted(
            t["zeros"] for t in report.tensors if "bias" not in t["name"]
        )
        assert report.bytes == file_bytes(target) < report.dense_bytes
        assert report.largest_difference <= 1e-5 * report.largest_output
        assert not report.notes
        as_json = json.loads(json.dumps(report.to_dict()))
        assert as_json["format"] == "saved_model"
        # The network itself is unchanged after the export.
        for one, other in zip(
            keras.tree.flatten(sparse(inputs)),
            keras.tree.flatten(before),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
    assert sorted(os.listdir(tmp_path)) == [
        "mixed",
        "mixed.npz",
        "recurrent",
        "recurrent.npz",
    ]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *targets],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("served") == 2


def test_only_kept_weights_are_stored(tmp_path):
    sizes = []
    for sparsity in (0.98, 0.9):
        x = inputs = keras.Input((300,))
        for _ in range(3):
            x = layers.Dense(300)(x)
        model = keras.Model(inputs, x)
        sparse, ticket = prune(model, sparsity)
        report = tf_gems.export_saved_model(
            sparse, tmp_path / "exported", overwrite=True
        )
        assert {t["encoding"] for t in report.tensors} == {"sparse"}
        sizes.append((ticket.kept, report.bytes))
        # Less than a tenth of the dense weights, only at 98 % zeros.
        assert (report.bytes < 4 * ticket.size / 10) == (sparsity == 0.98)
    (fewer, small), (more, large) = sizes
    # A float32 and a byte for each kept weight, with few filler zeros.
    assert 4.9 < (large - small) / (more - fewer) < 5.1


def test_export_frees_only_its_own_models(tmp_path, monkeypatch):
    """A file with the same weights that was loaded before still works."""
    import tensorflow as tf

    x = tf.constant(random.normal(size=(3, 64)).astype("float32"))
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64)])
    sparse, _ = prune(model)
    tf_gems.export_saved_model(sparse, tmp_path / "a")
    load, loaded = tf.saved_model.load, []

    def serves(directory):
        loaded.append(load(directory))
        return loaded[-1]

    mine = load(tmp_path / "a").signatures["serving_default"]
    monkeypatch.setattr(tf.saved_model, "load", serves)
    tf_gems.export_saved_model(sparse, tmp_path / "b")
    [name] = mine.structured_input_signature[1]
    [theirs] = [file.signatures["serving_default"] for file in loaded]
    with pytest.raises(tf.errors.FailedPreconditionError):
        theirs(**{name: x})
    outputs = mine(**{name: x})["output_0"]
    np.testing.assert_allclose(outputs, sparse(x), rtol=1e-4, atol=1e-4)


def test_two_models_in_one_process_keep_their_weights(tmp_path):
    import tensorflow as tf

    x = random.normal(size=(3, 64)).astype("float32")
    loaded, expected = [], []
    for seed in (0, 1, 1):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input((64,)), layers.Dense(64)])
        sparse, _ = prune(model, seed=seed)
        path = tmp_path / str(len(loaded))
        tf_gems.export_saved_model(sparse, path)
        loaded.append(tf.saved_model.load(path).signatures["serving_default"])
        expected.append(np.asarray(sparse(x)))
    del loaded[1]  # It has the weights of the last model.
    for serve, value in zip(loaded, expected[::2], strict=True):
        [name] = serve.structured_input_signature[1]
        outputs = serve(**{name: tf.constant(x)})["output_0"]
        np.testing.assert_allclose(outputs, value, rtol=1e-4, atol=1e-4)


class Counts(keras.layers.Layer):
    """Counts its calls in a variable."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), trainable=False)

    def call(self, x):
        self.calls.assign_add(1.0)
        return x


def test_unused_state_is_not_exported(tmp_path):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64), Counts()])
    sparse, _ = prune(model)
    before = float(model.layers[-1].calls)
    report = tf_gems.export_saved_model(sparse, tmp_path / "exported")
    [note] = report.notes
    assert "are left out" in note and "counts/" in note
    assert [t["encoding"] for t in report.tensors] == ["sparse"]
    assert float(model.layers[-1].calls) == before


class Steps(Counts):
    """Adds the number of its calls."""

    def call(self, x):
        return super().call(x) + self.calls


def test_stateful_network_continues_from_its_state(tmp_path):
    import tensorflow as tf

    model = keras.Sequential([keras.Input((64,)), layers.Dense(64), Steps()])
    sparse, _ = prune(model)
    x = random.normal(size=(3, 64)).astype("float32")
    sparse(x)
    before = float(model.layers[-1].calls)
    report = tf_gems.export_saved_model(sparse, tmp_path / "exported", x)
    assert float(model.layers[-1].calls) == before
    assert any("current values" in note for note in report.notes)
    assert [t["encoding"] for t in report.tensors] == ["sparse"]
    loaded = tf.saved_model.load(f"{tmp_path / 'exported'}")
    serve = loaded.signatures["serving_default"]
    [name] = serve.structured_input_signature[1]
    for _ in range(2):
        expected = sparse(x)
        outputs = serve(**{name: tf.constant(x)})["output_0"]
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


class Noise(keras.layers.Layer):
    """Computes unpredictable outputs without a known seed."""

    def call(self, x):
        import tensorflow as tf

        return x + tf.random.normal((1,))


def test_refusals(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    target = tmp_path / "exported"
    with pytest.raises(RuntimeError, match="no ticket before mining"):
        tf_gems.export_saved_model(tf_gems.SparseModel(model), target)
    noisy = keras.Sequential([keras.Input((4,)), layers.Dense(3), Noise()])
    with pytest.raises(RuntimeError, match="outputs of an export must equal"):
        tf_gems.export_saved_model(noisy, target)
    with pytest.raises(FileNotFoundError, match="Create it first"):
        tf_gems.export_saved_model(model, tmp_path / "none" / "exported")
    with pytest.raises(ValueError, match="Keras 3 models.*model=list"):
        tf_gems.export_saved_model([], target)
    assert not os.listdir(tmp_path)

    target.write_text("a file")
    with pytest.raises(FileExistsError, match="is a file"):
        tf_gems.export_saved_model(model, target, overwrite=True)
    target.unlink()
    target.mkdir()
    (target / "mine").write_text("kept")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        tf_gems.export_saved_model(model, target)
    assert os.listdir(target) == ["mine"]
    # A directory without a SavedModel is not replaced.
    with pytest.raises(FileExistsError, match="which contains other files"):
        tf_gems.export_saved_model(model, target, overwrite=True)
    assert os.listdir(target) == ["mine"]
    (target / "mine").unlink()
    for _ in range(2):
        tf_gems.export_saved_model(model, target, overwrite=True)
    assert "saved_model.pb" in os.listdir(target)
    assert os.listdir(tmp_path) == ["exported"]


def test_jax_backend_is_refused_with_remedy(tmp_path):
    pytest.importorskip("jax")
    code = (
        "import keras, tf_gems, sys\n"
        "model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])\n"
        "assert 'tensorflow' not in sys.modules\n"
        "for export, path in [(tf_gems.export_litert, 'a.tflite'),"
        " (tf_gems.export_saved_model, 'a')]:\n"
        "    try:\n"
        "        export(model, path)\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )
    assert done.stdout.count("process with KERAS_BACKEND=tensorflow") == 2, (
        done.stderr
    )
    assert not os.listdir(tmp_path)


MEMORY = """
import sys
from pathlib import Path

import keras
import numpy as np

import tf_gems


def mebibytes(name):
    status = dict(
        line.split(":") for line in Path("/proc/self/status").open()
    )
    return int(status[name].split()[0]) / 1024


model = keras.Sequential([keras.Input((2048,))])
for _ in range(4):
    model.add(keras.layers.Dense(2048, use_bias=False))
for layer in model.layers:
    kernel = layer.kernel.numpy()
    kernel[::2] = 0
    layer.kernel.assign(kernel)
x = np.ones((1, 2048), "float32")
small = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
tf_gems.export_saved_model(small, sys.argv[1], x[:, :64], overwrite=True)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = mebibytes("VmRSS")
report = tf_gems.export_saved_model(model, sys.argv[1], x, overwrite=True)
assert {t["encoding"] for t in report.tensors} == {"sparse"}
print("peak", (mebibytes("VmHWM") - before) / 64)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"),
    reason="the peak of memory is read from Linux",
)
def test_peak_memory_is_a_few_times_the_weights(tmp_path):
    """64 MiB of weights, half of them zeros. It once took 13 times that."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "exported")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("peak")[1]) < 3
