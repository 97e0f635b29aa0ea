"""Where tests find real data."""

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[2] / "shared" / "data"


def tfds_directory(name):
    """Returns the directory of TFDS that holds a data set, or skips."""
    places = [os.environ.get("TFDS_DATA_DIR"), _SHARED / "tfds"]
    for place in filter(None, places):
        if Path(place, name).is_dir():
            return str(place)
    pytest.skip(f"no {name} in TFDS_DATA_DIR or {_SHARED.name}/")


def directory(name):
    """Returns the directory of images, or skips."""
    if (_SHARED / name).is_dir():
        return str(_SHARED / name)
    pytest.skip(f"no {name} in {_SHARED.name}/")
