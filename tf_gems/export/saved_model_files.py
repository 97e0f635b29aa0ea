"""Which files of a directory a SavedModel consists of."""

from pathlib import Path
from pathlib import PurePosixPath

ENTRY = "saved_model.pb"


def files_of_saved_model(directory):
    """Returns what a SavedModel consists of, by its own list of assets.

    Args:
        directory: String or path.

    Returns:
        Set of relative paths of files and folders that are there, without
        links; empty if the directory has no SavedModel.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    directory, found = Path(directory), saved_model_pb2.SavedModel()
    if not _is_own(directory, ENTRY):
        return set()
    try:
        found.ParseFromString((directory / ENTRY).read_bytes())
    except DecodeError:
        return set()
    if not found.meta_graphs:
        return set()
    names = [ENTRY, "fingerprint.pb", "variables", "assets"]
    names += ["variables/variables.index"]
    names += [
        f"variables/{path.name}"
        for path in (directory / "variables").glob(
            "variables.data-[0-9]*-of-[0-9]*"
        )
    ]
    names += [
        f"assets/{asset.filename}"
        for graph in found.meta_graphs
        for asset in graph.asset_file_def
    ]
    return {name for name in names if _is_own(directory, name)}


def _is_own(directory, name):
    """Whether a name refers to a file inside the directory."""
    place, parts = directory, PurePosixPath(name).parts
    if ".." in parts or PurePosixPath(name).is_absolute():
        return False
    for part in parts:
        place = place / part
        if place.is_symlink():
            return False
    return place.exists()
