"""Checks of where an export is to be written, and sizes of files."""

import functools
import gzip
import os
import tempfile

from tf_gems.targets import check_directory
from tf_gems.targets import check_file


def check_target(path, directory=False):
    """Raises an error unless a file, or a directory, can be made at `path`."""
    check_directory(path) if directory else check_file(path)
    parent = os.path.dirname(os.path.abspath(path))
    rule = (
        "An export is written to the directory of its target and then renamed. "
    )
    if not os.path.isdir(parent):
        raise FileNotFoundError(
            f"{rule}Received: path={path!r}, but there is no directory "
            f"'{parent}'. Create it first."
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{rule}Received: path={path!r}, but '{parent}' is not writable. "
            "Choose another directory, or change its permissions."
        )


class Stored:
    """A file or directory, and its sizes.

    Compressing at the highest levels of gzip and zstd takes much longer than
    exporting. So it is done once, when one of these sizes is first read.
    """

    def __init__(self, path, holder=None):
        self._path = os.path.abspath(path)
        self._holder = holder
        self._before = self._state()
        self.bytes = sum(size for _, size, _ in self._before)

    @classmethod
    def of_bytes(cls, data):
        """Stores bytes in a temporary file, for as long as the object lives."""
        holder = tempfile.TemporaryDirectory(prefix="tf_gems-")
        path = os.path.join(holder.name, "twin")
        with open(path, "wb") as file:
            file.write(data)
        return cls(path, holder)

    @functools.cached_property
    def gzip_bytes(self):
        """Bytes by gzip at level 9, of each file alone."""
        return sum(map(_gzip_size, self._contents()))

    @functools.cached_property
    def zstd_bytes(self):
        """Bytes by zstd at level 19, or `None` without `zstandard`."""
        found = [_zstd_size(data) for data in self._contents()]
        return None if None in found else sum(found)

    @property
    def sizes(self):
        """Tuple of `bytes`, `gzip_bytes` and `zstd_bytes`."""
        return self.bytes, self.gzip_bytes, self.zstd_bytes

    @property
    def compressed(self):
        """Whether the compressed sizes are known already."""
        return "gzip_bytes" in vars(self)

    def _contents(self):
        if self._state() != self._before:
            raise RuntimeError(
                "Compressed sizes are measured when they are first read, "
                f"with the exported files. Received: '{self._path}', which "
                "has changed since then. Read `gzip_bytes` and `zstd_bytes` "
                "before you change, move or remove the export."
            )
        for path, _, _ in self._before:
            with open(path, "rb") as file:
                yield file.read()

    def _state(self):
        """Returns a path, size and time for each file; `None` if it is gone."""
        paths = [self._path]
        if os.path.isdir(self._path):
            walk = os.walk(self._path)
            paths = sorted(os.path.join(x, n) for x, _, ns in walk for n in ns)
        if not all(map(os.path.isfile, paths)):
            return None
        found = [(path, os.stat(path)) for path in paths]
        return [(path, s.st_size, s.st_mtime_ns) for path, s in found]


def _gzip_size(data):
    return len(gzip.compress(data, mtime=0))


def _zstd_size(data):
    try:
        import zstandard
    except ImportError:
        return None
    return len(zstandard.ZstdCompressor(level=19).compress(data))
