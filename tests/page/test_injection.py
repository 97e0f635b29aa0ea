"""Tests that the page executes no script from a run."""

import json

import keras
import numpy as np
import pytest

from tf_gems import page as pages

# Each calls `hit` if it is executed.
SCRIPTS = (
    "<script>hit()</script>",
    "<img src=x onerror=hit()>",
    "<svg onload=hit()>",
    "\"><iframe srcdoc='<script>parent.hit()</script>'>",
    "javascript:hit()",
    "</script><script>hit()</script>",
    "{{hit()}}${hit()}",
    "data:text/html,<script>hit()</script>",
    "' onmouseover=hit() x='",
    "<details open ontoggle=hit()>",
)
DOCUMENTS = {
    "evil.html": "<script>document.title = 'hit'</script>",
    "evil.svg": "<svg xmlns='http://www.w3.org/2000/svg'>"
    "<script>document.documentElement.id = 'hit'</script></svg>",
    "evil.xhtml": "<html xmlns='http://www.w3.org/1999/xhtml'>"
    "<body onload=\"document.title = 'hit'\"/></html>",
    "evil.js": "document.title = 'hit'",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The page of a network with scripts in place of every text."""
    folder = tmp_path_factory.mktemp("page")
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(len(SCRIPTS)),
        ]
    )
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 1))
    history = {name: [2.0, 1.0] for name in ("loss", *SCRIPTS)}
    pages.write_page(
        model, folder, images, [0, 1], SCRIPTS, history=history, name=SCRIPTS[0]
    )
    return folder


def planted(value, counter):
    """Returns a JSON value with a script in place of each text."""
    if isinstance(value, dict):
        return {key: planted(item, counter) for key, item in value.items()}
    if isinstance(value, list):
        return [planted(item, counter) for item in value]
    if isinstance(value, str) and not value.startswith("data:image/"):
        counter.append(value)
        return SCRIPTS[len(counter) % len(SCRIPTS)]
    return value


@pytest.mark.parametrize("how", ["written", "planted"])
def test_text_of_run_is_not_executed(opened, run, tmp_path, how):
    """Includes files written by `write_page` and files modified later."""
    for path in run.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    texts = []
    if how == "planted":
        found = planted(json.loads((run / "page.json").read_text()), texts)
        (tmp_path / "page.json").write_text(json.dumps(found))
        assert len(texts) > len(SCRIPTS)
    page = opened(tmp_path, "benchmark.html")  # Any page of that origin.
    page.add_init_script("window.hits = 0; window.hit = () => window.hits++")
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(1), dialog.dismiss()))
    page.goto(page.url.rsplit("/", 1)[0] + "/")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)
    assert len(page.inner_text("body")) > 200
    assert page.evaluate("window.hits") == 0 and not dialogs
    assert not page.query_selector("img[src=x], iframe, [onerror], [onload]")
    assert SCRIPTS[0] in page.inner_text("body") or how == "planted"
    origin = page.url.rstrip("/")
    assert all(
        address.startswith((origin, "blob:", "data:image/"))
        for address in page.asked
    )


def test_documents_of_run_are_not_executed(opened, run):
    for name, text in DOCUMENTS.items():
        (run / name).write_text(text)
    page = opened(run, "run/page.json")
    origin = page.url.rsplit("/run/", 1)[0]
    for name in DOCUMENTS:
        page.goto(f"{origin}/run/{name}")
        page.wait_for_timeout(200)
        assert page.title() != "hit", name
        assert page.evaluate("document.documentElement.id") != "hit", name
        (run / name).unlink()
