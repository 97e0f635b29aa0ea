"""Tests the sizes of exported files, which are measured when read."""

import gzip
import os

import pytest

from tf_gems.export.paths import Stored


def test_compressed_sizes_are_measured_lazily(tmp_path):
    folder = tmp_path / "saved" / "variables"
    folder.mkdir(parents=True)
    contents = {"a": b"x" * 5000, "b": os.urandom(300)}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    stored = Stored(tmp_path / "saved")
    assert stored.bytes == 5300 and not stored.compressed
    sizes = [len(gzip.compress(data, mtime=0)) for data in contents.values()]
    assert stored.gzip_bytes == sum(sizes) and stored.compressed
    zstandard = pytest.importorskip("zstandard")
    compressor = zstandard.ZstdCompressor(level=19)
    assert stored.zstd_bytes == sum(
        len(compressor.compress(data)) for data in contents.values()
    )


def test_changed_files_are_not_measured(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"first")
    stored, measured = Stored(path), Stored(path)
    size = measured.gzip_bytes
    path.write_bytes(b"second")
    with pytest.raises(RuntimeError, match="'.*m.tflite', which has changed"):
        _ = stored.gzip_bytes
    path.unlink()
    with pytest.raises(RuntimeError, match="move or remove"):
        _ = stored.zstd_bytes
    assert (stored.bytes, measured.gzip_bytes) == (5, size)


def test_bytes_are_kept_while_sizes_may_be_read():
    stored = Stored.of_bytes(b"y" * 1000)
    path = stored._path
    assert os.path.exists(path)
    assert stored.gzip_bytes == len(gzip.compress(b"y" * 1000, mtime=0))
    del stored
    assert not os.path.exists(path)
