"""A server for this machine alone, with what WebAssembly threads need."""

import functools
import http.server
import json
import urllib.parse
from pathlib import Path

HOST = "127.0.0.1"
_HERE = Path(__file__).parent
STATIC = _HERE / "static"
PACKAGES = _HERE / "node_modules"

# A page of these two headers is isolated: it may use threads and exact clocks.
_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Nothing from elsewhere; WebAssembly, and the import map of the page.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' "
        "'wasm-unsafe-eval' blob:; worker-src 'self' blob:; "
        "img-src 'self' data: blob:; style-src 'self'; "
        "connect-src 'self' blob: data:"
    ),
}
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
        directory: String or path: of a recipe's run, or what
            `tf_gems.page.write_page` wrote. Files of others can be looked at
            under `/run/`.
        port: Integer, `0` for any that is free. Defaults to `8000`.

    Raises:
        FileNotFoundError: If there is no such directory, or LiteRT.js is not
            installed beside the page.
        OSError: If the port is taken.

    Example:

    ```python
    tf_gems.page.serve("runs/mnist")
    ```
    """
    with make_server(directory, port) as server:
        print(f"http://{HOST}:{server.server_port}/ (Ctrl+C stops it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def make_server(directory, port=0):
    """Returns a server, to be run by `serve_forever`.

    It listens on the loopback interface only: nobody else reaches it.

    Args:
        directory: String or path.
        port: Integer. Defaults to `0`: any that is free, its `server_port`.

    Returns:
        `http.server.ThreadingHTTPServer`.

    Raises:
        FileNotFoundError: If there is no such directory, or LiteRT.js is not
            installed beside the page.
    """
    directory = page_directory(directory)
    check_directory(directory)
    handler = functools.partial(
        _Handler,
        {
            "/litert/": PACKAGES.resolve(),
            "/run/": directory.resolve(),
            "/": STATIC.resolve(),
        },
    )
    return http.server.ThreadingHTTPServer((HOST, port), handler)


def page_directory(directory):
    """Returns where the page of a directory is: there, or in `page` there.

    Recipes write the page of a run into a folder of the run's own.
    """
    directory = Path(directory)
    within = directory / "page"
    if (directory / "page.json").exists() or not within.is_dir():
        return directory
    return within


def check_directory(directory):
    """Raises an error if there is no directory, or LiteRT.js is missing."""
    if not directory.is_dir():
        raise FileNotFoundError(
            "The page shows what a directory holds. Received: "
            f"directory='{directory}', which is none."
        )
    if not (PACKAGES / "@litertjs" / "core").is_dir():
        raise FileNotFoundError(
            "The page runs networks by LiteRT.js, which must be installed "
            f"beside it. Received: no '{PACKAGES}'. Run `npm ci "
            f"--ignore-scripts --prefix '{_HERE}'`."
        )


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD from a few directories, by their prefixes."""

    server_version = "tf_gems"
    sys_version = ""

    def __init__(self, roots, *args):
        self.roots = roots
        super().__init__(*args)

    def do_GET(self):  # noqa: N802
        self._answer(body=True)

    def do_HEAD(self):  # noqa: N802
        self._answer(body=False)

    def _answer(self, body):
        if not self._is_for_this_machine():
            self._send(403, b"This page is for this machine alone.", "", body)
            return
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if path == "/run/":
            names = json.dumps(self._list(self.roots["/run/"]))
            self._send(200, names.encode(), ".json", body)
            return
        file = self._find("/index.html" if path == "/" else path)
        if file is None:
            self._send(404, b"There is no such file.", "", body)
        else:
            self._send(200, file.read_bytes(), file.suffix, body)

    def _is_for_this_machine(self):
        """Refuses names of other sites that point here (DNS rebinding)."""
        name = self.headers.get("Host", "").rsplit(":", 1)[0]
        return name in (HOST, "localhost")

    def _find(self, path):
        """Returns the file of a path, `None` if there is none within."""
        if "\0" in path:
            return None
        for prefix, root in self.roots.items():
            if path.startswith(prefix):
                file = (root / path.removeprefix(prefix)).resolve()
                within = file.is_relative_to(root) and file.is_file()
                return file if within else None
        return None

    def _list(self, root):
        files = (p for p in root.rglob("*") if p.is_file())
        return sorted(str(p.relative_to(root)) for p in files)

    def _send(self, code, data, suffix, body):
        self.send_response(code)
        kind = _TYPES.get(suffix, "text/plain; charset=utf-8")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args):
        pass  # the terminal is for what the user asked for
