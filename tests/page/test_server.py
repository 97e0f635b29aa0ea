"""Tests links, encodings, misbehaving clients and memory of the server."""

import http.client
import json
import os
import socket
import threading
import time

import pytest

from tf_gems import page as pages
from tf_gems.command_line.main import main
from tf_gems.page import server as serving
from tf_gems.page import static_copy


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Placeholder files for LiteRT.js, since no network runs here."""
    folder = tmp_path / "node_modules"
    for part in (*static_copy._PARTS, "wasm-utils/dist/index.js"):
        path = folder / "@litertjs" / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("export {};")
    for module in (serving, static_copy):
        monkeypatch.setattr(module, "PACKAGES", folder)


@pytest.fixture
def run(tmp_path):
    """A run next to a secret file."""
    (tmp_path / "secret.txt").write_text("a secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "page.json").write_text("a secret")
    directory = tmp_path / "run"
    directory.mkdir()
    for name in serving.FILES:
        (directory / name).write_text(f'"{name}"')
    return directory


@pytest.fixture
def server(packages, run):
    server = pages.make_server(run)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def get(server, path):
    """Requests a path as written. Returns status, headers and body."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=60)
    connection.putrequest("GET", path)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def ways_out(run):
    """Addresses outside the directories, with repeated percent-encoding."""
    secret = run.parent / "secret.txt"
    (run / "link.txt").symlink_to(secret)
    (run / "folder").symlink_to(run.parent)
    (run / "chain").symlink_to("link.txt")
    plain = [
        *("../secret.txt", "link.txt", "chain", "folder/secret.txt"),
        *("sub/../../secret.txt", "./../secret.txt", f"/{secret}"),
        *(str(secret), "..\\secret.txt", "folder/../secret.txt"),
    ]
    for path in plain:
        once = path.replace(".", "%2e").replace("/", "%2f")
        yield from (path, once, once.replace("%", "%25"), once.upper())
        yield path.replace(".", "%c0%ae").replace("/", "%c0%af")
        yield once.replace("%", "%2525")


def test_links_and_encodings_stay_inside(server, run):
    for path in ways_out(run):
        status, _, body = get(server, f"/run/{path}")
        assert status == 404 and b"secret" not in body, path
    names = json.loads(get(server, "/run/")[2])
    assert names == sorted(serving.FILES)
    # A link within the run is allowed.
    (run / "inside.json").symlink_to("page.json")
    assert get(server, "/run/inside.json")[2] == b'"page.json"'


def test_linked_page_directory_is_refused(packages, run):
    for name in serving.FILES:
        (run / name).unlink()
    (run / "page").symlink_to(run.parent / "secrets")
    assert pages.server.page_directory(run) == run
    with pytest.raises(FileNotFoundError, match="has no page.json"):
        pages.copy_page(run, run.parent / "site")


@pytest.mark.parametrize("name", serving.FILES)
def test_copy_takes_no_outside_files(packages, run, name):
    (run / name).unlink()
    (run / name).symlink_to(run.parent / "secret.txt")
    site = run.parent / "site"
    with pytest.raises((FileNotFoundError, PermissionError), match=name):
        pages.copy_page(run, site)
    assert not site.exists()


def test_copy_is_complete_or_absent(packages, run, capsys):
    site = run.parent / "site"
    pages.copy_page(run, site)
    assert (site / "run" / "page.json").read_text() == '"page.json"'
    assert (site / "index.html").is_file()
    (site / "index.html").write_text("mine")
    with pytest.raises(FileExistsError, match="target="):
        pages.copy_page(run, site)
    assert (site / "index.html").read_text() == "mine"
    (run.parent / "empty").mkdir()
    pages.copy_page(run, run.parent / "empty")
    assert main(["serve", str(run), "--copy="]) == 1
    assert "must not be empty" in capsys.readouterr().err


def test_invalid_page_is_reported_before_serving(packages, run, capsys):
    (run / "page.json").unlink()
    assert main(["serve", str(run), "--port=0"]) == 1
    output, errors = capsys.readouterr()
    assert output == "" and "has no page.json" in errors


def test_unusual_addresses_get_a_response(server, run):
    (run / "loop").symlink_to("loop")
    (run / "one").symlink_to("two")
    (run / "two").symlink_to("one")
    for path in ("/run/" + "a" * 5000, "/run/loop", "/run/one/x", "//["):
        assert get(server, path)[0] == 404, path
    for path in ("/run/%ff%fe", "/run/%00", "/run/" + "a/" * 3000, "/run/."):
        assert get(server, path)[0] == 404, path
    os.mkfifo(run / "pipe")
    assert get(server, "/run/pipe")[0] == 404


def test_documents_of_run_may_not_execute(server, run):
    for name in ("evil.html", "evil.svg", "evil.js"):
        (run / name).write_text("<script>alert(1)</script>")
        _, headers, _ = get(server, f"/run/{name}")
        policy = headers["Content-Security-Policy"]
        assert policy == "default-src 'none'; sandbox"
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert "wasm-unsafe-eval" in get(server, "/")[1]["Content-Security-Policy"]


def test_disconnected_clients_are_not_logged(server, run, capfd):
    with open(run / "large.bin", "wb") as file:
        file.truncate(64 << 20)
    for _ in range(3):
        with socket.create_connection(server.server_address) as client:
            client.sendall(
                b"GET /run/large.bin HTTP/1.0\r\nHost: localhost\r\n\r\n"
            )
            client.recv(10)
    assert get(server, "/run/page.json")[0] == 200
    time.sleep(0.3)
    assert capfd.readouterr() == ("", "")


def test_silent_clients_are_disconnected(server, run, monkeypatch):
    monkeypatch.setattr(serving._Handler, "timeout", 0.2)
    with socket.create_connection(server.server_address, timeout=60) as client:
        client.sendall(b"GET /run/pa")
        assert client.recv(10) == b""


@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="memory is read from /proc"
)
def test_files_are_streamed(server, run):
    """Stalled readers of large files take no memory."""

    def resident():
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with open(run / "large.bin", "wb") as file:
        file.truncate(1 << 30)
    before, clients = resident(), []
    for _ in range(4):
        client = socket.create_connection(server.server_address, timeout=60)
        client.sendall(
            b"GET /run/large.bin HTTP/1.0\r\nHost: localhost\r\n\r\n"
        )
        assert client.recv(12) == b"HTTP/1.0 200"
        clients.append(client)
    time.sleep(0.3)
    assert resident() - before < 64 << 20
    for client in clients:
        client.close()


def test_whole_file_is_sent(server, run):
    content = os.urandom((3 << 16) + 17)
    (run / "large.bin").write_bytes(content)
    _, headers, body = get(server, "/run/large.bin")
    assert body == content and headers["Content-Length"] == str(len(content))
