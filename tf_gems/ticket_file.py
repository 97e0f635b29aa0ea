"""The ticket file, `.gem`: a zip archive of three entries.

* `ticket.json`: `{"format": "tf_gems.ticket", "version": 1, "weights": [...],
  "metadata": {...}}`, where each weight, in the network's order, is
  `{"path", "shape", "dtype", "kept"}`; `kept` is `null` for a weight that is
  not prunable.
* `masks`: the masks of all prunable weights, flattened and joined, eight to a
  byte, the first in the highest bit.
* `values`: little-endian values of all weights; of the prunable ones only
  those that are kept.

Entries are deflated and carry a CRC-32. The sizes of `masks` and `values`
follow from `ticket.json`, and are compared before either is read. Deflate
cannot shrink data to less than 1/1032, and a network has at most 2^31 weights,
so that a small file cannot demand much memory.
"""

import json
import math
import zipfile
import zlib

import numpy as np

from tf_gems.files import replacing

FORMAT = "tf_gems.ticket"
VERSION = 1
_LARGEST_HEADER = 1 << 24
_LARGEST_NETWORK = 1 << 31
_LARGEST_RATIO = 1100
_DTYPES = (
    *("bool", "float16", "float32", "float64"),
    *("int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
)


def write(path, masks, weights, metadata):
    """Writes a ticket beside its target and renames it into place.

    Args:
        path: String or path.
        masks: Dict from paths of prunable weights to bool arrays.
        weights: Dict from paths of all weights to arrays.
        metadata: Dict of JSON values.

    Raises:
        OSError: If the file cannot be written; an older one is left as it is.
        ValueError: If a value is of a type that the format lacks.
    """
    header, values = [], []
    for name, value in weights.items():
        value = np.asarray(value)
        if value.dtype.name == "bfloat16":
            value = value.astype("float32")
        if value.dtype.name not in _DTYPES:
            raise ValueError(
                f"A ticket holds {', '.join(_DTYPES)}. "
                f"Received: weights['{name}'] of {value.dtype}."
            )
        mask = masks.get(name)
        values.append(value.ravel() if mask is None else value[mask])
        header.append(
            {
                "path": name,
                "shape": list(value.shape),
                "dtype": value.dtype.name,
                "kept": None if mask is None else int(mask.sum()),
            }
        )
    bits = [masks[name].ravel() for name in weights if name in masks]
    entries = {
        "ticket.json": json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "weights": header,
                "metadata": metadata,
            },
            allow_nan=False,
            sort_keys=True,
        ),
        "masks": np.packbits(np.concatenate(bits)).tobytes(),
        "values": b"".join(_little_endian(v).tobytes() for v in values),
    }
    with (
        replacing(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, data in entries.items():
            # A fixed date: equal tickets give equal files.
            info = zipfile.ZipInfo(name)
            archive.writestr(info, data, zipfile.ZIP_DEFLATED, 9)


def read(path):
    """Reads a ticket.

    Args:
        path: String or path.

    Returns:
        `(masks, weights, metadata)`, as for `write`.

    Raises:
        OSError: If there is no such file.
        ValueError: If the file is no ticket, or is damaged.
    """
    with open(path, "rb") as file:
        return _read_or_refuse(file, path)


def _read_or_refuse(file, path):
    try:
        with zipfile.ZipFile(file) as archive:
            return _read(archive)
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,  # where a damaged directory points outside of the file
        EOFError,
        KeyError,
        MemoryError,
        TypeError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ValueError(
            f"A ticket file is a complete archive of format '{FORMAT}', "
            f"version {VERSION}. Received: path='{path}', which is not: "
            f"{error} Save the ticket again."
        ) from error


def _read(archive):
    entries = {info.filename: info for info in archive.infolist()}
    for name in ("ticket.json", "masks", "values"):
        if name not in entries:
            raise ValueError(f"it has no entry '{name}'.")
    header = json.loads(_bytes(archive, entries["ticket.json"], None))
    if header["format"] != FORMAT or header["version"] != VERSION:
        raise ValueError(
            f"it is of format {header['format']!r}, "
            f"version {header['version']!r}."
        )
    if not isinstance(header["metadata"], dict):
        raise ValueError("its metadata are no object.")
    weights = [_check(weight) for weight in header["weights"]]
    sizes = [math.prod(w["shape"]) for w in weights]
    if sum(sizes) > _LARGEST_NETWORK:
        raise ValueError(f"it describes {sum(sizes)} weights.")
    stored = [
        size if w["kept"] is None else w["kept"]
        for w, size in zip(weights, sizes, strict=True)
    ]
    bits = sum(
        size
        for w, size in zip(weights, sizes, strict=True)
        if w["kept"] is not None
    )
    length = sum(
        count * np.dtype(w["dtype"]).itemsize
        for w, count in zip(weights, stored, strict=True)
    )
    if not bits:
        raise ValueError("it prunes nothing.")
    packed = _bytes(archive, entries["masks"], math.ceil(bits / 8))
    raw = _bytes(archive, entries["values"], length)
    flags = np.unpackbits(np.frombuffer(packed, "uint8")).view(bool)
    return _unpack(weights, sizes, stored, flags, raw, header["metadata"])


def _unpack(weights, sizes, stored, flags, raw, metadata):
    masks, values, bit, byte = {}, {}, 0, 0
    for weight, size, count in zip(weights, sizes, stored, strict=True):
        path, shape = weight["path"], tuple(weight["shape"])
        dtype = np.dtype(weight["dtype"]).newbyteorder("<")
        kept = np.frombuffer(raw, dtype, count, byte)
        kept = kept.astype(dtype.newbyteorder("="))
        byte += count * dtype.itemsize
        if weight["kept"] is None:
            values[path] = kept.reshape(shape)
            continue
        mask = flags[bit : bit + size].reshape(shape)
        bit += size
        if int(mask.sum()) != count:
            raise ValueError(
                f"the mask of '{path}' keeps {int(mask.sum())} weights, "
                f"but {count} are stored."
            )
        masks[path] = mask
        values[path] = np.zeros(shape, kept.dtype)
        values[path][mask] = kept
    if len(values) != len(weights):
        raise ValueError("two of its weights have the same path.")
    return masks, values, metadata


def _check(weight):
    """Returns an entry of the header if its types and sizes are sound."""
    shape = weight["shape"]
    kept = 0 if weight["kept"] is None else weight["kept"]
    sound = (
        isinstance(weight["path"], str)
        and isinstance(shape, list)
        and len(shape) <= 32
        # A bool is no number here.
        and all(type(n) is int for n in (*shape, kept))
        and all(0 <= n <= _LARGEST_NETWORK for n in (*shape, kept))
        and weight["dtype"] in _DTYPES
        and kept <= math.prod(shape)
    )
    if not sound:
        raise ValueError(f"it describes an impossible weight, {weight!r:.200}.")
    return weight


def _bytes(archive, info, expected):
    """Reads an entry whose size is what it must be."""
    # Others are of no use here, and fail in ways of their own.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its entry '{info.filename}' is not deflated.")
    if expected is None:
        sound = info.file_size <= _LARGEST_HEADER
    else:
        sound = info.file_size == expected
    if not sound or info.file_size > _LARGEST_RATIO * info.compress_size + 64:
        raise ValueError(
            f"its entry '{info.filename}' claims {info.file_size} bytes."
        )
    return archive.read(info)


def _little_endian(values):
    return values.astype(values.dtype.newbyteorder("<"))
