"""Recipes on several devices and with several workers, from end to end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tf_gems as gems

RECIPES = Path(__file__).parents[1] / "recipes"
TIMEOUT = 400
SMOKE = ["--preset=smoke", "--mining_epochs=4", "--finetuning_epochs=2"]


def start(output_dir, *flags, recipe="digits.py", **environment):
    return subprocess.Popen(
        [
            *(sys.executable, RECIPES / recipe),
            *(f"--output_dir={output_dir}", *flags),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        start_new_session=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=TIMEOUT)
    return process.returncode, output


def results(output_dir):
    [path] = Path(output_dir).glob("digits-*/results.json")
    return json.loads(path.read_text("utf-8"))["stages"]


def ticket(output_dir):
    """Masks and weights, bit for bit; metadata tell of all workers."""
    [path] = Path(output_dir).glob("digits-*/ticket.gem")
    found = gems.Ticket.load(path)
    return {
        name: value.tobytes()
        for kept in (found.masks, found.weights)
        for name, value in kept.items()
    }


def children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text("ascii").split()]


def test_mirrored(tmp_path):
    code, output = finish(start(tmp_path, *SMOKE, "--strategy=mirrored"))
    assert code == 0, output[-3000:]
    stages = results(tmp_path)
    assert list(stages) == ["mine", "finetune", "random", "dense", "export"]
    assert stages["mine"]["kept"] == stages["random"]["kept"] == 5020
    assert stages["export"]["accuracy"] == stages["finetune"]["accuracy"]


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="finds workers in /proc"
)
@pytest.mark.parametrize("killed", ["one", "both"])
def test_killed_workers_go_on_to_the_same_ticket(killed, tmp_path, whole):
    """`kill -9` of one worker, or of both, in the middle of mining."""
    process = start(tmp_path, *SMOKE, "--workers", "2")
    deadline = time.time() + TIMEOUT
    while not list(tmp_path.glob("*/backup-mine/*.backup")):
        assert process.poll() is None, finish(process)
        assert time.time() < deadline
        time.sleep(0.05)
    workers = children(process.pid)
    assert len(workers) == 2
    for pid in workers[1:] if killed == "one" else workers:
        os.kill(pid, signal.SIGKILL)
    code, output = finish(process)
    assert code != 0, "no worker goes on without the others"
    assert "mine" not in results_or_nothing(tmp_path), "killed too late"

    code, output = finish(start(tmp_path, *SMOKE, "--workers=2"))
    assert code == 0, output[-3000:]
    assert ticket(tmp_path) == whole["ticket"]
    stages = results(tmp_path)
    assert list(stages) == ["mine", "finetune", "random", "dense", "export"]
    assert stages["mine"]["kept"] == 5020


def results_or_nothing(output_dir):
    if not list(Path(output_dir).glob("digits-*/results.json")):
        return {}
    return results(output_dir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two workers that are left alone."""
    path = tmp_path_factory.mktemp("whole")
    code, output = finish(start(path, *SMOKE, "--workers=2"))
    assert code == 0, output[-3000:]
    return {"ticket": ticket(path)}


def test_what_a_comparison_and_jax_refuse(tmp_path):
    code, output = finish(
        start(tmp_path, "--strategy=mirrored", recipe="compare.py")
    )
    assert code != 0 and "Share out its cells instead" in output
    code, output = finish(
        start(tmp_path, *SMOKE, "--backend=jax", "--strategy=multiworker")
    )
    assert code != 0 and "on backend 'jax'" in output
