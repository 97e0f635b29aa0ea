"""Tests that a memory limit holds for the process that reads a file."""

import json
import os
import re
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_gems
from tf_gems import ticket_file
from tf_gems.ticket_file import container

ROOT = Path(ticket_file.__file__).parents[2]
SECONDS = 10


def seal(header, middle=b"", numbers=b""):
    """Returns a file of any parts with correct lengths and checksum."""
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    stored, values = container._deflate(text), container._deflate(numbers)
    body = stored + middle + values
    lengths = 36 + len(body), len(stored), len(text), len(values)
    data = container._PREFIX.pack(b"\x89GEM", 2, *lengths) + body
    return data + zlib.crc32(data).to_bytes(4, "little")


def header(paths, shape, coding="plain", kept=0, **more):
    count = len(paths)
    columns = {
        "path": paths,
        "shape": [shape] * count,
        "dtype": ["float32"] * count,
        "kept": [kept] * count,
        "width": [None if kept is None else 0] * count,
        "coding": [coding] * count,
    }
    columns["kept"][0], columns["width"][0] = 0, 0
    columns["coding"][0] = "plain"
    found = ticket_file.fingerprint(
        columns["shape"], [k is not None for k in columns["kept"]]
    )
    return {
        "fingerprint": found,
        "metadata": {},
        "weights": columns,
        **more,
    }


def hostile():
    """Files of a few kB that describe much more data."""
    names = [f"w{n}" for n in range(11_000)]
    large = 2**29
    text = json.dumps(header(["a", "b"], [8])).encode()
    room = (2**20 - len(text) - 100) // 9
    crowded = b'{"metadata":{"m":[' + b'{"a":{}},' * room + b"0]},"
    return {
        "zeros": seal(header(["a", "b"], [large])),
        "constant": seal(
            header(["a", "b"], [large], "constant", None), b"", bytes(4)
        ),
        "bomb": seal(
            header(["a", "b"], [2**26], "plain", None), b"", bytes(2**28)
        ),
        "path": seal(header(["p" * 500_000, *names], [1])),
        "wide": seal(header([f"{n:01000}" for n in range(900)], [1])),
        "rows": seal(header(names, [1])),
        "crowded": seal(text.replace(b'{"metadata": {}, ', crowded)),
        "values": seal(
            text.replace(b'"metadata": {}', crowded[1:-1]),
        ),
    }


def limited(code, *arguments, size, **keywords):
    """Runs Python with limits on address space and CPU time."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))

    return subprocess.run(
        [sys.executable, *code, *map(str, arguments)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        **keywords,
    )


FAST = ("bomb", "crowded", "rows")  # Of numbers, of the header and of weights.


@pytest.mark.parametrize(
    "kind",
    [
        *FAST,
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in hostile()
            if kind not in FAST
        ),
    ],
)
def test_inspect_respects_memory_and_time_limits(kind, tmp_path):
    path = tmp_path / "hostile.gem"
    path.write_bytes(hostile()[kind])
    assert path.stat().st_size < 400_000
    command = ["-m", "tf_gems", "inspect", path]
    found = limited(command, size=2**30)
    assert found.returncode in (0, 1), found.stderr[-500:]
    assert len(found.stdout) < 3_000_000
    errors = found.stderr.splitlines()
    assert "MemoryError" not in found.stderr and len(errors) <= 1
    assert (found.returncode == 0) == (not errors)
    assert all(error.startswith("tf_gems: A ticket") for error in errors)
    if not errors:
        assert max(map(len, found.stdout.splitlines())) < 600
    with pytest.raises(ValueError, match="more than max_bytes=1,000"):
        ticket_file.TicketSummary.read(path, 1000)


READ = """
import re, resource, sys
import tf_gems
from tf_gems import ticket_file

def limit(more):
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size + more, hard))

