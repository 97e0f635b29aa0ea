"""Runs recipes on several devices and workers, end to end."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest

import tf_gems as gems

RECIPES = Path(__file__).parents[1] / "recipes"
TIMEOUT = 400
SMOKE = ["--preset=smoke", "--mining_epochs=8", "--finetuning_epochs=2"]


SPLIT = """
import runpy, sys
import tensorflow as tf
[cpu] = tf.config.list_physical_devices("CPU")
parts = [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1])
tf.config.set_logical_device_configuration(cpu, parts)
sys.argv = sys.argv[2:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(output_dir, *flags, recipe="digits.py", replicas=1, **environment):
    split = ["-c", SPLIT, str(replicas)] if replicas > 1 else []
    return subprocess.Popen(
        [
            *(sys.executable, *split, RECIPES / recipe),
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
    """Returns masks and weights for a bitwise comparison, without metadata."""
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


def wait_for(process, output_dir, pattern):
    """Waits until a matching file exists."""
    deadline = time.time() + TIMEOUT
    while not list(Path(output_dir).glob(f"digits-*/{pattern}")):
        assert process.poll() is None, finish(process)[1][-3000:]
        assert time.time() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_mirrored(tmp_path):
    flags = [*SMOKE, "--strategy=mirrored"]  # The number of test images is 359.
    code, output = finish(start(tmp_path, *flags, replicas=2))
    assert code == 0, output[-3000:]
    stages = results(tmp_path)
    assert list(stages) == ["mine", "finetune", "random", "dense", "export"]
    assert stages["mine"]["kept"] == stages["random"]["kept"] == 5020
    assert stages["export"]["accuracy"] == stages["finetune"]["accuracy"]


def kill_one_of_two_workers(output_dir):
    process = start(output_dir, *SMOKE, "--workers", "2")
    wait_for(process, output_dir, "backup-mine/000000002.backup")
    _, worker = children(process.pid)
    os.kill(worker, signal.SIGKILL)
    code, _ = finish(process)
    assert code != 0, "a worker continued without the others"
    assert not list(output_dir.glob("*/ticket.gem")), (
        "the worker was killed too late"
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/task").exists(),
    reason="the test finds workers in /proc",
)
def test_killed_workers_resume_to_same_ticket(tmp_path):
    (tmp_path / "whole").mkdir()
    process = start(tmp_path / "whole", *SMOKE, "--workers=2")
    wait_for(process, tmp_path / "whole", "results.json")  # Epochs of mining.
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    (tmp_path / "killed").mkdir()
    kill_one_of_two_workers(tmp_path / "killed")
    code, output = finish(start(tmp_path / "killed", *SMOKE, "--workers=2"))
    assert code == 0, output[-3000:]
    assert ticket(tmp_path / "killed") == ticket(tmp_path / "whole")
    stages = results(tmp_path / "killed")
    assert list(stages) == ["mine", "finetune", "random", "dense", "export"]
    assert stages["mine"]["kept"] == 5020


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)
def test_devices_must_divide_batches(tmp_path):
    flags = ["--backend=jax", "--strategy=mirrored"]
    three = "--xla_force_host_platform_device_count=3"
    process = start(tmp_path, *SMOKE, *flags, XLA_FLAGS=three)
    code, output = finish(process)
    assert code == 0, output[-3000:]
    stages = results(tmp_path)
    assert stages["mine"]["kept"] == 5020
    assert stages["finetune"]["accuracy"] > 0.8


@pytest.mark.slow
def test_mirrored_comparison(tmp_path):
    flags = ["--preset=smoke", "--names=snip", "--strategy=mirrored"]
    process = start(tmp_path, *flags, recipe="compare.py", replicas=2)
    code, output = finish(process)
    assert code == 0, output[-3000:]
    [path] = tmp_path.glob("compare-*/results.json")
    found = json.loads(path.read_text("utf-8"))
    assert found["provenance"]["command"].endswith("--strategy=mirrored")
    assert {row["method"] for row in found["rows"]} == {"dense", "snip"}


@pytest.mark.slow
def test_replicas_must_divide_batches(tmp_path):
    process = start(tmp_path, *SMOKE, "--strategy=mirrored", replicas=3)
    code, output = finish(process)
    assert code and "batch_size=64 for 3 replicas" in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("recipe", "flags", "message"),
    [
        ("compare.py", ["--strategy=multiworker"], "share the cells"),
        ("compare.py", ["--strategy=mirrored", "--workers=2"], "Leave one out"),
        (
            "reproduce.py",
            ["--table=4", "--backend=jax", "--strategy=mirrored"],
            "they share the cells",
        ),
        ("reproduce.py", ["--table=4", "--penalties=1e-4;2"], "0 or more"),
        ("digits.py", ["--backend=jax", "--strategy=multiworker"], "'jax'"),
    ],
)
def test_invalid_flags_are_refused(recipe, flags, message, tmp_path):
    if "--backend=jax" in flags:  # Flags that are read before the imports.
        code, output = finish(start(tmp_path, *flags, recipe=recipe))
    else:
        output_dir = f"--output_dir={tmp_path}"
        code, output = forked.run(RECIPES / recipe, output_dir, *flags)
    assert code != 0 and message in output, output[-3000:]
    assert not list(tmp_path.glob("*/*"))
