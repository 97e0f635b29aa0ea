"""Creates sparse and dense TFLite files of a model, checked against Keras.

Both files hold the same weights, zeros included, and differ only in their
encoding. Benchmarks time them alternately, in pairs, so that other load on the
machine affects both equally.
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
    """Prunes a model at random and writes it as two files.

    Args:
        model: Built Keras model with one input.
        sparsity: Float, fraction of zeros. 0 is a control, for which both files
            are dense.
        folder: Path of the output directory.
        name: String, stem of the file names.
        **settings: `filters` of `tf_gems.SparseModel`, `pattern` of the pruning
            method, `optimize` of the export, and `examples`, the number of
            examples.

    Returns:
        Dict with the paths `dense` and `sparse`, the float32 arrays `inputs`
        and `outputs` (computed by Keras), the `bytes` of both files, and
        `notes`.
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
    """Writes a plain Keras model with dense and with sparse weights.

    Args:
        plain: Keras model. A model without zeros is a control, for which both
            files are dense.
        inputs: Float32 array of a few examples.
        folder: Path of the output directory.
        name: String, stem of the file names.
        optimize: See `tf_gems.export_litert`.

    Returns:
        Dict. See `make_twins`.
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
    """Returns whether any kernel has more than 5 % zeros."""
    kernels = [np.asarray(w) for w in model.weights if len(w.shape) > 1]
    return any(np.mean(kernel == 0) > 0.05 for kernel in kernels)


def relative_error(found, expected):
    """Returns the largest difference relative to the largest output."""
    found = np.asarray(found, "float64").reshape(np.shape(expected))
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def refuse_wrong(error, what):
    """Raises an error if the outputs of a file differ from those of Keras."""
    if error > TOLERANCE:
        raise RuntimeError(
            f"{what} differs from Keras by {error:.2g} of its largest output. "
            "Its time is meaningless."
        )


def summary(dense, sparse):
    """Summarizes times that were measured in pairs.

    Args:
        dense: List of seconds.
        sparse: List of seconds, each paired with an entry of `dense`.

    Returns:
        Dict of the medians in milliseconds, `speedup` (the median of the
        ratios, with quartiles), and `speedup_of_fastest` (the ratio of the
        least times, which other load on the machine affects least).
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
