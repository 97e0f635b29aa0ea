"""Where this library may write: it replaces only its own files.

Every function that writes, replaces or removes files checks its path here:

* `check_file` and `check_directory` refuse empty paths, the current directory,
  the home directory, the root, and their parents. No argument overrides that.
* `claiming` lets a function that writes several files into a directory of the
  user's choice replace those that it wrote before, and no others.

Files are removed by `tf_gems.files`, by the names that this library gives.
"""

import contextlib
import os
import stat
from pathlib import Path

FOLDER = ".tf_gems"  # in a directory that this library writes into
_REMEDY = "Pass the name of a separate directory, such as 'exported'."


def check_path(value, name="path", remedy=_REMEDY):
    """Returns a string or path as a `pathlib.Path`, if it names anything."""
    if not isinstance(value, str | os.PathLike):
        raise ValueError(
            f"`{name}` must be a string or a path. Received: "
            f"{name}={value!r}. {remedy}"
        )
    text = os.fspath(value)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError(
            f"`{name}` must not be empty. Received: {name}={text!r}; a "
            f"variable may be unset. {remedy}"
        )
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError(
            f"`{name}` must be a valid file name. Received: {name}={text!r}. "
            f"{remedy}"
        ) from None
    path = Path(text)
    if path.parts[:1] == ("~",):
        raise ValueError(
            f"'~' is only expanded by a shell. Received: {name}={text!r}. "
            "Write the full path, or use `os.path.expanduser`."
        )
    return path


def check_file(path, name="path"):
    """Returns the path of a file that may be written, or replaced."""
    path = check_path(path, name, "Name a file.")
    rule = "An output must be a regular file that can be written. "
    received = f"Received: {name}='{path}', which is "
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return path  # there is none, or writing raises the error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(
            f"{rule}{received}a directory. Add the name of a file."
        )
    if not stat.S_ISREG(mode):
        raise FileExistsError(
            f"{rule}{received}not a regular file. Choose another name."
        )
    if not os.access(path, os.W_OK):
        raise PermissionError(
            f"{rule}{received}write-protected. Choose another name, or change "
            "its permissions."
        )
    return path


def check_directory(directory, name="directory"):
    """Returns the path of a directory that may be written into.

    Raises:
        ValueError: If it is no path, or empty, or the current directory, the
            home directory, the root of the file system, or one that holds
            the current or the home directory.
        FileExistsError: If it is a file.

    Example:

    >>> str(check_directory("exported"))
    'exported'
    """
    path = check_path(directory, name)
    if not os.path.lexists(path):
        return path
    if not path.is_dir():
        raise FileExistsError(
            f"Files are written to a directory. Received: {name}='{path}', "
            "which is a file. Choose another name."
        )
    inhabited = _inhabited(path)
    if inhabited:
        raise ValueError(
            "An output directory must be a separate directory. Received: "
            f"{name}='{path}', which is {inhabited}. {_REMEDY}"
        )
    return path


@contextlib.contextmanager
def claiming(directory, names, known=False):
    """Makes a directory, and claims names in it for files of this library.

    A claim is an empty file in the folder `.tf_gems` of the directory. It is
    made before the file itself and stays as long, so that a later call knows,
    even after a kill, which files it may replace. A name that is there and was
    not claimed is refused, unless it is known to be this library's.
    """
    directory = check_names(directory, () if known else names)
    claims = [directory / FOLDER / f"{name}.claim" for name in names]
    for claim in claims:
        _touch(claim)
    try:
        yield directory
    finally:
        for name, claim in zip(names, claims, strict=True):
            if not os.path.lexists(directory / name):
                claim.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are claimed still
            (directory / FOLDER).rmdir()


def _touch(path):
    for last in (False, True):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.touch()
            return
        except FileNotFoundError:  # another process removed the empty folder
            if last:
                raise


def check_names(directory, names):
    """Returns a directory's path if `claiming` would accept these names."""
    directory = check_directory(directory)
    foreign = [
        name
        for name in names
        if os.path.lexists(directory / name)
        and not (directory / FOLDER / f"{name}.claim").exists()
    ]
    if foreign:
        raise FileExistsError(
            "Only files that tf_gems wrote in this directory are replaced. "
            f"Received: directory='{directory}', which contains "
            f"{', '.join(map(repr, foreign))} from another source. Choose "
            "another directory, or move these files."
        )
    return directory


def _inhabited(path):
    """Returns what a directory is that must not be used, or `None`."""
    resolved = Path(os.path.realpath(path))
    if resolved.parent == resolved:
        return "the root of the file system"
    places = {}
    with contextlib.suppress(OSError):  # it was removed
        places["the current directory"] = Path(os.getcwd())
    with contextlib.suppress(RuntimeError):  # there is none
        places["the home directory"] = Path(os.path.realpath(Path.home()))
    for what, place in places.items():
        if _same(path, place):
            return what
        if any(_same(path, parent) for parent in place.parents):
            return f"one that holds {what}"
    return None


def _same(one, other):
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