for path in sys.argv[1:]:
    try:
        ticket_file.read(path, 1)
    except ValueError as error:
        pass
    for most in (2**27, None):
        if most is None:
            # As much as is said to be needed, and no more.
            most = needed
            if most > 2**28:
                continue
        limit(most)
        try:
            ticket_file.read(path, most)
            print("read", most)
        except ValueError as error:
            assert not isinstance(error.__cause__, MemoryError), path
            print("refused", error)
            found = re.search("requires ([0-9,]+) bytes", str(error))
            needed = int(found[1].replace(",", "")) if found else 2**30
        else:
            needed = most
        limit(2**33)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="needs Linux limits"
)
def test_reading_respects_max_bytes(tmp_path):
    random = np.random.default_rng(0)
    values = random.normal(size=(4, 4_000_000)).astype("float32")
    masks = {
        "half": random.random(values.shape[1]) < 0.5,
        "few": random.random(values.shape[1]) < 0.01,
        "all": np.ones(values.shape[1], bool),
    }
    weights = dict(zip([*masks, "plain"], values, strict=True))
    paths = []
    for name, dtype in (("full", None), ("float16", "float16")):
        data = ticket_file.encode(masks, weights, {}, dtype)
        paths.append(tmp_path / f"{name}.gem")
        paths[-1].write_bytes(data)
    for name, data in hostile().items():
        paths.append(tmp_path / f"{name}.gem")
        paths[-1].write_bytes(data)
    found = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    lines = found.stdout.splitlines()
    # Both valid files are refused at 128 MiB, and read with enough memory.
    assert [line.split()[0] for line in lines[:4]] == ["refused", "read"] * 2
    assert sum(line.startswith("read") for line in lines) >= 4


EXPAND = """
import sys
from pathlib import Path
from tf_gems import Ticket
from tf_gems.command_line.main import main

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(x for x in lines if x.startswith(name)).split()[1])

def peak(function, *arguments):
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    result = function(*arguments)
    print("peak", status("VmHWM") - before, result)

small, large, output, needed = sys.argv[1:]
main(["expand", small, output])  # what a first time loads
for most in (int(needed), int(needed) - 1):
    peak(main, ["expand", large, output, f"--max_bytes={most}"])
ticket = Ticket.load(large)
peak(ticket.network)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads Linux' memory figures"
)
def test_expanding_respects_max_bytes(tmp_path):
    """Also holds for the smallest limit that is not refused."""
    paths = {"small": 20, "large": 2500}
    for name, width in paths.items():
        layers = [keras.Input((width,)), keras.layers.Dense(width)]
        sparse = tf_gems.SparseModel(keras.Sequential(layers), seed=0)
        ticket = tf_gems.methods.RandomPruning(0.2).find(sparse)
        paths[name] = tmp_path / f"{name}.gem"
        ticket.save(paths[name])
    arrays = (*ticket.weights.values(), *ticket.masks.values())
    arrays = sum(array.nbytes for array in arrays)
    needed = 6 * arrays + 2**25
    found = subprocess.run(
        [
            *(sys.executable, "-c", EXPAND, *map(str, paths.values())),
            *(f"--output={tmp_path / 'plain.keras'}", str(needed)),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    lines = found.stdout.splitlines()
    peaks = [line.split()[1:3] for line in lines if line.startswith("peak")]
    (used, code), (to_refuse, refused), (of_network, _) = peaks
    assert (code, refused) == ("0", "1")
    assert f"--max_bytes={needed - 1}" in found.stderr
    assert arrays < int(used) <= needed
    assert int(to_refuse) < needed and int(of_network) < 3 * arrays + 2**25


def test_file_cannot_control_terminal(tmp_path):
    path = tmp_path / "escape.gem"
    names = ["\x1b]0;title\x07w", "\u202egpj.exe", "\ud800"]
    more = {"metadata": {"\x1b[2Jkey": "\x1b[31mred"}}
    path.write_bytes(seal({**header(names, [1]), **more}))
    table = str(ticket_file.TicketSummary.read(path))
    assert all(c.isprintable() or c == "\n" for c in table)
    assert r"\x1b[2Jkey" in table and "title" in table


def test_weight_paths_are_bounded_on_write():
    for name in ("w" * 1025, 3):
        with pytest.raises(ValueError, match="at most 1,024 characters") as e:
            ticket_file.encode({name: np.ones(2, bool)}, {name: np.ones(2)}, {})
        assert re.search("Received: .* shorter names", str(e.value))
