"""Locates datasets for tests."""

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[2] / "shared" / "data"


def tfds_directory(name):
    """Returns the TFDS directory that holds a dataset, or skips the test."""
    places = [os.environ.get("TFDS_DATA_DIR"), _SHARED / "tfds"]
    for place in filter(None, places):
        if Path(place, name).is_dir():
            return str(place)
    pytest.skip(f"no {name} in TFDS_DATA_DIR or {_SHARED.name}/")


def directory(name):
    """Returns a directory of images, or skips the test."""
    if (_SHARED / name).is_dir():
        return str(_SHARED / name)
    pytest.skip(f"no {name} in {_SHARED.name}/")
