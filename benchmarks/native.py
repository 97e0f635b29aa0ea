"""Measures the speed-up of sparse dense layers outside a browser.

    python benchmarks/native.py --output=benchmarks/results/native.json

Runs multilayer perceptrons in the installed LiteRT, with one example and one
thread. A file with dense weights and a file that stores the same zeros sparsely
run alternately. The zeros are at random positions, or in blocks of four along
the inputs. TFLite calls these blocks 1x4 and `tf_gems` calls them
`pattern="4x1"`, because kernels have the shape (inputs, outputs) in Keras and
(outputs, inputs) in TFLite. Both files are compared with Keras before they are
timed. On x86 with AVX, convolutions have no speed-up. See `browser.py` for
those. With `--mined`, the networks that `mined_mlp.py` mined on MNIST replace
those with random zeros.
"""

import importlib.metadata
import tempfile
import time

import mining  # must be the first import: silences TensorFlow
import numpy as np
import twins
from absl import app
from absl import flags
from keras import models
from perceptrons import PATTERNS
from perceptrons import perceptron
from results_file import write_results

from tf_gems.quiet import quiet

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "sparsities",
    ["0", "0.9", "0.95", "0.98"],
    "Fractions of zeros, each in [0, 1).",
)
flags.DEFINE_integer(
    "pairs", 61, "Number of pairs of times, one dense and one sparse."
)
flags.DEFINE_string(
    "mined", None, "Directory of networks that `mined_mlp.py` trained."
)
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

SIZES = ([784, 300, 100, 10], [784, 1024, 1024, 10], [1024, 2048, 2048, 16])
LEAST_SECONDS = 2e-3


def interpreter(path):
    """Returns a function that runs a file on one example."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        found = Interpreter(str(path), num_threads=1)
        found.allocate_tensors()
    [read], [written] = found.get_input_details(), found.get_output_details()

    def run(example):
        found.set_tensor(read["index"], example)
        found.invoke()
        return found.get_tensor(written["index"])

    return run


def measure(pair):
    """Checks and times two files. Returns a dict."""
    found, errors = [], []
    for kind in ("dense", "sparse"):
        run = interpreter(pair[kind])
        outputs = [run(example[None]) for example in pair["inputs"]]
        errors.append(twins.relative_error(outputs, pair["outputs"]))
        twins.refuse_wrong(errors[-1], str(pair[kind]))
        found.append(run)
    repeats = 1
    example = pair["inputs"][:1]
    while seconds(found[0], example, repeats) < LEAST_SECONDS:
        repeats *= 2
    times = [[], []]
    for number in range(FLAGS.pairs):
        order = (0, 1) if number % 2 else (1, 0)
        for which in order:
            took = seconds(found[which], example, repeats)
            times[which].append(took / repeats)
    return {**twins.summary(*times), "relative_errors": errors}


def seconds(run, example, repeats):
    """Returns the seconds of several runs, including copies of the data."""
    begin = time.perf_counter()
    for _ in range(repeats):
        run(example)
    return time.perf_counter() - begin


def random_cases(folder):
    """Yields rows and pairs of files with random zeros."""
    for sizes in SIZES:
        for sparsity in map(float, FLAGS.sparsities):
            for name, pattern in PATTERNS.items() if sparsity else [("", None)]:
                pair = twins.make_twins(
                    perceptron(sizes),
                    sparsity,
                    folder,
                    "mlp",
                    pattern=pattern,
                    optimize="latency",
                )
                row = {"network": sizes, "sparsity": sparsity, "places": name}
                yield row, pair


def mined_cases(folder):
    """Yields the rows of `mined_mlp.py` and pairs of files of its networks."""
    random = np.random.default_rng(0)
    for row, file in mining.rows(FLAGS.mined):
        model = models.load_model(file, compile=False)
        inputs = random.normal(size=(4, *model.input_shape[1:]))
        inputs = inputs.astype("float32")
        yield row, twins.write_twins(model, inputs, folder, "mlp", "latency")


def main(_):
    """Runs the benchmark, prints a table and writes JSON."""
    rows = []
    print(
        f"{'network':<18}{'zeros':>7}  {'places':<12}{'method':<11}"
        f"{'accuracy':>9}{'dense ms':>10}{'sparse ms':>10}{'faster':>8}"
        f"{'fastest':>9}{'error':>9}"
    )
    with tempfile.TemporaryDirectory() as folder:
        cases = mined_cases if FLAGS.mined else random_cases
        for row, pair in cases(folder):
            row |= measure(pair)
            row |= {"bytes": pair["bytes"], "notes": pair["notes"]}
            rows.append(row)
            accuracy = row.get("accuracy")
            accuracy = "" if accuracy is None else f"{accuracy:.2%}"
            print(
                f"{'-'.join(map(str, row['network'])):<18}"
                f"{row['sparsity']:>7.0%}  {row['places']:<12}"
                f"{row.get('method', ''):<11}{accuracy:>9}"
                f"{row['dense_ms']:>10.4f}"
                f"{row['sparse_ms']:>10.4f}{row['speedup']:>7.2f}x"
                f"{row['speedup_of_fastest']:>8.2f}x"
                f"{max(row['relative_errors']):>9.1e}",
                flush=True,
            )
    write_results(
        FLAGS.output,
        "native",
        rows,
        ai_edge_litert=importlib.metadata.version("ai-edge-litert"),
    )


if __name__ == "__main__":
    app.run(main)
