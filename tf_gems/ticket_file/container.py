"""Writes and reads ticket files; their format is in `tf_gems.ticket_file`."""

import contextlib
import dataclasses
import math
import os
import struct
import zlib

import numpy as np

from tf_gems.files import replacing
from tf_gems.targets import check_path
from tf_gems.ticket_file import header
from tf_gems.ticket_file import positions
from tf_gems.ticket_file import values
from tf_gems.ticket_file.header import Entry
from tf_gems.validation import check_choice
from tf_gems.validation import check_positive_integer

MAGIC = b"\x89GEM"
VERSION = 2
MAX_BYTES = 1 << 31
_PREFIX = struct.Struct("<4sIQIIQ")
_CHECKSUM = struct.Struct("<I")
_CHUNK = 1 << 16
# At most: `{"a":{}},` of the header are nine bytes, and 300 in memory.
_BYTES_OF_JSON = 64
_BYTES_OF_BUFFERS = 1 << 22


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
    """Writes a ticket beside its target and renames it into place."""
    data = encode(masks, weights, metadata, dtype, config)
    with replacing(path) as file:
        file.write(data)


def read(path, max_bytes=MAX_BYTES):
    """Reads a ticket file."""
    path = check_path(path, "path", "Pass the name of a ticket file.")
    check_positive_integer(max_bytes, "max_bytes")
    with _refusing(f"path='{path}'"):
        return _decode(_load(path, max_bytes), max_bytes)


def inspect(path, max_bytes=MAX_BYTES):
    """Reads what a ticket file says of its weights, without making arrays.

    Everything is checked as `read` does. Returns `Contents` without masks and
    weights, and a dict from paths of prunable weights to bits of positions.
    """
    path = check_path(path, "path", "Pass the name of a ticket file.")
    check_positive_integer(max_bytes, "max_bytes")
    with _refusing(f"path='{path}'"):
        parts = _parse(_load(path, max_bytes), max_bytes)
        masked = [e for e in parts.entries if e.kept is not None]
        bits = positions.lengths(parts.positions, *_described(masked))
        numbers = _Inflater(parts.numbers)
        for entry in parts.entries:
            left = entry.value_sizes[1]
            while left:
                left -= len(numbers.read(min(left, _CHUNK)))
        numbers.finish()
    contents = Contents(
        {}, {}, parts.metadata, parts.entries, parts.lengths, parts.config
    )
    paths = [entry.path for entry in masked]
    return contents, dict(zip(paths, bits, strict=True))


def _load(path, max_bytes):
    with open(path, "rb") as file:
        start = file.read(_PREFIX.size)
        # What is no ticket is not read any further.
        length = os.fstat(file.fileno()).st_size
        _check_prefix(start, length, max_bytes)
        file.seek(0)
        return file.read(length)


