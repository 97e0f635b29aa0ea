"""Files that are whole or not there, and work that processes share."""

import contextlib
import os
from pathlib import Path


@contextlib.contextmanager
def replacing(path):
    """Opens a binary file that takes the place of `path` once it is whole.

    It is written beside its target, brought to disk, and renamed. Whatever
    happens meanwhile, there is either the old file or the new one.

    Args:
        path: String or path.

    Yields:
        Binary file, open for writing.

    Raises:
        OSError: If it cannot be written, for lack of space, say; an older
            file is left as it is.

    Example:

    ```python
    with replacing("weights.npz") as file:
        np.savez(file, **weights)
    ```
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        kept = "is left as it was" if path.exists() else "is not there"
        reason = error.strerror or error
        raise OSError(
            error.errno,
            f"'{path}' could not be written: {reason}. No part of it is left "
            f"behind, and the file itself {kept}. Make room, and start again.",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a text file that is there whole, or not; see `replacing`.

    Args:
        path: String or path.
        text: String, written in UTF-8.

    Raises:
        OSError: As `replacing` does.
    """
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def claimed(path, wait=False):
    """Claims a piece of work among processes that see the same directory.

    A claim ends with its block, or with its process, however that ends.

    Args:
        path: String or path of the work's lock file, which stays.
        wait: Whether to wait until no other process claims it. Defaults to
            `False`.

    Yields:
        Whether this process has the claim. On Windows, always: start one
        process there.

    Example:

    ```python
    with claimed("cells/snip.lock") as mine:
        if mine:
            run()
    ```
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def share(pieces, lock, run):
    """Runs pieces of work, of which other processes may run some.

    Every process calls this with the same pieces: it runs first those that
    nobody has claimed, and then waits for the others, in turn. What another
    process left unfinished is run by the one that waited for it.

    Args:
        pieces: List.
        lock: Function from a piece to the path of its lock file. Pieces that
            need the same have the same.
        run: Function of a piece, which returns at once what is finished.

    Returns:
        List of what `run` returned, in the order of the pieces.
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
