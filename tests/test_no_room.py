"""Tests all writers with a full disk and a read-only directory.

A writer must raise an `OSError` that names the path, keep the existing files,
and leave no partial files.
"""

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from test_deletion_walk import DIRECTORIES
from test_deletion_walk import FILES
from test_deletion_walk import Refused
from test_deletion_walk import files  # noqa: F401 - a fixture
from test_deletion_walk import light  # noqa: F401 - a fixture
from test_deletion_walk import snapshot

NOBODY = 65534


@pytest.fixture
def small():
    """A file system of 2 MB that other users can access."""
    if not hasattr(os, "geteuid") or os.geteuid():
        pytest.skip("only root can mount a file system")
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        place.rmdir()
        pytest.skip("mounting is not allowed on this system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)
    place.rmdir()


def fill(place, left):
    """Fills a file system up to a number of free bytes."""
    room = os.statvfs(place)
    room = room.f_bavail * room.f_frsize - left
    (place / "theirs.bin").write_bytes(bytes(max(0, room)))


def assert_refused(write, place):
    """Asserts that an error names the path and that nothing has changed."""
    before = snapshot(place)
    with pytest.raises((OSError, Refused)) as error:
        write()
    # The command has already printed the error.
    if not error.errisinstance(Refused):
        assert str(place) in str(error.value)
    assert snapshot(place) == before


@pytest.mark.parametrize("writer", DIRECTORIES)
def test_directory_on_full_disk(files, small, light, writer):  # noqa: F811
    if writer.__name__.startswith("find"):
        pytest.skip("the first files are backups, which have separate tests")
    target = small / "new"
    theirs = small / "theirs.bin"
    trains = writer.__name__ == "compare"
    for left in (0, 4096) if trains else (0, 4096, 16384):
        fill(small, left)
        before = theirs.stat().st_size
        try:
            writer(files, target, False)
        except (OSError, Refused) as error:
            assert isinstance(error, Refused) or error.errno == errno.ENOSPC
            assert isinstance(error, Refused) or str(small) in str(error)
        else:
            assert left, "writing to the full disk raised no error"
        assert theirs.stat().st_size == before
        assert not list(small.rglob("*.partial-*"))
        theirs.unlink()
        shutil.rmtree(target, ignore_errors=True)


@pytest.mark.parametrize("writer, suffix", FILES)
def test_file_on_full_disk(files, small, writer, suffix):  # noqa: F811
    target = small / f"old{suffix}"
    target.write_bytes(b"what was there")
    fill(small, 0)
    assert_refused(lambda: writer(files, target), small)


@contextlib.contextmanager
def another_user():
    """Runs as a user who owns no files."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("writer, suffix", FILES)
@pytest.mark.parametrize("how", ["file system", "user"])
def test_file_in_readonly_directory(
    files,  # noqa: F811
    small,
    tmp_path,
    writer,
    suffix,
    how,
):
    target = small / f"old{suffix}"
    target.write_bytes(b"what was there")
    # Imports must come before the change of the user.
    writer(files, tmp_path / f"first{suffix}")
    if how == "user":
        small.chmod(0o755)
        with another_user():
            if not os.access(small, os.X_OK, effective_ids=True):
                pytest.skip(
                    "another user cannot access the temporary directory"
                )
        again = another_user
    else:
        remount = ["mount", "-o", "remount,ro", str(small)]
        subprocess.run(remount, check=True)
        again = contextlib.nullcontext

    def write():
        with again():
            writer(files, target)

    assert_refused(write, small)


@pytest.mark.parametrize("writer", DIRECTORIES)
def test_directory_in_readonly_directory(files, small, light, writer):  # noqa: F811
    (small / "theirs.bin").write_bytes(b"mine")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    assert_refused(lambda: writer(files, small / "new", False), small)
