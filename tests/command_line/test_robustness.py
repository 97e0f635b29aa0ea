"""Tests that no command ends with a traceback."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_gems
from tf_gems.command_line import main as command_line
from tf_gems.command_line.main import main

ROOT = Path(tf_gems.__file__).parents[1]
PROGRAM = [sys.executable, "-m", "tf_gems"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    model = tf_gems.zoo.lenet_300_100((4, 4, 1), 3)
    sparse = tf_gems.SparseModel(model, seed=0)
    ticket = tf_gems.methods.RandomPruning(0.9).find(sparse)
    ticket.metadata["network"] = "lenet_300_100"
    ticket.save(folder / "ticket.gem")
    ticket.apply(model)
    model.save(folder / "pruned.keras")
    np.save(folder / "x.npy", np.zeros((3, 4, 4, 1), "float32"))
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 not a zip archive")
    return folder


def refused(capsys, code, *arguments):
    assert main([str(argument) for argument in arguments]) == code
    output, errors = capsys.readouterr()
    assert output == "" and errors.startswith("tf_gems: ")
    assert errors.count("\n") == 1 and "Traceback" not in errors
    return errors


def test_invalid_npz_data(files, tmp_path, capsys):
    for name in ("x.npy", "damaged.npz", "ticket.gem"):
        line = refused(
            *(capsys, 1, "report", files / "pruned.keras"),
            *(f"--output={tmp_path / 'new'}", f"--data={files / name}"),
        )
        assert "an array `inputs`" in line and name in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("batch", [10**9, 10**18, 10**40])
def test_huge_batches(files, tmp_path, capsys, batch):
    line = refused(
        *(capsys, 1, "export", files / "pruned.keras"),
        *(f"--output={tmp_path / 'a.tflite'}", f"--batch_size={batch}"),
    )
    assert f"--batch_size={batch}" in line and "smaller" in line


@pytest.mark.parametrize(
    "shape", ["100000,100000,3", "9" * 30 + ",1,1", "0,4,1", "-4,4,1", "4,x"]
)
def test_huge_and_invalid_shapes(files, tmp_path, capsys, shape):
    line = refused(
        *(capsys, 2, "expand", files / "ticket.gem"),
        *(f"--output={tmp_path / 'a.keras'}", f"--input_shape={shape}"),
        *("--classes=3", "--network=lenet_300_100"),
    )
    assert f"--input_shape={shape}"[:60] in line


def test_huge_numbers_of_classes(files, tmp_path, capsys):
    line = refused(
        *(capsys, 2, "expand", files / "ticket.gem", "--input_shape=4,4,1"),
        *(f"--output={tmp_path / 'a.keras'}", f"--classes={10**12}"),
    )
    assert "--classes" in line


@pytest.mark.parametrize(
    "error, code, message",
    [
        (KeyboardInterrupt(), 130, "Interrupted. No file is incomplete"),
        (MemoryError("4 TiB"), 1, "not enough memory. 4 TiB"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (RecursionError("too deep"), 1, "too deep"),
        (AssertionError("of a library"), 1, "AssertionError: of a library"),
        (ValueError("a \x1b[31mred\nfile"), 1, r"a \x1b[31mred file"),
        (ValueError("long " * 9999), 1, "long long ..."),
    ],
)
def test_errors_are_one_line(capsys, monkeypatch, error, code, message):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(command_line.COMMANDS["compare"], "run", fail)
    assert message in refused(capsys, code, "compare", "x")


def start(command, **keywords):
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **keywords,
    )


@contextlib.contextmanager
def killed_after(process, seconds):
    """Kills a process that would block a test forever."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full disk")
def test_full_disk_on_standard_output(files):
    inspect = [*PROGRAM, "inspect", str(files / "ticket.gem")]
    with open("/dev/full", "w") as full, start(inspect, stdout=full) as process:
        [line] = process.stderr.read().splitlines()
    assert process.returncode == 1 and "No space left" in line


@pytest.mark.skipif(os.name != "posix", reason="file descriptors need POSIX")
def test_closed_streams(files):
    inspect = [*PROGRAM, "inspect", str(files / "ticket.gem")]
    closing = ["sh", "-c", 'exec "$@" >&-', "sh"]
    with start([*closing, *inspect]) as process:
        assert process.stderr.read() == ""
    assert process.returncode == 0
    closing[2] = 'exec "$@" 2>&- <&-'
    with start([*closing, *inspect], stdout=subprocess.PIPE) as process:
        output, _ = process.communicate()
    assert process.returncode == 0 and "lenet_300_100" in output
    reader, writer = os.pipe()
    os.close(reader)
    for command in (inspect, [*PROGRAM, "--help"]):
        with start(command, stdout=writer) as process:
            assert process.stderr.read() == ""
        assert process.returncode == 1
    os.close(writer)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a signal")
def test_interrupted_recipe_explains_resuming(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("absl")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("one backend is enough")
    recipe = ROOT / "recipes" / "digits.py"
    command = [
        *(sys.executable, str(recipe), "--preset=smoke"),
        *("--mining_epochs=2000", f"--output_dir={tmp_path}"),
    ]
    # A process started in the background of a shell ignores Ctrl-C, and so
    # would its children.
    heeds = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with (
        start(command, stdout=subprocess.DEVNULL, preexec_fn=heeds) as process,
        killed_after(process, 300),
    ):
        while not list(tmp_path.glob("*/backup-mine/*.backup")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        # Meanwhile, another process is refused and changes nothing.
        with start(command, stdout=subprocess.DEVNULL) as other:
            errors = other.stderr.read()
        assert other.returncode not in (0, None)
        assert "Only one process can work in a directory" in errors
        assert str(tmp_path) in errors
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130
    assert "The same command resumes" in errors and "Traceback" not in errors
    assert f"--preset=smoke --mining_epochs=2000 --output_dir={tmp_path}" in (
        errors
    )
    [run] = tmp_path.iterdir()
    assert not list(run.rglob("*.partial-*"))
