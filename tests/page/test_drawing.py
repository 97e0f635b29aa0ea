"""Tests drawing on the page of a run, dropping files and errors."""

import base64
import contextlib
import dataclasses
import importlib
import io
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_gems

RECIPES = Path(__file__).parents[2] / "recipes"
SHOWN = "#main:not([hidden])"


@pytest.fixture(scope="module")
def run(browser, tmp_path_factory):
    """The directory of a run, as a recipe writes it."""
    pytest.importorskip("sklearn")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(RECIPES)
        experiment = importlib.import_module("experiment")
        settings = importlib.import_module("digits").PRESETS["smoke"]
    settings = dataclasses.replace(settings, mining_epochs=3)
    run = experiment.Run(settings, tmp_path_factory.mktemp("runs"))
    run.start()
    return run.directory


def network(run):
    """The network of the run, loaded from its Keras file."""
    model = keras.models.load_model(run / "finetuned.keras", compile=False)
    images = tf_gems.datasets.load("digits").train[0]
    raw = np.unique(images)  # 17 levels from black to white.
    return lambda pixels: np.asarray(
        model((raw[0] + pixels * (raw[-1] - raw[0]))[None, :, :, None])
    )[0]


def sure(logits):
    powers = np.exp(logits - logits.max())
    return 100 * powers.max() / powers.sum()


def canvas(page):
    """Returns the pixels on the canvas, as fractions of white."""
    url = page.evaluate("document.getElementById('canvas').toDataURL()")
    image = keras.utils.load_img(io.BytesIO(base64.b64decode(url[22:])))
    return np.asarray(image, "float32").mean(-1) / 255


def small(pixels, size=8):
    """Returns the mean of every square of pixels."""
    side = len(pixels) // size
    return pixels.reshape(size, side, size, side).mean((1, 3))


@contextlib.contextmanager
def answers(page):
    """Runs the block, and waits for its prediction."""
    page.evaluate(
        "() => new Promise(done => setTimeout(done, 200)).then(() => {"
        "  window.told = 0;"
        "  const verdict = document.getElementById('verdict');"
        "  new MutationObserver(() => {"
        "    if (verdict.innerText.startsWith('Same outputs')) ++window.told;"
        "  }).observe(verdict, {childList: true});"
        "})"
    )
    yield
    page.wait_for_function("() => window.told > 0", timeout=20_000)


def answer(page):
    return page.inner_text("#sparse-answer"), page.inner_text("#sparse-sure")


def test_page_shows_recipe_run(run, opened):
    page = opened(run)
    page.wait_for_selector(SHOWN, timeout=60_000)
    assert page.inner_text("#name") == "lenet_300_100 on digits"
    captions = page.locator("#curves figcaption").all_inner_texts()
    assert {c.split(" (")[0] for c in captions} == {"test accuracy", "density"}
    stages = page.locator("#curves .legend li").all_inner_texts()
    assert any(stage.startswith("mining: ") for stage in stages)
    assert "% test accuracy" in page.inner_text("#accuracy")
    assert "unpruned network has" in page.inner_text("#accuracy")
    assert page.locator("#layers tr").count() == 3
    assert page.locator("#pictures canvas").count() == 2
    assert "90.0 % of the weights" in page.inner_text("#summary")
    assert page.locator("#examples option").count() == 20
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.problems == []


def test_dropped_image_matches_keras(run, opened):
    pixels = np.zeros((8, 8), "float32")
    pixels[1:7, 4] = 1.0
    pixels[2, 3] = 0.5
    large = np.kron(pixels, np.ones((35, 35), "float32"))
    stream = io.BytesIO()
    image = keras.utils.array_to_img(255 * large[..., None], scale=False)
    image.save(stream, "png")
    page = opened(run)
    page.wait_for_selector(SHOWN, timeout=60_000)
    drop = """([bytes, name, type]) => {
      const data = new DataTransfer();
      const binary = Uint8Array.from(atob(bytes), c => c.charCodeAt(0));
      data.items.add(new File([binary], name, {type}));
      document.body.dispatchEvent(new DragEvent(
          'drop', {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    encoded = base64.b64encode(stream.getvalue()).decode()
    with answers(page):
        page.evaluate(drop, [encoded, "one.png", "image/png"])
    found, percent = answer(page)
    np.testing.assert_allclose(canvas(page), large, atol=0.01)
    expected = network(run)(pixels)
    assert found == str(expected.argmax())
    assert abs(float(percent[:-2]) - sure(expected)) < 0.5
    # A file that is not an image only changes the message.
    text = base64.b64encode(b"no image").decode()
    page.evaluate(drop, [text, "notes.txt", "text/plain"])
    page.wait_for_function(
        "() => document.getElementById('verdict').innerText === "
        "'notes.txt is no image.'"
    )
    assert page.inner_text("#sparse-sure") == percent
    assert page.problems == []


def test_pointer_draws(run, opened):
    page = opened(run)
    page.wait_for_selector(SHOWN, timeout=60_000)
    with answers(page):
        page.click("#clear")
    assert canvas(page).max() == 0
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()

    def place(x, y):
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    with answers(page):
        page.mouse.move(*place(0.5, 0.2))
        page.mouse.down()
        page.mouse.move(*place(0.5, 0.8), steps=6)
        page.mouse.up()
    found, percent = answer(page)
    drawn = canvas(page)
    assert drawn[60:220, 138:142].min() > 0.9  # Only the line.
    assert drawn[:, :100].max() == drawn[:, 180:].max() == 0
    assert drawn[:30].max() == drawn[250:].max() == 0
    expected = network(run)(small(drawn))
    assert found == str(expected.argmax())
    assert abs(float(percent[:-2]) - sure(expected)) < 0.5


def test_keyboard_reaches_all_controls_in_order(run, opened):
    page = opened(run)
    page.wait_for_selector(SHOWN, timeout=60_000)
    seen = []
    for _ in range(8):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.className"
            )
        )
    assert seen[:7] == [
        "skip",
        "canvas",
        "clear",
        "file",
        "examples",
        "run",
        "scroll",
    ]
    # Every control has a name for screen readers.
    for selector in ("#canvas", "#file", "#examples", "#progress", "#run"):
        name = page.locator(selector).evaluate(
            "e => e.ariaLabel || e.labels?.[0]?.innerText || e.innerText"
        )
        assert name.strip(), selector
    page.focus("#canvas")
    with answers(page):
        page.keyboard.press("Delete")
    assert canvas(page).max() == 0
    with answers(page):
        for key in (" ", "ArrowRight", "ArrowRight", " "):
            page.keyboard.press(key)
    assert canvas(page)[138:142, 140:158].min() > 0.9


def test_damaged_run_file_is_reported(run, opened, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    data = (copy / "page" / "sparse.tflite").read_bytes()
    (copy / "page" / "sparse.tflite").write_bytes(data[: len(data) // 2])
    page = opened(copy)
    page.wait_for_selector("#error:not([hidden])", timeout=60_000)
    told = page.inner_text("#error")
    assert told.startswith("The sparse file")
    assert page.is_hidden("#main")
    assert page.inner_text("#status") == "This cannot be shown."
