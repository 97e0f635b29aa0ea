"""SavedModels: plain TensorFlow loads them, and they replace nothing."""

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

data = np.load(sys.argv[1] + ".npz")
loaded = tf.saved_model.load(sys.argv[1])
feed = {k[3:]: tf.constant(v) for k, v in data.items() if k[:3] == "in_"}
outputs = loaded.signatures["serving_default"](**feed)
assert sum(k[:4] == "out_" for k in data) == len(outputs)
for name, value in outputs.items():
    expected = data["out_" + name]
    assert np.abs(value - expected).max() < 1e-5 * np.abs(expected).max()
kernels = [v.numpy() for v in loaded.variables if v.shape.rank > 1]
assert "tf_gems" not in sys.modules
print(sum(int((kernel == 0).sum()) for kernel in kernels))
"""


def network():
    image = keras.Input((8, 8, 3), name="image")
    numbers = keras.Input((5,), name="numbers")
    x = layers.Conv2D(16, 3, use_bias=False)(image)
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Concatenate()([x, numbers])
    x = layers.Dense(200)(x)
    outputs = [layers.Dense(100)(x), layers.Dense(2)(x)]
    return keras.Model([image, numbers], outputs)


def test_plain_tensorflow_serves_the_same(tmp_path):
    sparse, ticket = prune(network())
    random = np.random.default_rng(0)
    image = random.normal(size=(7, 8, 8, 3)).astype("float32")
    numbers = random.normal(size=(7, 5)).astype("float32")
    target = tmp_path / "exported"
    target.mkdir()  # an empty directory may stand there
    report = tf_gems.export_saved_model(sparse, target)
    first, second = sparse([image, numbers])
    save_reference(
        target,
        {"image": image, "numbers": numbers},
        {"output_0": first, "output_1": second},
    )
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(target)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    zeros = ticket.size - ticket.kept
    assert int(done.stdout.split()[-1]) == zeros == report.zeros

    size = sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(target)
        for name in names
    )
    assert report.bytes == size
    assert report.gzip_bytes < 0.7 * report.dense_gzip_bytes
    assert report.largest_difference <= 1e-5 * report.largest_output
    assert json.loads(json.dumps(report.to_dict()))["format"] == "saved_model"
    assert sorted(os.listdir(tmp_path)) == ["exported", "exported.npz"]
    # The network itself is as it was: its twin was only borrowed from it.
    np.testing.assert_array_equal(sparse([image, numbers])[0], first)


class Noise(keras.layers.Layer):
    """Computes something else each time."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal((1,), seed=self.seed)


def test_refusals(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    target = tmp_path / "exported"
    with pytest.raises(RuntimeError, match="no ticket before mining"):
        tf_gems.export_saved_model(tf_gems.SparseModel(model), target)
    noisy = keras.Sequential([keras.Input((4,)), layers.Dense(3), Noise()])
    with pytest.raises(RuntimeError, match="must compute what the Keras"):
        tf_gems.export_saved_model(noisy, target)
    with pytest.raises(FileNotFoundError, match="Make it first"):
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
    tf_gems.export_saved_model(model, target, overwrite=True)
    assert "saved_model.pb" in os.listdir(target)
    assert "mine" not in os.listdir(target)
    assert os.listdir(tmp_path) == ["exported"]


def test_jax_backend_is_refused_with_a_way_out(tmp_path):
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
