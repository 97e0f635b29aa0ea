"""Measures what hls4ml and OpenVINO gain from zeros.

    pip install hls4ml openvino
    python benchmarks/elsewhere.py --output=benchmarks/results/elsewhere.json

A small network with random weights is run dense and with 90 % zeros, pruned by
magnitude in each layer. For hls4ml, the benchmark records the limit on
multipliers in the generated source and the outputs of its compiled emulation.
For OpenVINO, it records the size of the weights and the outputs, with and
without the option for sparse weights. Nothing is timed.
"""

import gzip
import importlib.metadata
import re
import tempfile
from pathlib import Path

import keras
import mining  # noqa: F401  # must be the first import: silences TensorFlow
import numpy as np
from absl import app
from absl import flags
from results_file import write_results

FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

SIZES = (16, 64, 32, 5)


def network(sparsity):
    """Returns a network of dense layers with zeros."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(SIZES[:1])])
    for number, size in enumerate(SIZES[1:]):
        activation = "relu" if number < len(SIZES) - 2 else None
        layer = keras.layers.Dense(size, activation, name=f"dense_{number}")
        model.add(layer)
        value = layer.kernel.numpy()
        limit = np.quantile(np.abs(value), sparsity)
        layer.kernel.assign(np.where(np.abs(value) < limit, 0.0, value))
    return model


def in_hls4ml(model, inputs, folder):
    """Returns the multipliers and the outputs of a model in hls4ml."""
    import hls4ml

    config = hls4ml.utils.config_from_keras_model(
        model, granularity="name", default_precision="fixed<24,8>"
    )
    design = hls4ml.converters.convert_from_keras_model(
        model,
        hls_config=config,
        output_dir=folder,
        backend="Vitis",
        io_type="io_parallel",
    )
    design.compile()
    text = Path(folder, "firmware", "parameters.h").read_text("utf-8")
    zeros = list(map(int, re.findall(r"n_zeros = (\d+)", text)))
    reuse = set(re.findall(r"reuse_factor = (\d+)", text))
    assert reuse == {"1"} and "- n_zeros / reuse_factor" in text
    sizes = [a * b for a, b in zip(SIZES[:-1], SIZES[1:], strict=True)]
    found = [a - b for a, b in zip(sizes, zeros, strict=True)]
    return {"multipliers": found}, design.predict(inputs)


def in_openvino(model, inputs, folder):
    """Returns the size in bytes and the outputs of a model in OpenVINO."""
    import openvino

    model.export(f"{folder}/saved", verbose=False)
    converted = openvino.convert_model(f"{folder}/saved")
    openvino.save_model(converted, f"{folder}/m.xml", compress_to_fp16=False)
    data = Path(folder, "m.bin").read_bytes()
    core = openvino.Core()
    options = {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": 0.5}
    [outputs] = core.compile_model(converted, "CPU", options)(inputs).values()
    row = {
        "bytes": len(data),
        "gzip_bytes": len(gzip.compress(data, mtime=0)),
        "precision": core.get_property(
            "CPU", "INFERENCE_PRECISION_HINT"
        ).to_string(),
    }
    return row, outputs


def main(_):
    """Runs both tools, prints the rows and writes JSON."""
    rows = []
    inputs = np.random.default_rng(0).normal(size=(100, SIZES[0]))
    inputs = inputs.astype("float32")
    for tool, run in (("hls4ml", in_hls4ml), ("openvino", in_openvino)):
        for sparsity in (0.0, 0.9):
            model = network(sparsity)
            expected = model.predict(inputs, verbose=0)
            with tempfile.TemporaryDirectory() as folder:
                row, outputs = run(model, inputs, folder)
            difference = np.abs(np.asarray(outputs) - expected).max()
            rows.append(
                {
                    "tool": tool,
                    "version": importlib.metadata.version(tool),
                    "sparsity": sparsity,
                    **row,
                    "largest_difference": float(difference),
                    "largest_output": float(np.abs(expected).max()),
                }
            )
            print(rows[-1], flush=True)
    write_results(
        FLAGS.output,
        "elsewhere",
        rows,
    )


if __name__ == "__main__":
    app.run(main)
