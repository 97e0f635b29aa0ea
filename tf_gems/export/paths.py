"""Checks of where an export is to be written, and sizes of files."""

import gzip
import os


def check_target(path):
    """Raises an error unless a file or directory can be made at `path`."""
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


def directory_bytes(directory):
    """Returns the bytes of all files in a directory, plain and by gzip."""
    sizes = [0, 0]
    for folder, _, names in os.walk(directory):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
            sizes[0] += len(data)
            sizes[1] += len(gzip.compress(data, mtime=0))
    return tuple(sizes)
