"""A sparse TFLite file and its dense twin, checked against Keras.

The twins hold the same weights, zeros included; only the encoding differs.
Benchmarks time them in turns, in pairs, so that a busy machine slows both.
"""

import os
import statistics
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import tf_gems
from tf_gems.export.readiness_report import dense_file

TOLERANCE = 1e-4


def make_twins(model, sparsity, folder, name, **settings):
    """Prunes a model at random and writes it twice.

    Args:
        model: Built Keras model with one input.
        sparsity: Float, the fraction of zeros; 0 for a control, of which both
            files are dense.
        folder: Path to write to.
        name: String, the beginning of the files' names.
        **settings: `filters` of `tf_gems.SparseModel`, `pattern` of the pruning
            method, `optimize` of the export, `examples`: their number.

    Returns:
        Dict: `dense` and `sparse`, paths; `inputs` and `outputs`, float32
        arrays, what Keras computes; `bytes` of both files, `notes`.
    """
    random = np.random.default_rng(0)
    for variable in model.weights:
        if "moving_mean" in variable.path:
            value = random.normal(size=variable.shape) * 0.1
            variable.assign(value.astype("float32"))
    plain = model
    if sparsity:
        sparse = tf_gems.SparseModel(model, settings.get("filters"), seed=0)
        method = tf_gems.methods.RandomPruning(
            sparsity, 0, pattern=settings.get("pattern", "unstructured")
        )
        sparse.start_finetuning(method.find(sparse))
        plain = tf_gems.strip(sparse)
    shape = (settings.get("examples", 4), *plain.input_shape[1:])
    inputs = random.normal(size=shape).astype("float32")
    return write_twins(
        plain, inputs, folder, name, settings.get("optimize", "size")
    )


def write_twins(plain, inputs, folder, name, optimize="size"):
    """Writes a plain Keras model twice, with dense and with sparse weights.

    Args:
        plain: Keras model; if no weight of it is zero, it is a control, of
            which both files are dense.
        inputs: Float32 array of a few examples.
        folder: Path to write to.
        name: String, the beginning of the files' names.
        optimize: See `tf_gems.export_litert`.

    Returns:
        Dict as of `make_twins`.
    """
    paths = [
        Path(folder, f"{name}.{kind}.tflite") for kind in ("dense", "sparse")
    ]
    paths[0].write_bytes(dense_file(plain))
    notes = []
    if has_zeros(plain):
        notes = tf_gems.export_litert(
            plain, paths[1], inputs=inputs, batch_size=1, optimize=optimize
        ).notes
    else:
        paths[1].write_bytes(paths[0].read_bytes())
    outputs = keras.ops.convert_to_numpy(plain(inputs, training=False))
    return {
        "dense": paths[0],
        "sparse": paths[1],
        "inputs": inputs,
        "outputs": np.asarray(outputs, "float32"),
        "bytes": [path.stat().st_size for path in paths],
        "notes": notes,
    }


def has_zeros(model):
    """Returns whether a twentieth of any kernel is zero."""
    kernels = [np.asarray(w) for w in model.weights if len(w.shape) > 1]
    return any(np.mean(kernel == 0) > 0.05 for kernel in kernels)


def relative_error(found, expected):
    """Returns the largest difference, as a fraction of the largest output."""
    found = np.asarray(found, "float64").reshape(np.shape(expected))
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def refuse_wrong(error, what):
    """Raises an error if a file does not compute what Keras does."""
    if error > TOLERANCE:
        raise RuntimeError(
            f"{what} differs from Keras by {error:.2g} of its largest output. "
            "Its time would mean nothing."
        )


def summary(dense, sparse):
    """Summarises times that were measured in pairs.

    Args:
        dense: List of seconds.
        sparse: List of seconds, each measured beside one of `dense`.

    Returns:
        Dict: medians in milliseconds; `speedup`, the median of the ratios,
        with the quartiles of these; `speedup_of_fastest`, the ratio of the
        least times, in which other work on the machine disturbs least.
    """
    ratios = [d / s for d, s in zip(dense, sparse, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "dense_ms": 1e3 * statistics.median(dense),
        "sparse_ms": 1e3 * statistics.median(sparse),
        "speedup": statistics.median(ratios),
        "speedup_quartiles": [low, high],
        "fastest_ms": [1e3 * min(dense), 1e3 * min(sparse)],
        "speedup_of_fastest": min(dense) / min(sparse),
        "pairs": len(ratios),
    }
