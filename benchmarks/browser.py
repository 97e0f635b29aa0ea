"""Measures the speed-up of sparse 1x1 convolutions in a browser.

    pip install playwright && apt-get install chromium
    npm ci --ignore-scripts --prefix tf_gems/page
    python benchmarks/browser.py --output=benchmarks/results/browser.json

Each combination of network, image size and sparsity runs in headless Chromium
with LiteRT.js on one thread. A file with dense weights is compared with a file
that stores the same zeros sparsely. The zeros are at random positions in the
kernels of the 1x1 convolutions. Each file is first compared with Keras on a
separate page. Then both files are timed on one page, alternately. A sparsity of
0 is the control, for which both files are identical. `stock` is the unmodified
`keras.applications.MobileNet`, whose zeros save no time.
"""

import contextlib
import json
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import keras
import numpy as np
import twins  # must be the first import: silences TensorFlow
from absl import app
from absl import flags

import tf_gems
from tf_gems import page as pages
from tf_gems.provenance import provenance

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "networks", ["v1", "v2", "stock", "stock_ready"], "Names of the networks."
)
flags.DEFINE_list(
    "sizes", ["96", "224"], "Heights and widths of the images, in pixels."
)
flags.DEFINE_list(
    "sparsities",
    ["0", "0.7", "0.8", "0.9", "0.95", "0.98"],
    "Fractions of zeros, each in [0, 1).",
)
flags.DEFINE_integer(
    "pairs", 61, "Number of pairs of times, one dense and one sparse."
)
flags.DEFINE_float("alpha", 1.0, "Width multiplier of the networks.")
flags.DEFINE_string(
    "chromium",
    None,
    "Path of the Chromium executable. Defaults to the one in `PATH`.",
)
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

CLASSES = 1000
CHECK = """async ([url, shape]) => {
  const inputs = await measure.floats('/run/inputs.bin');
  const outputs = await measure.floats('/run/outputs.bin');
  return await measure.check(url, shape, inputs, outputs);
}"""
TIME = """async ([dense, sparse, shape, pairs]) => {
  const size = shape.reduce((product, length) => product * length, 1);
  const inputs = await measure.floats('/run/inputs.bin');
  const networks = [];
  for (const url of [dense, sparse]) {
    networks.push(await measure.Network.open(url, shape));
  }
  return await measure.inTurns(...networks, inputs.slice(0, size), pairs);
}"""


def network(name, size):
    """Returns a Keras model by name."""
    settings = {"input_shape": (size, size, 3), "classes": CLASSES}
    settings["alpha"] = FLAGS.alpha
    if name == "v1":
        return tf_gems.zoo.mobilenet_v1(**settings)
    if name == "v2":
        return tf_gems.zoo.mobilenet_v2_sparse_ready(**settings)
    stock = keras.applications.MobileNet(
        weights=None, classifier_activation=None, **settings
    )
    if name == "stock":
        return stock
    if name == "stock_ready":
        return tf_gems.export.make_sparse_ready(stock)[0]
    raise ValueError(f"Unknown network. Received: {name!r}.")


@contextlib.contextmanager
def serving(folder):
    """Serves a folder by HTTP, and yields its address."""
    server = pages.make_server(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{pages.server.HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def measure(browser, pair, folder):
    """Checks and times two files. Returns a dict."""
    pair["inputs"].astype("<f4").tofile(Path(folder, "inputs.bin"))
    pair["outputs"].astype("<f4").tofile(Path(folder, "outputs.bin"))
    shape = [1, *pair["inputs"].shape[1:]]
    urls = [f"/run/{pair[kind].name}" for kind in ("dense", "sparse")]
    with serving(folder) as address:

        def evaluate(code, argument):
            page = browser.new_page()
            page.set_default_timeout(300_000)
            try:
                page.goto(f"{address}/benchmark.html")
                page.wait_for_function(
                    "() => window.measure && crossOriginIsolated"
                )
                return page.evaluate(code, argument)
            finally:
                page.close()

        errors = [evaluate(CHECK, [url, shape]) for url in urls]
        for error, url in zip(errors, urls, strict=True):
            twins.refuse_wrong(np.inf if error is None else error, url)
        times = evaluate(TIME, [*urls, shape, FLAGS.pairs])
    milliseconds = [np.array(times[k]) / 1e3 for k in ("dense", "sparse")]
    found = twins.summary(*(list(map(float, x)) for x in milliseconds))
    return {**found, "relative_errors": errors}


def cases():
    """Yields the rows of the table, without measurements."""
    for name in FLAGS.networks:
        for size in map(int, FLAGS.sizes):
            for sparsity in map(float, FLAGS.sparsities):
                yield {"network": name, "size": size, "sparsity": sparsity}


@contextlib.contextmanager
def chromium():
    """Starts headless Chromium, and yields the browser."""
    from playwright.sync_api import sync_playwright

    program = FLAGS.chromium or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def main(_):
    """Runs the benchmark, prints a table and writes JSON."""
    rows = []
    with chromium() as browser:
        print(
            f"{'network':<13}{'size':>5}{'zeros':>7}{'dense ms':>10}"
            f"{'sparse ms':>11}{'faster':>8}{'fastest':>9}"
            f"{'error':>9}{'MB':>14}"
        )
        for row in cases():
            model = network(row["network"], row["size"])
            with tempfile.TemporaryDirectory() as folder:
                pair = twins.make_twins(
                    model, row["sparsity"], folder, "model", filters="pointwise"
                )
                row |= measure(browser, pair, folder)
            row |= {"bytes": pair["bytes"], "notes": pair["notes"]}
            rows.append(row)
            print(line(row), flush=True)
            keras.backend.clear_session()
            write("browser", rows, browser.version)


def line(row):
    """Returns a row as a line of text."""
    sizes = "->".join(f"{n / 1e6:.2f}" for n in row["bytes"])
    return (
        f"{row['network']:<13}{row['size']:>5}{row['sparsity']:>7.0%}"
        f"{row['dense_ms']:>10.2f}{row['sparse_ms']:>11.2f}"
        f"{row['speedup']:>7.2f}x{row['speedup_of_fastest']:>8.2f}x"
        f"{max(row['relative_errors']):>9.1e}{sizes:>14}"
    )


def write(name, rows, version):
    """Writes the rows that have been measured so far."""
    if not FLAGS.output:
        return
    report = {
        "benchmark": name,
        "chromium": version,
        "litertjs": litertjs_version(),
        "command": " ".join(["python", *sys.argv]),
        "provenance": provenance(),
        "results": rows,
    }
    Path(FLAGS.output).write_text(json.dumps(report, indent=2) + "\n")


def litertjs_version():
    """Returns the version of LiteRT.js that the lock file pins."""
    lock = Path(pages.__file__).with_name("package-lock.json")
    packages = json.loads(lock.read_text("utf-8"))["packages"]
    return packages["node_modules/@litertjs/core"]["version"]


if __name__ == "__main__":
    app.run(main)
