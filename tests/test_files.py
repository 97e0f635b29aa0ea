"""Tests files and directories that several processes share."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tf_gems import files
from tf_gems import targets
from tf_gems.files import claimed
from tf_gems.files import lock
from tf_gems.files import remove_files
from tf_gems.files import remove_leftovers
from tf_gems.files import replacing
from tf_gems.files import replacing_path
from tf_gems.files import share
from tf_gems.files import workplace
from tf_gems.files import write_text
from tf_gems.targets import FOLDER
from tf_gems.targets import claiming

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


def start(script, directory, *arguments):
    root = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_share_work_and_results(tmp_path):
    workers = [start(WORKER, tmp_path) for _ in range(2)]
    outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    assert outputs == [f"{[n**2 for n in range(8)]}\n"] * 2
    log = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(int(piece) for piece, _ in log) == list(range(8))
    assert {int(pid) for _, pid in log} == {worker.pid for worker in workers}


@pytest.mark.skipif(os.name != "posix", reason="kill -9 needs POSIX")
def test_claim_ends_with_its_process(tmp_path):
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


def test_claim_excludes_other_processes(tmp_path):
    path = tmp_path / "new" / "one.lock"
    with claimed(path) as mine, claimed(path) as other:
        assert mine and not other
    with claimed(path) as mine:
        assert mine


def test_error_releases_claim(tmp_path):
    def fail(piece):
        raise RuntimeError(piece)

    with pytest.raises(RuntimeError, match="3"):
        share([3], lambda piece: tmp_path / "lock", fail)
    assert share([3], lambda piece: tmp_path / "lock", str) == ["3"]


# ---- Partial files

WRITER = """
import os, sys
from tf_gems.files import replacing

os.getpid = lambda: 1  # as in a container
text = sys.argv[1].encode() * 100_000
for _ in range(200):
    with replacing("shared.txt") as file:
        for start in range(0, len(text), 10_000):
            file.write(text[start:start + 10_000])
            file.flush()
"""
KILLED = """
import os, signal
from tf_gems.files import lock, replacing

with lock("run"), replacing("run/ticket.gem") as file:
    file.write(b"half of")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_concurrent_writers_do_not_mix_contents(tmp_path):
    """Writers with equal process IDs must not conflict either."""
    writers = [start(WRITER, tmp_path, letter) for letter in "ab"]
    path, seen = tmp_path / "shared.txt", set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            text = path.read_text()
            assert len(text) == 100_000 and len(set(text)) == 1
            seen.add(text[0])
    assert [writer.wait() for writer in writers] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["shared.txt"]


def test_names_of_partial_files_are_random(tmp_path):
    names = set()
    for _ in range(50):
        with replacing(tmp_path / "a.gem") as file:
            names.add(Path(file.name).name)
    assert len(names) == 50
    assert all(
        re.fullmatch(r"a\.gem\.partial-[0-9a-f]{12}", name) for name in names
    )
    assert not any(str(os.getpid()) == name.split("-")[1] for name in names)


@pytest.mark.skipif(os.name != "posix", reason="file modes need POSIX")
def test_new_file_has_default_mode(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "ours.txt", "x")
        (tmp_path / "theirs.txt").write_text("x")
    finally:
        os.umask(before)
    modes = [(tmp_path / f"{n}.txt").stat().st_mode for n in ("ours", "theirs")]
    assert modes[0] == modes[1]


@pytest.mark.skipif(os.name != "posix", reason="kill -9 needs POSIX")
def test_leftovers_are_removed_when_run_resumes(tmp_path):
    process = start(KILLED, tmp_path)
    assert process.wait() == -signal.SIGKILL
    run = tmp_path / "run"
    left, beside = sorted(run.glob("*.partial-*"))
    assert beside.name == f"{left.name}.lock"
    users = [
        *("notes.partial-1", "x.partial-0123456789AB", "a.partial-xyz"),
        *("ticket.gem.partial-123", "partial-0123456789ab"),
    ]
    for name in users:
        (run / name).write_text("mine")
    mine = run / ".mine.partial-0123456789ab"
    mine.mkdir()
    (mine / "photo.jpg").write_text("mine")
    link = run / "link.partial-0123456789ab"
    link.symlink_to(run / users[0])
    with lock(run):
        assert not left.exists()
    assert sorted(p.name for p in run.iterdir()) == sorted(
        [*users, mine.name, link.name]
    )


