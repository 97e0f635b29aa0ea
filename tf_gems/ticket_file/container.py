"""Writes and reads ticket files; their format is in `tf_gems.ticket_file`."""

import contextlib
import dataclasses
import math
import os
import struct
import zlib

import numpy as np

from tf_gems.files import replacing
from tf_gems.ticket_file import header
from tf_gems.ticket_file import positions
from tf_gems.ticket_file import values
from tf_gems.ticket_file.header import Entry

MAGIC = b"\x89GEM"
VERSION = 2
MAX_BYTES = 1 << 31
_PREFIX = struct.Struct("<4sIQIIQ")
_CHECKSUM = struct.Struct("<I")


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a ticket file holds.

    Args:
        masks: Dict from paths of prunable weights to bool arrays.
        weights: Dict from paths of all weights to arrays.
        metadata: Dict of JSON values.
        entries: List of `header.Entry`, one for each weight.
        lengths: Dict from the names of the file's parts to their bytes.
        config: Dict of JSON values, the network's, or `None`.
    """

    masks: dict
    weights: dict
    metadata: dict
    entries: list
    lengths: dict
    config: dict | None = None


def write(path, masks, weights, metadata, dtype=None, config=None):
    """Writes a ticket beside its target and renames it into place.

    Args:
        path: String or path.
        masks: Dict from paths of prunable weights to bool arrays.
        weights: Dict from paths of all weights to arrays.
        metadata: Dict of JSON values.
        dtype: `"float16"` to round values; see `values.choose`. Defaults to
            `None`: values are exact.
        config: Dict of JSON values, the network's. Defaults to `None`.

    Raises:
        OSError: If the file cannot be written; an older one is left as it is.
        ValueError: If a value is of a type that the format lacks.
    """
    data = encode(masks, weights, metadata, dtype, config)
    with replacing(path) as file:
        file.write(data)


def read(path, max_bytes=MAX_BYTES):
    """Reads a ticket file.

    Args:
        path: String or path.
        max_bytes: Integer, the most that all arrays together may take.
            Defaults to 2 GiB, which is 400 million float32 weights.

    Returns:
        `Contents`.

    Raises:
        OSError: If there is no such file.
        ValueError: If the file is no ticket, is damaged, or describes larger
            arrays.
    """
    with open(path, "rb") as file, _refusing(f"path='{path}'"):
        start = file.read(_PREFIX.size)
        # What is no ticket is not read any further.
        _check_prefix(start, os.fstat(file.fileno()).st_size)
        return _decode(start + file.read(), max_bytes)


def encode(masks, weights, metadata, dtype=None, config=None):
    """Returns the bytes of a ticket file; see `write`."""
    entries, signs, numbers = [], [np.zeros(0, "uint8")], []
    for path, value in weights.items():
        value, mask = _checked(path, value), masks.get(path)
        stored = np.ravel(value) if mask is None else value[mask]
        try:
            coding = values.choose(stored, dtype)
        except ValueError as error:
            raise ValueError(f"weights['{path}']: {error}") from error
        bits, data = values.encode(stored, coding)
        signs.append(bits)
        numbers.append(data)
        kept = width = None
        if mask is not None:
            kept = int(np.count_nonzero(mask))
            width = positions.best_width(mask)
        name = value.dtype.name
        entries.append(Entry(path, value.shape, name, kept, width, coding))
    masked = [entry for entry in entries if entry.kept is not None]
    text = header.write(entries, metadata, config)
    stored_text, stored_numbers = _deflate(text), _deflate(b"".join(numbers))
    body = [
        stored_text,
        positions.encode(
            [masks[entry.path] for entry in masked],
            [entry.width for entry in masked],
        ),
        np.packbits(np.concatenate(signs)).tobytes(),
        stored_numbers,
    ]
    total = _PREFIX.size + sum(map(len, body)) + _CHECKSUM.size
    lengths = total, len(stored_text), len(text), len(stored_numbers)
    data = b"".join([_PREFIX.pack(MAGIC, VERSION, *lengths), *body])
    return data + _CHECKSUM.pack(zlib.crc32(data))


def decode(data, max_bytes=MAX_BYTES):
    """Returns the `Contents` of the bytes of a ticket file; see `read`."""
    with _refusing(f"data of {len(data)} bytes"):
        return _decode(data, max_bytes)


def _decode(data, max_bytes):
    stored, inflated, numbers = _check_prefix(data[: _PREFIX.size], len(data))
    [checksum] = _CHECKSUM.unpack_from(data, len(data) - _CHECKSUM.size)
    body = memoryview(data)[: -_CHECKSUM.size]
    if zlib.crc32(body) != checksum:
        raise ValueError("its checksum is wrong.")
    body = body[_PREFIX.size :]
    text = _inflate(body[:stored], inflated, "header")
    entries, metadata, config = header.read(text, max_bytes)

    sizes = [entry.value_sizes for entry in entries]
    bits, length = (sum(column) for column in zip(*sizes, strict=True))
    lengths = {
        "header": _PREFIX.size + stored + _CHECKSUM.size,
        "positions": len(body) - stored - math.ceil(bits / 8) - numbers,
        "signs": math.ceil(bits / 8),
        "numbers": numbers,
    }
    if lengths["positions"] < 0:
        raise ValueError("its parts do not fit into it.")
    first = stored + lengths["positions"]
    last = first + lengths["signs"]
    masked = [entry for entry in entries if entry.kept is not None]
    flags = positions.decode(
        body[stored:first],
        [entry.size for entry in masked],
        [entry.kept for entry in masked],
        [entry.width for entry in masked],
    )
    signs = np.unpackbits(np.frombuffer(body[first:last], "uint8"))
    if signs[bits:].any():
        raise ValueError("its signs are followed by something else.")
    plain = _inflate(body[last:], length, "numbers")
    masks, weights = _arrays(entries, flags, signs, plain)
    return Contents(masks, weights, metadata, entries, lengths, config)


def _arrays(entries, flags, signs, numbers):
    """Returns masks and weights."""
    masks, weights = {}, {}
    flags, bit, byte = iter(flags), 0, 0
    for entry in entries:
        bits, length = entry.value_sizes
        stored = values.decode(
            signs[bit : bit + bits],
            numbers[byte : byte + length],
            entry.coding,
            entry.dtype,
            entry.count,
        )
        bit, byte = bit + bits, byte + length
        if entry.kept is None:
            weights[entry.path] = stored.reshape(entry.shape)
            continue
        mask = next(flags).reshape(entry.shape)
        masks[entry.path] = mask
        weights[entry.path] = np.zeros(entry.shape, entry.dtype)
        weights[entry.path][mask] = stored
    return masks, weights


def _check_prefix(start, length):
    """Returns the lengths that the first bytes tell, if they can be true."""
    if start[:4] == b"PK\x03\x04":
        raise ValueError("it is a zip archive, as tickets of version 1 were.")
    if len(start) < _PREFIX.size or start[:4] != MAGIC:
        raise ValueError("it does not start as tickets do.")
    _, version, total, stored, inflated, numbers = _PREFIX.unpack(start)
    if version != VERSION:
        raise ValueError(f"it is of version {version}.")
    if total != length:
        raise ValueError(f"it has {length} bytes instead of {total}.")
    if inflated > header.LARGEST_HEADER:
        raise ValueError(f"its header claims {inflated} bytes.")
    if _PREFIX.size + stored + numbers + _CHECKSUM.size > total:
        raise ValueError("its parts do not fit into it.")
    return stored, inflated, numbers


@contextlib.contextmanager
def _refusing(source):
    """Makes one clear error of whatever a damaged file leads to."""
    try:
        yield
    except (
        zlib.error,
        KeyError,
        MemoryError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"A ticket file is complete and of version {VERSION}. Received: "
            f"{source}, which is not: {error} Save the ticket again."
        ) from error


def _checked(path, value):
    """Returns a value as an array of a type that the format has."""
    value = np.asarray(value)
    if value.dtype.name == "bfloat16":
        value = value.astype("float32")
    if value.dtype.name not in header.DTYPES:
        raise ValueError(
            f"A ticket holds {', '.join(header.DTYPES)}. "
            f"Received: weights['{path}'] of {value.dtype}."
        )
    return value.astype(value.dtype.newbyteorder("="), copy=False)


def _deflate(data):
    """Deflates without the checksum of zlib: the file has one of its own."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return deflater.compress(data) + deflater.flush()


def _inflate(data, length, name):
    """Inflates to as many bytes as are expected; never to more."""
    inflater = zlib.decompressobj(-15)
    # One more shows that there are too many; a limit of none is no limit.
    found = inflater.decompress(data, length + 1)
    if not inflater.eof or len(found) != length or inflater.unused_data:
        raise ValueError(f"its {name} do not inflate to {length} bytes.")
    return found
