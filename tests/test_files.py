"""What processes share through a directory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tf_gems.files import claimed
from tf_gems.files import share

pytest.importorskip("fcntl", reason="there are no claims on Windows")

WORKER = """
import os, pathlib, time
from tf_gems.files import share

def run(piece):
    result = pathlib.Path(f"{piece}.txt")
    if not result.exists():
        with open("log", "a") as log:
            log.write(f"{piece} {os.getpid()}\\n")
        time.sleep(0.3)
        result.write_text(str(piece ** 2))
    return int(result.read_text())

pathlib.Path(f"ready-{os.getpid()}").touch()
while len(list(pathlib.Path().glob("ready-*"))) < 2:
    time.sleep(0.01)
print(share(range(8), lambda piece: f"{piece // 2}.lock", run))
"""
HOLDER = """
import time
from tf_gems.files import claimed

with claimed("held.lock") as mine:
    print(mine, flush=True)
    time.sleep(600)
"""


def start(script, directory):
    root = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_share_work_and_have_all_results(tmp_path):
    workers = [start(WORKER, tmp_path) for _ in range(2)]
    outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    assert outputs == [f"{[n**2 for n in range(8)]}\n"] * 2
    log = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(int(piece) for piece, _ in log) == list(range(8)), "once"
    assert {int(pid) for _, pid in log} == {worker.pid for worker in workers}


def test_a_claim_ends_with_its_process(tmp_path):
    path = tmp_path / "held.lock"
    holder = start(HOLDER, tmp_path)
    assert holder.stdout.readline() == "True\n"
    with claimed(path) as mine:
        assert not mine
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    begin = time.monotonic()
    with claimed(path, wait=True) as mine:
        assert mine and time.monotonic() - begin < 60


def test_a_claim_excludes_others_until_it_ends(tmp_path):
    path = tmp_path / "new" / "one.lock"
    with claimed(path) as mine, claimed(path) as other:
        assert mine and not other
    with claimed(path) as mine:
        assert mine


def test_an_error_gives_the_claim_back(tmp_path):
    def fail(piece):
        raise RuntimeError(piece)

    with pytest.raises(RuntimeError, match="3"):
        share([3], lambda piece: tmp_path / "lock", fail)
    assert share([3], lambda piece: tmp_path / "lock", str) == ["3"]