# Real writers. Each is killed before its last step, and one remains.
KILLED_WRITERS = """
import os, shutil, signal, sys, time
import numpy as np
import tf_gems
from pathlib import Path
from tf_gems.files import replacing_path, workplace

def text(path):
    tf_gems.files.write_text(path, "half" * 1000)

def ticket(path):
    parts = {"k": np.eye(3, dtype=bool)}, {"k": np.ones((3, 3), "float32")}
    tf_gems.Ticket(*parts).save(path)

def keras(path):
    with replacing_path(path, ".keras") as partial:
        partial.write_bytes(b"half")

def folder(path):
    with workplace(Path(path)) as inside:
        (inside / "sparse" / "variables").mkdir(parents=True)
        (inside / "sparse" / "saved_model.pb").write_bytes(b"half")
        os.fsync(0)

def stay(number):
    time.sleep(600)

def die(number):
    os.kill(os.getpid(), signal.SIGKILL)

def begin(writer, end):
    child = os.fork()
    if not child:
        os.fsync = end
        writer(f"new.{writer.__name__}")
        os._exit(1)
    return child

for writer in text, ticket, keras, folder:
    begin(writer, stay)
    while not list(Path().glob(f"*new.{writer.__name__}.partial-*")):
        time.sleep(0.01)
    os.waitpid(begin(writer, die), 0)
print("killed", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 needs POSIX")
def test_next_writer_removes_leftovers_of_killed_writers(tmp_path):
    """Files that are being written or have no known lock are kept."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITERS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == b"killed\n"
        writers = {
            "text": (replacing_path, ""),
            "ticket": (replacing_path, ""),
            "keras": (replacing_path, ".keras"),
            "folder": (workplace, None),
        }
        theirs = []
        for kind, (writer, suffix) in writers.items():
            more = [suffix] if suffix else []
            parts = list(tmp_path.glob(f"*new.{kind}.partial-*[!k]"))
            locks = list(tmp_path.glob(f"*new.{kind}.partial-*.lock"))
            assert len(parts) == len(locks) == 2
            # Files of users, or of writers without a lock, are kept.
            others = [
                tmp_path / f"new.{kind}.partial-0123456789ab{suffix or ''}",
                tmp_path / f"new.{kind}.partial-0123456789ab.other",
                tmp_path / f"old.{kind}.partial-0123456789ab",
                tmp_path / f"old.{kind}.partial-0123456789ab.lock",
            ]
            for path in others:
                path.write_text("mine")
            with writer(tmp_path / f"new.{kind}", *more) as path:
                if writer is replacing_path:
                    path.write_text("whole")
            # The remaining files belong to the running process.
            [part] = {p for p in parts if p.exists()}
            [beside] = {p for p in locks if p.exists()}
            assert beside.name == f"{part.name}.lock"
            assert all(path.read_text() == "mine" for path in others)
            theirs += [part, beside]
        assert all(path.exists() for path in theirs)
        # Locking the directory also keeps the files of running processes.
        with lock(tmp_path):
            assert all(path.exists() for path in theirs)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_moved_directory_of_killed_writer_is_kept(tmp_path):
    left = tmp_path / ".saved.partial-0123456789ab"
    (left / "old").mkdir(parents=True)
    (left / "old" / "saved_model.pb").write_text("all there is")
    left.with_name(f"{left.name}.lock").touch()
    for _ in range(2):
        with workplace(tmp_path / "saved") as folder:
            assert (left / "old" / "saved_model.pb").exists()
    with workplace(tmp_path / "saved") as folder:
        (tmp_path / "saved").mkdir()  # The new directory.
    assert not left.exists()
    assert not folder.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_partial_files_of_running_processes_are_kept(tmp_path):
    with lock(tmp_path), replacing(tmp_path / "a.gem") as file:
        file.write(b"half")
        with pytest.raises(
            RuntimeError, match="in which another process works"
        ):
            with lock(tmp_path):
                pass
        assert Path(file.name).exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.gem"]
    other = tmp_path / "b.gem.partial-0123456789ab"
    other.touch()
    remove_leftovers(tmp_path, "a.gem")  # Claims only these names.
    assert other.exists()


def test_only_files_with_matching_names_are_removed(tmp_path):
    training = tmp_path / "training"
    (training / "deep").mkdir(parents=True)
    (training / "other").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    ours = [
        training / "000000001.backup",
        training / "deep" / "000000002.backup.partial-0123456789ab",
    ]
    theirs = [
        *(training / "1.backup", training / "my 000000001.backup"),
        *(training / "000000001.backup.zip", outside / "000000003.backup"),
    ]
    for path in (*ours, *theirs):
        path.write_text("x")
    (training / "link").symlink_to(outside)
    remove_files(training, files.BACKUP)
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in theirs)
    assert not (training / "deep").exists()  # It contained no other files.
    assert (training / "other").is_dir()  # It was empty before.
    remove_files(tmp_path / "nowhere", files.BACKUP)


def test_claimed_names_persist_after_kill(tmp_path):
    with pytest.raises(FileExistsError, match="'a.txt' from another source"):
        (tmp_path / "a.txt").write_text("mine")
        with claiming(tmp_path, ["a.txt", "b.txt"]):
            pass
    (tmp_path / "a.txt").unlink()
    assert not list(tmp_path.iterdir())
    for text in ("first", "second"):
        with claiming(tmp_path, ["a.txt", "b.txt"]) as directory:
            write_text(directory / "a.txt", text)
    claims = [path.name for path in (tmp_path / FOLDER).iterdir()]
    assert claims == ["a.txt.claim"]
    # A claimed name that was never written is free for any process.
    (tmp_path / "b.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="'b.txt' from another source"):
        with claiming(tmp_path, ["a.txt", "b.txt"]):
            pass


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", "null", "[" * 100_000, '{"b": 1}', "\xff", "[[1]]"],
)
def test_damaged_record_is_named(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="record.json'.* Remove this file"):
        files.read_record(path, "a")
    path.write_text('{"a": 1}')
    assert files.read_record(path, "a") == {"a": 1}


def test_invalid_file_name(tmp_path):
    with pytest.raises(ValueError, match="a valid file name"):
        targets.check_path("a\ud800")
    path = os.fsdecode(b"latin-\xff")  # The longest name on Linux.
    assert targets.check_path(path).name == path
