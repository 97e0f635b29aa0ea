"""Starts a browser for tests of the page."""

import shutil
import threading
from pathlib import Path

import keras
import pytest

from tf_gems import page as pages

HERE = Path(pages.__file__).parent


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("exports need the TensorFlow backend")
    if not (HERE / "node_modules/@litertjs/core").is_dir():
        pytest.skip("needs LiteRT.js: npm ci --prefix tf_gems/page")
    api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs Chromium")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()


@pytest.fixture
def opened(browser):
    """Function that opens the page of a directory at the size of a phone."""
    servers, found = [], []

    def open_page(folder, path=""):
        server = pages.make_server(folder)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        found.append(page)
        page.problems, page.asked = [], []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(f"http://127.0.0.1:{server.server_port}/{path}")
        return page

    yield open_page
    for page in found:
        page.close()
    for server in servers:
        server.shutdown()
        server.server_close()
