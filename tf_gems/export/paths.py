"""Checks of where an export is to be written, and sizes of files."""

import gzip
import os

from tf_gems.targets import check_directory
from tf_gems.targets import check_file


def check_target(path, directory=False):
    """Raises an error unless a file, or a directory, can be made at `path`."""
    check_directory(path) if directory else check_file(path)
    parent = os.path.dirname(os.path.abspath(path))
    rule = "An export is written beside its target and renamed into place. "
    if not os.path.isdir(parent):
        raise FileNotFoundError(
            f"{rule}Received: path={path!r}, but there is no directory "
            f"'{parent}'. Make it first."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{rule}Received: path={path!r}, but '{parent}' cannot be "
            "written to. Choose another directory, or change its permissions."
        )


def sizes(data):
    """Returns the sizes of bytes: plain, by gzip and by zstd.

    Returns:
        Tuple of three integers; the last is `None` without zstandard.
    """
    return len(data), len(gzip.compress(data, mtime=0)), _zstd_size(data)


def directory_sizes(directory):
    """Returns the sizes of all files in a directory, see `sizes`."""
    found = []
    for folder, _, names in os.walk(directory):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found.append(sizes(file.read()))
    return tuple(
        None if None in column else sum(column)
        for column in zip(*found, strict=True)
    )


def _zstd_size(data):
    try:
        import zstandard
    except ImportError:
        return None
    return len(zstandard.ZstdCompressor(level=19).compress(data))
