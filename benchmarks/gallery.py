"""Measures the published networks on real test images.

    python benchmarks/gallery.py --data_dir=../shared/data/tfds

Writes `benchmarks/results/gallery.json` and the table in
`savedmodels/README.md`. Each network of `savedmodels/` is measured in its two
published files: the ticket, expanded to a network, and the sparse TFLite file
of the fine-tuned network. Size and latency are compared with a dense version of
the TFLite file, in which every weight is stored densely. This script creates it
by expanding the sparse tensors, and checks that its outputs are the same. The
two files run alternately on single images with one thread. Times are medians.
"""

import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app
from absl import flags

import tf_gems as gems
from tf_gems import datasets
from tf_gems import zoo
from tf_gems.export import accuracy as measured
from tf_gems.export import flatbuffer
from tf_gems.export import latency
from tf_gems.export import sparse_tensor
from tf_gems.export.paths import Stored
from tf_gems.export.sparse_operators import host_has_sparse_kernels
from tf_gems.files import replacing
from tf_gems.provenance import provenance

FLAGS = flags.FLAGS
ROOT = Path(__file__).parents[1]
TITLE = {"digits": "digits", "mnist": "MNIST", "cifar10": "CIFAR-10"}


def densified(data):
    """Returns a TFLite file with every sparse weight stored densely.

    Args:
        data: Bytes of a file that reads its sparse weights through `DENSIFY`.
    """
    model = flatbuffer.read(data)
    for graph in model.subgraphs:
        replaced = {}
        for operator in graph.operators:
            if flatbuffer.operator_name(model, operator) == "DENSIFY":
                [source], [target] = operator.inputs, operator.outputs
                replaced[target] = source
        graph.operators = [
            operator
            for operator in graph.operators
            if flatbuffer.operator_name(model, operator) != "DENSIFY"
        ]
        for operator in graph.operators:
            operator.inputs = [replaced.get(i, i) for i in operator.inputs]
        for target, source in replaced.items():
            sparse, dense = graph.tensors[source], graph.tensors[target]
            value = sparse_tensor.decode(
                np.frombuffer(
                    bytes(model.buffers[sparse.buffer].data),
                    flatbuffer.dtype_of(sparse),
                ),
                sparse.sparsity,
                tuple(sparse.shape),
            )
            model.buffers[sparse.buffer].data = value.tobytes()
            sparse.sparsity = None
            sparse.quantization = dense.quantization
    return flatbuffer.write(model)


def measure(name, data_dir, runs):
    """Returns a row of the table.

    Args:
        name: String, name of the files in `savedmodels/`.
        data_dir: String, directory of the TFDS datasets.
        runs: Integer, number of timed runs of each file.
    """
    from ai_edge_litert.interpreter import Interpreter

    directory = ROOT / "savedmodels"
    card = json.loads((directory / f"{name}.json").read_text("utf-8"))
    dataset = card["settings"]["dataset"]
    data = datasets.load(dataset, None if dataset == "digits" else data_dir)
    images, labels = data.test
    ticket = gems.Ticket.load(directory / f"{name}.gem")
    network = getattr(zoo, card["settings"]["network"])(
        data.image_shape, data.classes
    )
    ticket.apply(network)
    before = measured.accuracy(labels, network.predict(images, verbose=0))
    sparse = (directory / f"{name}.tflite").read_bytes()
    dense = densified(sparse)

    def outputs(path):
        runner = Interpreter(path).get_signature_runner()
        [feed] = runner.get_input_details()
        found = []
        for i in range(0, len(images), 100):
            [value] = runner(**{feed: images[i : i + 100]}).values()
            found.append(value)
        return np.concatenate(found)

    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, f"{n}.tflite") for n in ("s", "d")]
        for path, content in zip(files, (sparse, dense), strict=True):
            Path(path).write_bytes(content)
        ours, twin = (outputs(path) for path in files)
        difference = np.abs(ours - twin).max() / np.abs(twin).max()
        if not difference <= 1e-5:
            raise RuntimeError(
                f"The dense file of '{name}' differs by {difference}"
            )
        seconds, dense_seconds = latency.litert_seconds(
            files, {"image": images[:1]}, runs
        )
    return {
        "name": name,
        "network": card["settings"]["network"],
        "kept": ticket.kept,
        "size": ticket.size,
        "test_images": len(labels),
        "ticket_bytes": (directory / f"{name}.gem").stat().st_size,
        "sparse_bytes": Stored.of_bytes(sparse).sizes,
        "dense_bytes": Stored.of_bytes(dense).sizes,
        "accuracy_of_ticket": round(before, 4),
        "accuracy": round(measured.accuracy(labels, ours), 4),
        "accuracy_of_dense_network": card["accuracy"]["dense"],
        "sparse_microseconds": round(1e6 * seconds, 1),
        "dense_microseconds": round(1e6 * dense_seconds, 1),
    }