def encode(masks, weights, metadata, dtype=None, config=None):
    """Returns the bytes of a ticket file; see `write`."""
    check_contents(masks, weights, metadata, config)
    if dtype is not None:
        check_choice(dtype, "dtype", ("float16",))
    entries, signs, numbers = [], [np.zeros(0, "uint8")], []
    for path, value in weights.items():
        header.check_path(path)
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
    if not isinstance(data, bytes | bytearray):
        raise ValueError(
            "The data of a ticket file must be bytes. Received: data of type "
            f"{type(data).__name__}. Use `read` for a path."
        )
    check_positive_integer(max_bytes, "max_bytes")
    with _refusing(f"data of {len(data)} bytes"):
        return _decode(data, max_bytes)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The parts of a file, of which only the header is decoded."""

    entries: list
    metadata: dict
    config: dict | None
    lengths: dict
    positions: memoryview
    signs: memoryview
    numbers: memoryview


def _parse(data, max_bytes):
    """Returns the parts of a file, if their sizes can be true."""
    stored, inflated, numbers = _check_prefix(
        data[: _PREFIX.size], len(data), max_bytes
    )
    [checksum] = _CHECKSUM.unpack_from(data, len(data) - _CHECKSUM.size)
    body = memoryview(data)[: -_CHECKSUM.size]
    if zlib.crc32(body) != checksum:
        raise ValueError("its checksum is wrong.")
    body = body[_PREFIX.size :]
    text = _inflate_header(body[:stored], inflated)
    entries, metadata, config = header.read(text)

    bits = sum(entry.value_sizes[0] for entry in entries)
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
    signs = body[first:last]
    if bits % 8 and signs[-1] & (0xFF >> bits % 8):
        raise ValueError("its signs are followed by other data.")
    return _Parts(
        *(entries, metadata, config, lengths),
        *(body[stored:first], signs, body[last:]),
    )


def _decode(data, max_bytes):
    parts = _parse(data, max_bytes)
    _check_memory(
        _overhead(len(data), _PREFIX.unpack_from(data)[4])
        + sum(entry.bytes for entry in parts.entries)
        + max(entry.bytes_of_decoding for entry in parts.entries),
        max_bytes,
    )
    masked = [entry for entry in parts.entries if entry.kept is not None]
    flags = positions.decode(parts.positions, *_described(masked))
    masks, weights = _arrays(parts, flags)
    return Contents(
        *(masks, weights, parts.metadata, parts.entries),
        *(parts.lengths, parts.config),
    )


def _described(masked):
    """Returns sizes, kept and widths of the masks, for `positions`."""
    return (
        [entry.size for entry in masked],
        [entry.kept for entry in masked],
        [entry.width for entry in masked],
    )


def _arrays(parts, flags):
    """Returns masks and weights."""
    masks, weights = {}, {}
    flags, bit = iter(flags), 0
    numbers = _Inflater(parts.numbers)
    for entry in parts.entries:
        bits, length = entry.value_sizes
        stored = values.decode(
            positions.bits(parts.signs, bit, bits),
            numbers.read(length),
            entry.coding,
            entry.dtype,
            entry.count,
        )
        bit += bits
        if entry.kept is None:
            weights[entry.path] = stored.reshape(entry.shape)
            continue
        mask = next(flags).reshape(entry.shape)
        masks[entry.path] = mask
        weights[entry.path] = np.zeros(entry.shape, entry.dtype)
        weights[entry.path][mask] = stored
    numbers.finish()
    return masks, weights


class _Inflater:
    """Inflates numbers, as many at a time as are asked for."""

    def __init__(self, data):
        self.data = data
        self.length = 0
        self._inflater = zlib.decompressobj(-15)
        self._next = 0

    def read(self, length):
        """Returns the next bytes, in an array that can be written to."""
        found, filled = bytearray(length), 0
        while filled < length:
            piece = self._piece(min(length - filled, _CHUNK))
            if not piece:
                raise ValueError(
                    "its numbers do not have their length when decompressed."
                )
            found[filled : filled + len(piece)] = piece
            filled += len(piece)
        return found

    def finish(self):
        """Raises an error unless everything has been read."""
        more = self._piece(1)
        rest = self._inflater.unused_data or self._next < len(self.data)
        if more or not self._inflater.eof or rest:
            raise ValueError(
                "its numbers do not have their length when decompressed."
            )

    def _piece(self, length):
        piece = b""
        while not piece and not self._inflater.eof:
            data = self._inflater.unconsumed_tail
            if not data:
                data = self.data[self._next : self._next + _CHUNK]
                self._next += len(data)
            before = len(data)
            piece = self._inflater.decompress(data, length)
            if not piece and not before:
                break
        return piece


def _overhead(length, inflated):
    """Returns the bytes that reading takes beside arrays."""
    return length + _BYTES_OF_JSON * inflated + _BYTES_OF_BUFFERS


def _check_memory(needed, max_bytes):
    if needed > max_bytes:
        raise _TooLargeError(
            f"reading it requires {needed:,} bytes, more than "
            f"max_bytes={max_bytes:,}."
        )


def _check_prefix(start, length, max_bytes):
    """Returns the lengths that the first bytes tell, if they can be true."""
    if start[:4] == b"PK\x03\x04":
        raise ValueError("it is a zip archive, as tickets of version 1 were.")
    if len(start) < _PREFIX.size or start[:4] != MAGIC:
        raise ValueError("it does not start like a ticket.")
    _, version, total, stored, inflated, numbers = _PREFIX.unpack(start)
    if version != VERSION:
        raise ValueError(f"it has version {version}.")
    if total != length:
        raise ValueError(f"it has {length} bytes instead of {total}.")
    if inflated > header.LARGEST_HEADER:
        raise ValueError(f"its header claims {inflated} bytes.")
    if _PREFIX.size + stored + numbers + _CHECKSUM.size > total:
        raise ValueError("its parts do not fit into it.")
    _check_memory(_overhead(length, inflated), max_bytes)
    return stored, inflated, numbers


class _TooLargeError(ValueError):
    """The file may be whole, but the memory to read it is not granted."""


@contextlib.contextmanager
def _refusing(source):
    """Makes one clear error of whatever a damaged file leads to."""
    try:
        yield
    except _TooLargeError as error:
        raise ValueError(
            "Reading a ticket must not exceed the memory limit. Received: "
            f"{source}: {error} Raise the limit if you trust the file."
        ) from error
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
            f"A ticket file must be complete and of version {VERSION}. "
            f"Received: {source}, which is not: {error} Save the ticket "
            "again."
        ) from error


def check_contents(masks, weights, metadata, config):
    """Raises an error unless a ticket holds what a file can hold."""
    for name, value in (
        ("masks", masks),
        ("weights", weights),
        ("metadata", metadata),
        ("config", {} if config is None else config),
    ):
        if not isinstance(value, dict):
            raise ValueError(
                f"The {name} of a ticket must be a dict. Received: "
                f"{name}={value!r:.300}."
            )
    for path, mask in masks.items():
        shape = np.shape(weights.get(path))
        is_bool = isinstance(mask, np.ndarray) and mask.dtype == bool
        if not is_bool or mask.shape != shape:
            found = f"{mask!r:.300}"
            if isinstance(mask, np.ndarray):
                found = f"an array of {mask.dtype} of shape {mask.shape}"
            raise ValueError(
                "A mask must be a bool array with the shape of its weight. "
                f"Received: masks[{path!r:.100}]={found} for a weight of "
                f"shape {shape}. Use `numpy.asarray(mask, bool)`."
            )
    if not any(mask.size for mask in masks.values()):
        raise ValueError(
            "A ticket must have a mask for at least one weight. Received: "
            f"masks for {list(masks)!r:.300}."
        )


def _checked(path, value):
    """Returns a value as an array of a type that the format has."""
    value = np.asarray(value)
    if value.dtype.name == "bfloat16":
        value = value.astype("float32")
    if value.dtype.name not in header.DTYPES:
        raise ValueError(
            f"The weights of a ticket must be {', '.join(header.DTYPES)}. "
            f"Received: weights['{path}'] of {value.dtype}."
        )
    return value.astype(value.dtype.newbyteorder("="), copy=False)


def _deflate(data):
    """Deflates without the checksum of zlib: the file has one of its own."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return deflater.compress(data) + deflater.flush()


def _inflate_header(data, length):
    """Inflates to as many bytes as are expected; never to more."""
    inflater = zlib.decompressobj(-15)
    # One more shows that there are too many; a limit of none is no limit.
    found = inflater.decompress(data, length + 1)
    if not inflater.eof or len(found) != length or inflater.unused_data:
        raise ValueError(
            f"its header does not have {length} bytes when decompressed."
        )
    return found
