"""Tests the server, and both networks of the page in Chromium."""

import base64
import functools
import http.client
import http.server
import json
import re
import shutil
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from data import tfds_directory

import tf_gems
from tf_gems import page as pages

HERE = Path(pages.__file__).parent
if not (HERE / "node_modules/@litertjs/core").is_dir():
    pytest.skip(
        "needs LiteRT.js: npm ci --prefix tf_gems/page",
        allow_module_level=True,
    )


def start(directory):
    """Starts a server. Returns it and its address."""
    server = pages.make_server(directory)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


def get(server, path, host=None, method="GET"):
    """Requests a path without normalizing it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.putrequest(method, path, skip_host=bool(host))
    if host:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_server_serves_only_its_directories(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    run = tmp_path / "run"
    (run / "sub").mkdir(parents=True)
    (run / "sub" / "a b.json").write_text("[1]")
    (run / "link.txt").symlink_to(tmp_path / "secret.txt")
    server, _ = start(run)
    try:
        status, headers, body = get(server, "/")
        assert status == 200 and b"sparse" in body
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        status, headers, body = get(server, "/run/sub/a%20b.json")
        assert (status, body) == (200, b"[1]")
        assert headers["Content-Type"] == "application/json"
        names = json.loads(get(server, "/run/")[2])
        assert "sub/a b.json" in names
        wasm = "/litert/@litertjs/core/wasm/litert_wasm_internal.wasm"
        status, headers, body = get(server, wasm, method="HEAD")
        assert (status, body) == (200, b"")
        assert headers["Content-Type"] == "application/wasm"
        for path in (
            "/run/../secret.txt",
            "/run/%2e%2e/secret.txt",
            "/run/..%2fsecret.txt",
            "/run//" + str(tmp_path / "secret.txt"),
            "/run/link.txt",
            "/../server.py",
            "/server.py",
            "/run/%00",
            "/run/sub",
        ):
            status, _, body = get(server, path)
            assert status == 404 and b"secret" not in body, path
        assert get(server, "/", host="evil.example")[0] == 403
        assert get(server, "/", host="localhost:1")[0] == 200
        assert server.server_address[0] == "127.0.0.1"
    finally:
        server.shutdown()
        server.server_close()


def test_missing_files_are_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="Received: directory="):
        pages.make_server(tmp_path / "nowhere")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"inputs of shape \(2, 4\)"):
        pages.write_page(model, tmp_path, np.zeros((2, 4)))


def test_diverged_history_is_valid_json(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(3))
    history = {"loss": [1.0, float("nan"), float("inf")]}
    inputs = np.random.default_rng(0).normal(size=(2, 4, 4, 1))
    pages.write_page(model, tmp_path, inputs.astype("float32"), history=history)
    text = (tmp_path / "page.json").read_text("utf-8")

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    page = json.loads(text, parse_constant=refuse)
    assert page["history"] == {"loss": [1.0, None, None]}


# ---- In a browser


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small MNIST network: the directory and the outputs of Keras."""
    data = tf_gems.datasets.load("mnist", tfds_directory("mnist"))
    images, labels = data.test[0][:6], data.test[1][:6]
    model = keras.Sequential(
        [
            keras.Input(data.image_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    sparse = tf_gems.SparseModel(model, seed=0)
    method = tf_gems.methods.Magnitude(0.9, pattern="4x1")
    sparse.start_finetuning(method.find(sparse))
    folder = tmp_path_factory.mktemp("page")
    history = {"loss": [2, 1], "val_loss": [3, 2], "accuracy": [0.5, None]}
    history |= {"a, density": [1, 0.5, 0.01], "b, density": [1, 0.2, 0.1]}
    history["accuracy"][1] = float("nan")
    pages.write_page(
        *(sparse, folder, images, labels, range(10)),
        history=history,
        accuracy=0.125,
        dense_accuracy=0.75,
    )
    return folder, np.asarray(sparse(images)), labels


def test_both_networks_match_keras(opened, run):
    folder, expected, labels = run
    page = opened(folder)
    page.wait_for_selector("#main:not([hidden])", timeout=60_000)
    assert page.inner_text("#status").startswith("Both files compute")
    assert page.evaluate("crossOriginIsolated")
    answers = []
    for index, row in enumerate(expected):
        page.select_option("#examples", str(index))
        sure = np.exp(row - row.max())
        sure = f"{100 * sure.max() / sure.sum():.1f} %"
        for name in ("dense", "sparse"):
            page.wait_for_function(
                "([id, text]) => document.getElementById(id).innerText "
                "=== text",
                arg=[f"{name}-sure", sure],
                timeout=20_000,
            )
            answer = page.inner_text(f"#{name}-answer")
            assert answer == str(row.argmax())
            is_right = row.argmax() == labels[index]
            mark = page.inner_text(f"#{name}-right")
            assert mark == (
                "✓ right" if is_right else f"✗ wrong: it is {labels[index]}"
            )
        answers.append(sure)
    assert len(set(answers)) > 1
    assert "12.50 %" in page.inner_text("#accuracy")
    assert "75.00 %" in page.inner_text("#accuracy")
    # Uses only the keyboard: draws a line and runs the benchmark.
    page.focus("#canvas")
    page.keyboard.press("Delete")
    before = page.inner_text("#sparse-sure")
    for key in [" ", *["ArrowDown"] * 6, " "]:
        page.keyboard.press(key)
    page.wait_for_function(
        "before => document.getElementById('sparse-sure').innerText !== before",
        arg=before,
        timeout=20_000,
    )
    page.focus("#run")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => document.getElementById('result').innerText"
        ".includes('times as')",
        timeout=60_000,
    )
    assert "outputs the same" in page.inner_text("#result")
    # The rest of the page fits on a phone.
    assert page.locator("#layers tr").count() == 2
    titles = page.locator("#curves figcaption").all_inner_texts()
    assert titles == ["loss", "density (logarithmic)"]
    ends = page.locator("#curves .legend li").all_inner_texts()
    assert ends == ["training: 1", "validation: 2", "a: 1 %", "b: 10 %"]
    # The curves of a chart have one scale: here 2 to 1 below 3 to 2.
    lines = page.locator("#curves figure:first-child > svg polyline")
    (_, first, _, last), (_, above, _, same) = (
        [float(n) for n in re.split("[ ,]", line.get_attribute("points"))]
        for line in lines.all()
    )
    assert above < first == same < last
    ticks = page.locator("#curves figure:nth-child(2) > svg text")
    assert {"1 %", "10 %", "100 %", "epoch"} <= {*ticks.all_text_contents()}
    # The figure of a layer fits on the screen.
    for cell in page.locator("#layers td, #layers th").all():
        box = cell.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert page.locator("#pictures canvas").count() == 2
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    assert page.inner_text("#dense-right") == ""
    assert page.problems == []
    address = page.url
    assert all(
        url.startswith((address, "data:", "blob:")) for url in page.asked
    )


def test_images_show_kept_weights(run):
    folder, *_ = run
    pictures = json.loads((folder / "page.json").read_text())["pictures"]
    values = [
        np.frombuffer(base64.b64decode(p["pixels"]), np.uint8).reshape(
            p["height"], p["width"]
        )
        for p in pictures
    ]
    assert [v.shape for v in values] == [(784, 64), (28, 28)]
    assert set(np.unique(values[0])) == {0, 255}
    counts = (values[0] > 0).sum(1).reshape(28, 28)
    np.testing.assert_array_equal(
        values[1], np.round(255 * counts / counts.max())
    )
    assert f"{counts.sum():,} of 50,176 weights" in pictures[0]["caption"]


def test_static_copy_works_at_any_path(browser, run, tmp_path):
    pages.copy_page(run[0], tmp_path / "site" / "below")
    with pytest.raises(FileExistsError):
        pages.copy_page(run[0], tmp_path / "site" / "below")
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=tmp_path / "site"
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    try:
        page.goto(f"http://127.0.0.1:{server.server_port}/below/")
        page.wait_for_selector("#main:not([hidden])", timeout=60_000)
        assert page.inner_text("#status").startswith("Both files compute")
    finally:
        page.close()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "spoil, message",
    [
        ("missing", "holds no page.json"),
        ("broken", "The sparse file cannot be run."),
        ("wrong", "The dense file does not compute what Keras does"),
    ],
)
def test_wrong_outputs_are_reported_without_times(
    opened, run, tmp_path, spoil, message
):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    if spoil == "missing":
        (folder / "page.json").unlink()
    elif spoil == "broken":
        (folder / "sparse.tflite").write_bytes(b"no model at all" * 100)
    else:
        data = bytearray((folder / "dense.tflite").read_bytes())
        kernel = len(data) // 2 // 4 * 4
        data[kernel : kernel + 4000] = bytes(4000)
        (folder / "dense.tflite").write_bytes(data)
    page = opened(folder)
    page.wait_for_selector("#error:not([hidden])", timeout=60_000)
    assert message in page.inner_text("#error")
    assert page.is_hidden("#main")