def render(results):
    """Returns the table in Markdown."""
    processor = results["provenance"]["processor"]
    kernels = (
        "It uses XNNPACK's sparse kernels."
        if results["sparse_host"]
        else "It has AVX, so XNNPACK's sparse kernels are disabled: "
        "weights\nare expanded when a file is loaded, and both files then run "
        "the same code."
    )
    lines = [
        "# Published networks",
        "",
        "Each network has a ticket before fine-tuning (`.gem`), the fine-tuned "
        "network",
        "as a sparse TFLite file, a plot of its training, and a card (`.json`) "
        "with the",
        "command, settings, training time and curves. This file and",
        "[its figures](../benchmarks/results/gallery.json) are written by",
        "`python benchmarks/gallery.py`.",
        "",
        "| network | kept weights | ticket | ticket accuracy | sparse .tflite "
        "(gzip) | dense .tflite (gzip) | accuracy | dense network | sparse µs "
        "| dense µs |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["rows"]:
        sparse, dense = row["sparse_bytes"], row["dense_bytes"]
        cells = [
            f"[{TITLE.get(row['name'], row['name'])}]({row['name']}.json), "
            f"{row['network']}",
            f"{row['kept']:,} of {row['size']:,} "
            f"({row['kept'] / row['size']:.2%})",
            f"{row['ticket_bytes']:,}",
            f"{row['accuracy_of_ticket']:.2%}",
            f"{sparse[0]:,} ({sparse[1]:,})",
            f"{dense[0]:,} ({dense[1]:,})",
            f"{row['accuracy']:.2%}",
            f"{row['accuracy_of_dense_network']:.2%}",
            f"{row['sparse_microseconds']:,.0f}",
            f"{row['dense_microseconds']:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Sizes are in bytes. The accuracies are those of the ticket, of the "
        "sparse file and",
        "of a dense network that was trained for the same number of epochs, "
        "on all test",
        "images. Times are medians for one image on one thread, where both "
        "files run",
        f"alternately, on {processor}. {kernels}",
        "`python -m tf_gems report` explains the time of each layer. The files "
        "are the",
        'smallest ones. With `optimize="latency"`, dense layers with so many '
        "zeros are",
        "larger and several times faster on this processor: see the",
        "[results of native.py](../benchmarks/results/native_mined.json).",
        "",
    ]
    return "\n".join(lines)


def main(_):
    """Measures all published networks, and writes the results and the table."""
    cards = sorted((ROOT / "savedmodels").glob("*.json"))
    names = sorted((card.stem for card in cards), key=list(TITLE).index)
    rows = []
    for name in names:
        rows.append(measure(name, FLAGS.data_dir, FLAGS.runs))
        print(rows[-1], flush=True)
    results = {
        "benchmark": "gallery",
        "command": "python benchmarks/gallery.py",
        "provenance": provenance(),
        "sparse_host": host_has_sparse_kernels(),
        "runs": FLAGS.runs,
        "rows": rows,
    }
    with replacing(ROOT / "benchmarks" / "results" / "gallery.json") as file:
        file.write((json.dumps(results, indent=1) + "\n").encode())
    with replacing(ROOT / "savedmodels" / "README.md") as file:
        file.write(render(results).encode())


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "Directory of the TFDS datasets.")
    flags.DEFINE_integer("runs", 500, "Number of timed runs of each file.")
    app.run(main)
