"""A full disk and a directory that may not be written to, at every writer.

Whoever writes says so by an `OSError` that names the place, leaves what was
there as it was, and no part of what it could not finish.
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
    """A file system of 2 MB, where other users can reach it."""
    if not hasattr(os, "geteuid") or os.geteuid():
        pytest.skip("a file system is mounted by root only")
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        place.rmdir()
        pytest.skip("this system lets nobody mount")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)
    place.rmdir()


def fill(place, left):
    """Fills a file system up to so many bytes."""
    room = os.statvfs(place)
    room = room.f_bavail * room.f_frsize - left
    (place / "theirs.bin").write_bytes(bytes(max(0, room)))


def assert_refused(write, place):
    """Refused by an error that names the place, with nothing changed."""
    before = snapshot(place)
    with pytest.raises((OSError, Refused)) as error:
        write()
    if not error.errisinstance(Refused):  # a command has said it already
        assert str(place) in str(error.value)
    assert snapshot(place) == before


@pytest.mark.parametrize("writer", DIRECTORIES)
def test_a_directory_on_a_full_disk(files, small, light, writer):  # noqa: F811
    if writer.__name__.startswith("find"):
        pytest.skip("it begins with backups, which its own tests fill")
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
            assert left, "there was no room"
        assert theirs.stat().st_size == before
        assert not list(small.rglob("*.partial-*"))
        theirs.unlink()
        shutil.rmtree(target, ignore_errors=True)


@pytest.mark.parametrize("writer, suffix", FILES)
def test_a_file_on_a_full_disk(files, small, writer, suffix):  # noqa: F811
    target = small / f"old{suffix}"
    target.write_bytes(b"what was there")
    fill(small, 0)
    assert_refused(lambda: writer(files, target), small)


@contextlib.contextmanager
def another_user():
    """Acts as a user who owns nothing."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("writer, suffix", FILES)
@pytest.mark.parametrize("how", ["file system", "user"])
def test_a_file_where_nothing_may_be_written(
    files,  # noqa: F811
    small,
    tmp_path,
    writer,
    suffix,
    how,
):
    target = small / f"old{suffix}"
    target.write_bytes(b"what was there")
    writer(files, tmp_path / f"first{suffix}")  # all is imported after that
    if how == "user":
        small.chmod(0o755)
        with another_user():
            if not os.access(small, os.X_OK, effective_ids=True):
                pytest.skip("another user does not reach temporary files")
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
def test_a_directory_where_nothing_may_be_written(files, small, light, writer):  # noqa: F811
    (small / "theirs.bin").write_bytes(b"mine")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    assert_refused(lambda: writer(files, small / "new", False), small)
