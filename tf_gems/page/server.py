"""A local server with the headers that WebAssembly threads need."""

import functools
import http.server
import io
import json
import os
import sys
import urllib.parse
from pathlib import Path

from tf_gems.targets import check_path
from tf_gems.text import printable
from tf_gems.validation import check_integer

HOST = "127.0.0.1"
_HERE = Path(__file__).parent
STATIC = _HERE / "static"
PACKAGES = _HERE / "node_modules"

# The files of a page. A directory with the last one has a page.
FILES = (
    "sparse.tflite",
    "dense.tflite",
    "inputs.bin",
    "outputs.bin",
    "page.json",
)
_SECONDS = 30  # the timeout of a client
# These two headers isolate a page, so that it may use threads and exact clocks.
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Allow WebAssembly and the import map, and nothing from other hosts.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' "
        "'wasm-unsafe-eval' blob:; worker-src 'self' blob:; "
        "img-src 'self' data: blob:; style-src 'self'; "
        "connect-src 'self' blob: data:"
    ),
}
# Files of a run may be untrusted: never execute them as documents.
_OF_RUN = {"Content-Security-Policy": "default-src 'none'; sandbox"}
_TYPES = {
    ".bin": "application/octet-stream",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".tflite": "application/octet-stream",
    ".wasm": "application/wasm",
}


def serve(directory, port=8000):
    """Serves the page for a directory until it is interrupted.

    Args:
        directory: String or path of the run of a recipe, or of a directory
            that `tf_gems.page.write_page` has written. Other files in it are
            served as plain text under `/run/`.
        port: Integer, `0` for any free port. Defaults to `8000`.

    Raises:
        FileNotFoundError: If there is no such directory, it has no page, or
            LiteRT.js is not installed.
        OSError: If the port is in use.

    Example:

    ```python
    tf_gems.page.serve("runs/mnist")
    ```
    """
    check_integer(port, "port", 0, 65535)
    check_page(page_directory(directory))
    with make_server(directory, port) as server:
        print(f"http://{HOST}:{server.server_port}/ (Ctrl+C stops it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def make_server(directory, port=0):
    """Returns a server, which is run with `serve_forever`.

    It listens on the loopback interface only.

    Args:
        directory: String or path.
        port: Integer. Defaults to `0`: any free port, see `server_port`.

    Returns:
        `http.server.ThreadingHTTPServer`.

    Raises:
        FileNotFoundError: If there is no such directory, or LiteRT.js is not
            installed.
    """
    directory = page_directory(directory)
    check_integer(port, "port", 0, 65535)
    _check_directory(directory)
    check_packages()
    handler = functools.partial(
        _Handler,
        {
            "/litert/": PACKAGES.resolve(),
            "/run/": directory.resolve(),
            "/": STATIC.resolve(),
        },
    )
    return _Server((HOST, port), handler)


def page_directory(directory):
    """Returns the directory itself or its folder `page`, whichever has a page.

    Recipes write the page into the folder `page` of a run.
    """
    directory = check_path(
        directory, "directory", "Pass the directory of a run."
    )
    within = directory / "page"
    if (directory / "page.json").exists() or not within.is_dir():
        return directory
    if within.resolve().parent != directory.resolve():
        return directory  # a link out of the directory
    return within


def check_page(directory):
    """Raises `FileNotFoundError` if a directory has no page."""
    _check_directory(directory)
    if find_file(directory, "page.json") is None:
        raise FileNotFoundError(
            "The directory must contain a page written by "
            "`tf_gems.page.write_page` or a recipe. Received: "
            f"directory='{directory}', which has no page.json. Pass the "
            "directory of a finished run."
        )


def check_packages():
    """Raises `FileNotFoundError` if LiteRT.js is not installed."""
    if not (PACKAGES / "@litertjs" / "core").is_dir():
        raise FileNotFoundError(
            "The page runs networks with LiteRT.js, which must be installed. "
            f"Received: no '{PACKAGES}'. Run `npm ci --ignore-scripts "
            f"--prefix '{_HERE}'`."
        )


def find_file(root, name):
    """Returns the file of a relative path below a directory, without links.

    It is `None` if there is no such file in the directory.
    """
    try:
        root = Path(root).resolve()
        file = (root / name).resolve()
        within = file.is_relative_to(root) and file.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, a loop, no text
        return None
    return file if within else None


def _check_directory(directory):
    if not directory.is_dir():
        raise FileNotFoundError(
            "`directory` must be an existing directory. Received: "
            f"directory='{directory}'."
        )


class _Server(http.server.ThreadingHTTPServer):
    """Does not report clients that disconnect."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            text = printable(f"{type(error).__name__}: {error}")
            print(f"The page's server: {text}", file=sys.stderr)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves GET and HEAD requests from a few directories."""

    server_version = "tf_gems"
    sys_version = ""
    timeout = _SECONDS

    def __init__(self, roots, *args):
        self.roots = roots
        super().__init__(*args)

    def send_head(self):
        """Sends the head of an answer, and returns its body, a file."""
        if not self._is_for_this_machine():
            return self._text(403, "Only this machine can open this page.")
        path = self.path.partition("?")[0].partition("#")[0]
        path = urllib.parse.unquote(path)
        if path == "/run/":
            names = json.dumps(_list(self.roots["/run/"]))
            return self._text(200, names, ".json")
        file = self._open("/index.html" if path == "/" else path)
        if file is None:
            return self._text(404, "There is no such file.")
        size = os.fstat(file.fileno()).st_size
        self._head(200, size, Path(file.name).suffix, path.startswith("/run/"))
        return file

    def _is_for_this_machine(self):
        """Whether the host name is local; guards against DNS rebinding."""
        name = self.headers.get("Host", "").rsplit(":", 1)[0]
        return name in (HOST, "localhost")

    def _open(self, path):
        """Returns the file of a path, or `None` if there is none."""
        for prefix, root in self.roots.items():
            if path.startswith(prefix):
                file = find_file(root, path.removeprefix(prefix))
                try:
                    return file and open(file, "rb")
                except OSError:  # it may not be read, or is gone
                    return None
        return None

    def _text(self, code, text, suffix=""):
        data = text.encode()
        self._head(code, len(data), suffix)
        return io.BytesIO(data)

    def _head(self, code, size, suffix, of_run=False):
        self.send_response(code)
        kind = _TYPES.get(suffix, "text/plain; charset=utf-8")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        for name, value in {**_HEADERS, **(_OF_RUN if of_run else {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args):
        pass  # no log of requests in the terminal


def _list(root):
    """Returns the names of the files of a directory that are served."""
    names = []
    for folder, _, files in os.walk(root):
        for name in files:
            path = Path(folder, name).relative_to(root).as_posix()
            if find_file(root, path):
                names.append(path)
    return sorted(names)
