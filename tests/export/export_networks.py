"""Tiny pruned networks for exports, and an independent reader."""

import subprocess
import sys

import keras
import numpy as np

import tf_gems

layers = keras.layers

RUN_LITERT = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter

for path in sys.argv[1:]:
    data = dict(np.load(path + ".npz"))
    feed = {k[3:]: v for k, v in data.items() if k.startswith("in_")}
    expected = {k[4:]: v for k, v in data.items() if k.startswith("out_")}
    runner = Interpreter(path).get_signature_runner()
    fixed = path.endswith("fixed.tflite")
    for batch in (1,) if fixed else (len(next(iter(feed.values()))), 1):
        outputs = runner(**{k: v[:batch] for k, v in feed.items()})
        assert set(outputs) == set(expected), (set(outputs), set(expected))
        for name, value in expected.items():
            error = np.abs(outputs[name] - value[:batch]).max()
            print(path, batch, error / np.abs(value[:batch]).max())
assert "tensorflow" not in sys.modules
assert "tf_gems" not in sys.modules
"""


def prune(model, sparsity=0.9, seed=0):
    """Returns a sparse model with a handmade ticket, and the ticket."""
    random = np.random.default_rng(seed)
    sparse = tf_gems.SparseModel(model, seed=seed)
    masks, weights = {}, {}
    prunable = {id(w.weight) for w in sparse.gem.prunable}
    for variable in model.weights:
        value = keras.ops.convert_to_numpy(variable)
        if "variance" in variable.path or "gamma" in variable.path:
            value = random.uniform(0.5, 2.0, value.shape)
        else:
            # Large enough that the kept weights change the outputs.
            value = random.normal(size=value.shape)
        weights[variable.path] = value.astype("float32")
        if id(variable) in prunable:
            masks[variable.path] = random.random(value.shape) >= sparsity
    ticket = tf_gems.Ticket(masks, weights)
    ticket.apply(sparse)
    return sparse, ticket


def mobile(middle=None, stem_padding=True):
    """A network that starts with XNNPACK's stem and ends with an average."""
    x = inputs = keras.Input((16, 16, 3), name="image")
    if stem_padding:
        x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    y = x = layers.Conv2D(32, 1, activation="relu")(x)
    if middle is not None:
        x = middle(x)
    x = layers.Conv2D(32, 1)(x)
    x = layers.Add()([x, y]) if x.shape == y.shape else x
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(24, activation="softmax")(x))


def save_reference(path, feed, outputs):
    np.savez(
        f"{path}.npz",
        **{f"in_{k}": v for k, v in feed.items()},
        **{f"out_{k}": np.asarray(v) for k, v in outputs.items()},
    )


def run_alone(paths, command=(sys.executable,), env=None):
    """Runs files with LiteRT alone. Returns the relative errors by file."""
    done = subprocess.run(
        [*command, "-c", RUN_LITERT, *map(str, paths)],
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    errors = {}
    for line in done.stdout.splitlines():
        path, batch, error = line.split()
        errors.setdefault(path, {}).setdefault(int(batch), []).append(
            float(error)
        )
    return errors
