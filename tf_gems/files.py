"""Atomic writes of files, and work that is shared by processes."""

import contextlib
import json
import os
import re
import secrets
import shutil
from pathlib import Path

import filelock

from tf_gems.targets import FOLDER
from tf_gems.targets import check_directory
from tf_gems.targets import check_file

BACKUP = r"\d{9}\.backup(\.partial-[0-9a-f]{12}(\.lock)?)?"
# Random, as containers that share a directory share process ids.
_PARTIAL = re.compile(
    r"((.+)\.partial-[0-9a-f]{12}((?:\.\w+)??))(?:\.lock)?", re.DOTALL
)
# What writers put into a workplace, and how their temporary folders begin.
_PARTS = {"new", "sparse", "dense", "old", "candidate.tflite"}
TEMPORARY = "tf_gems-"


@contextlib.contextmanager
def replacing(path):
    """Opens a binary file that replaces `path` once it is complete.

    A partial file is written beside the target, flushed to disk and renamed.
    So there is always either the old file or the new one. Partial files of
    earlier writers that were killed are removed.

    Example:

    ```python
    with replacing("weights.npz") as file:
        np.savez(file, **weights)
    ```
    """
    with replacing_path(path) as partial, open(partial, "xb") as file:
        yield file


@contextlib.contextmanager
def replacing_path(path, suffix=""):
    """Yields a path beside `path`, whose file replaces it; see `replacing`."""
    path = check_file(path)
    _remove_ownerless(path.parent, path.name, suffix)
    partial = path.with_name(
        f"{path.name}.partial-{secrets.token_hex(6)}{suffix}"
    )
    try:
        with _owned(partial):
            yield partial
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    except OSError as error:
        if "could not be written" in str(error):
            raise
        kept = "is left as it was" if path.exists() else "is not there"
        reason = error.strerror or error
        raise OSError(
            error.errno,
            f"'{path}' could not be written: {reason}. No partial file is "
            f"left, and the file itself {kept}. Free some space, and start "
            "again.",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a text file completely, or not at all; see `replacing`."""
    with replacing(path) as file:
        file.write(text.encode())


def read_record(path, *keys):
    """Returns the dict of a JSON file that `write_text` has written.

    A `ValueError` says that it has been damaged since, or lacks a key.
    """
    try:
        found = json.loads(path.read_bytes())
        missing = [key for key in keys if key not in dict(found)]
        problem = f"it holds no '{missing[0]}'" if missing else None
    except (RecursionError, TypeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        raise ValueError(
            f"The record of a run must be complete. Received: '{path}', which "
            f"is damaged ({problem}). Remove this file, and run the same "
            "command again."
        )
    return found


@contextlib.contextmanager
def workplace(target):
    """Yields a new folder beside a directory, which is removed in the end."""
    name = f".{target.name}"
    _remove_ownerless(target.parent, name)
    folder = target.with_name(f"{name}.partial-{secrets.token_hex(6)}")
    with _owned(folder):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            # What was moved aside before a kill: the new one is in its place.
            _remove_ownerless(target.parent, name)


@contextlib.contextmanager
def _owned(partial):
    """Holds a lock file beside a partial file until the process ends.

    It shows that a process still writes there. Process ids would mean nothing
    in another container. If the file system has no locks, there is none.
    """
    lock = filelock.FileLock(f"{partial}.lock")
    if partial.parent.is_dir():  # which `filelock` would make
        with contextlib.suppress(OSError, NotImplementedError):
            lock.acquire()
    try:
        yield
    finally:
        if lock.is_locked:
            lock.release()
            with contextlib.suppress(OSError):
                Path(lock.lock_file).unlink()


def _remove_ownerless(directory, name, suffix=""):
    """Removes partial files of one target whose process has ended."""
    for path, *found in _partials(directory):
        if found == [name, suffix] and _has_owner(path) is False:
            _discard(path)


def _partials(directory):
    """Yields partial files, their targets and suffixes."""
    with contextlib.suppress(OSError):  # the writer raises the error
        matches = map(_PARTIAL.fullmatch, sorted(os.listdir(directory)))
        for path, *parts in dict.fromkeys(m.groups() for m in matches if m):
            yield (Path(directory, path), *parts)


def _has_owner(partial):
    """Whether a process is still writing there; `None` if it is unknown."""
    path = partial.with_name(f"{partial.name}.lock")
    if not path.is_file() or path.is_symlink():
        return None
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (OSError, NotImplementedError):  # a timeout is one
        return True
    lock.release()  # names are random: nobody will want it again
    return False


def _discard(partial):
    """Removes a partial file, or a folder that is a `workplace`, and its lock.

    An older directory that was moved aside before a kill is kept until the
    new one is in its place.
    """
    if partial.is_symlink():
        return
    if partial.is_dir():
        target = partial.with_name(_PARTIAL.fullmatch(partial.name)[2][1:])
        aside = (partial / "old").exists() and not os.path.lexists(target)
        names = {part.name for part in partial.iterdir()} - _PARTS
        if aside or not all(name.startswith(TEMPORARY) for name in names):
            return
        shutil.rmtree(partial, ignore_errors=True)
    else:
        partial.unlink(missing_ok=True)
    partial.with_name(f"{partial.name}.lock").unlink(missing_ok=True)


def replace_directory(new, target, own, entry):
    """Replaces a directory by a new one of the same kind.

    Only the files of the older one, `own` relative to `target`, are removed.
    Others stay; if one has the name of a new file, nothing is changed. The main
    file, `entry`, is removed first and added last.
    """
    own = {Path(path) for path in own}
    others = _below(target) - own
    if not others:
        if os.path.lexists(target):
            os.replace(target, new.with_name("old"))
        os.replace(new, target)
        return
    arriving = {path for path in _below(new) if not (new / path).is_dir()}
    taken = {p for path in arriving for p in (path, *path.parents) if p.name}
    for path in sorted(taken):
        place = target / path
        if path in others and (path in arriving or not _is_folder(place)):
            raise FileExistsError(
                "Only files of an earlier export are replaced. Received: "
                f"'{place}', which was not written by one. Choose another "
                "directory."
            )
    for path in sorted(own, key=lambda path: str(path) != entry):
        if not _is_folder(target / path):
            (target / path).unlink(missing_ok=True)
    for path in sorted(arriving, key=lambda path: str(path) == entry):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(new / path, target / path)


def _below(directory):
    """Returns the relative paths of all that is in a directory."""
    found = set()
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            found.add(Path(folder, name).relative_to(directory))
    return found


def _is_folder(path):
    return path.is_dir() and not path.is_symlink()


def remove_files(directory, *patterns, folder=True):
    """Removes files by the names that this library gives, and no others.

    Patterns are regular expressions, of whole names of files in a directory, or
    in folders of it. Links to other folders are not followed. Folders that this
    leaves empty go as well, the directory itself only with `folder`.
    """
    directory = Path(directory)
    emptied = set()
    for place, _, names in os.walk(directory, topdown=False):
        place = Path(place)
        ours = [n for n in names if any(re.fullmatch(p, n) for p in patterns)]
        for name in ours:
            (place / name).unlink(missing_ok=True)
        if not ours and place not in emptied:
            continue
        _forget_lock(place)
        if place == directory and not folder:
            continue
        with contextlib.suppress(OSError):  # it holds something else
            place.rmdir()
            emptied.add(place.parent)


def remove_leftovers(directory, name=""):
    """Removes partial files of processes that were killed.

    The caller must have claimed the directory, or these names in it.
    """
    for path, target, _ in _partials(directory):
        ours = f".{name}" if path.is_dir() else name
        if target.startswith(ours) and not _has_owner(path):
            _discard(path)


@contextlib.contextmanager
def claimed(path, wait=False):
    """Claims a piece of work among processes that see the same directory.

    A claim ends with its block, or with its process, however that ends.

    Yields:
        Whether this process has the claim.

    Example:

    ```python
    with claimed("cells/snip.lock") as mine:
        if mine:
            run()
    ```
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    for last in (False, True):
        try:
            lock.acquire(timeout=-1 if wait else 0)
            break
        except filelock.Timeout:
            yield False
            return
        except FileNotFoundError:  # another process removed the folder
            if last:
                raise
            path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def lock(directory, wait=False):
    """Works in a directory as the only process, and removes leftovers in it.

    Example:

    ```python
    with lock("runs/mnist") as directory:
        ticket.save(directory / "ticket.gem")
    ```
    """
    directory = check_directory(directory)
    with claimed(directory / FOLDER / "lock", wait) as mine:
        if not mine:
            raise RuntimeError(
                "Only one process can work in a directory. Received: "
                f"directory='{directory}', in which another process works. "
                "Wait until it has ended, or choose another directory."
            )
        try:
            remove_leftovers(directory)
            yield directory
        finally:
            _forget_lock(directory)
    if os.name == "nt":  # where nobody removes a file that is open
        _forget_lock(directory)


def _forget_lock(directory):
    with contextlib.suppress(OSError):  # none, or Windows, where it is open
        (directory / FOLDER / "lock").unlink()
    with contextlib.suppress(OSError):  # names are claimed
        (directory / FOLDER).rmdir()


def share(pieces, lock, run):
    """Runs pieces of work, of which other processes may run some.

    Every process calls this with the same pieces. It first runs those that no
    other process has claimed, and then waits for the others in order. A piece
    that another process did not finish is run by the process that waited. So
    `run` returns at once what is finished. Pieces that need the same have the
    same lock file, which `lock` names.
    """
    found = {}
    for wait in (False, True):
        for index, piece in enumerate(pieces):
            if index in found:
                continue
            with claimed(lock(piece), wait) as mine:
                if mine:
                    found[index] = run(piece)
    return [found[index] for index in range(len(pieces))]
