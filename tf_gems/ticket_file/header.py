"""The header of a ticket file: what its weights are and how they are coded."""

import dataclasses
import hashlib
import json
import math

import numpy as np

from tf_gems.ticket_file import positions
from tf_gems.ticket_file import values
from tf_gems.validation import check_integer

LARGEST_HEADER = 1 << 21
LARGEST_NETWORK = 1 << 31
LONGEST_PATH = 1024
DTYPES = (
    *("bool", "float16", "float32", "float64"),
    *("int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
)
_COLUMNS = ("path", "shape", "dtype", "kept", "width", "coding")


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the header says of a weight; see `tf_gems.ticket_file`."""

    path: str
    shape: tuple
    dtype: str
    kept: int | None
    width: int | None
    coding: str

    @property
    def size(self):
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def count(self):
        """Number of stored values."""
        return self.size if self.kept is None else self.kept

    @property
    def bytes(self):
        """Bytes of its array, and of its mask if it has one."""
        itemsize = np.dtype(self.dtype).itemsize
        return self.size * (itemsize + (self.kept is not None))

    @property
    def bytes_of_decoding(self):
        """The most that its stored values take while they are decoded."""
        return self.count * (2 * np.dtype(self.dtype).itemsize + 2)

    @property
    def value_sizes(self):
        """Bits of signs and bytes of numbers."""
        return values.sizes(self.coding, self.dtype, self.count)


def fingerprint(shapes, prunable):
    """Returns 16 hexadecimal digits that identify a network.

    Example:

    >>> fingerprint([(2, 3), (3,)], [True, False])
    'ae10afd604ae78be'
    """
    try:
        described = [
            [[check_integer(size, "shapes") for size in shape], bool(masked)]
            for shape, masked in zip(shapes, prunable, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise ValueError(
            "A fingerprint requires a list of shapes and a list of as many "
            f"bools. Received: shapes={shapes!r:.100}, "
            f"prunable={prunable!r:.100} ({error})."
        ) from error
    text = json.dumps(described, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write(entries, metadata, config=None):
    """Returns the header as bytes."""
    text = json.dumps(
        {
            "fingerprint": _fingerprint(entries),
            "metadata": plain(metadata, "metadata"),
            "weights": {n: [getattr(e, n) for e in entries] for n in _COLUMNS},
            **({} if config is None else {"config": plain(config, "config")}),
        },
        allow_nan=False,
        separators=(",", ":"),
        sort_keys=True,
    ).encode()
    if len(text) > LARGEST_HEADER:
        raise ValueError(
            "The description of weights and metadata in a ticket file must "
            f"take at most {LARGEST_HEADER:,} bytes. Received: {len(text):,}. "
            "Store large metadata elsewhere."
        )
    return text


def plain(value, name):
    """Returns a value as JSON has it, so that it is read back as it is.

    Example:

    >>> plain({"loss": np.float32(0.5), "shape": (2, 3)}, "metadata")
    {'loss': 0.5, 'shape': [2, 3]}
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [plain(v, f"{name}[{n}]") for n, v in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {k: plain(v, f"{name}[{k!r:.100}]") for k, v in value.items()}
    raise ValueError(
        "Metadata must be JSON values: dicts with strings as keys, lists, "
        "strings, finite numbers, true, false and null. Received: "
        f"{name}={value!r:.300}. Leave it out, or pass None or a string."
    )


def check_path(path):
    """Raises an error if a weight's path is longer than files hold."""
    if not isinstance(path, str) or len(path) > LONGEST_PATH:
        raise ValueError(
            "The path of a weight must be a string of at most "
            f"{LONGEST_PATH:,} characters. Received: {path!r:.100}. Use "
            "shorter names for layers."
        )


def read(text):
    """Returns entries, metadata and config, if types and sizes are sound."""
    header = json.loads(text, parse_constant=_refuse_constant)
    if not isinstance(header["metadata"], dict):
        raise ValueError("its metadata is not an object.")
    if not isinstance(header.get("config", {}), dict):
        raise ValueError("its config is not an object.")
    columns = [header["weights"][name] for name in _COLUMNS]
    if not all(isinstance(column, list) for column in columns):
        raise ValueError("it does not describe weights by lists.")
    entries = [_entry(*row) for row in zip(*columns, strict=True)]
    if not any(entry.size for entry in entries if entry.kept is not None):
        raise ValueError("it prunes nothing.")
    size = sum(entry.size for entry in entries)
    if size > LARGEST_NETWORK:
        raise ValueError(f"it describes {size} weights.")
    if len({entry.path for entry in entries}) != len(entries):
        raise ValueError("two of its weights have the same path.")
    if header["fingerprint"] != _fingerprint(entries):
        raise ValueError("its fingerprint belongs to another network.")
    return entries, header["metadata"], header.get("config")


def _entry(path, shape, dtype, kept, width, coding):
    """Returns an entry if its types and sizes are sound."""
    numbers = [] if kept is None and width is None else [kept, width]
    if (
        isinstance(path, str)
        and len(path) <= LONGEST_PATH
        and isinstance(shape, list)
        and len(shape) <= 32
        # A bool is no number here.
        and all(type(n) is int for n in (*shape, *numbers))
        and all(0 <= n <= LARGEST_NETWORK for n in (*shape, *numbers))
        and dtype in DTYPES
        and (kept is None or kept <= math.prod(shape))
        and (width is None or width <= positions.LARGEST_WIDTH)
    ):
        entry = Entry(path, tuple(shape), dtype, kept, width, coding)
        if values.fits(coding, dtype, entry.count):
            return entry
    described = path, shape, dtype, kept, width, coding
    raise ValueError(f"it describes an impossible weight, {described!r:.200}.")


def _fingerprint(entries):
    return fingerprint(
        [entry.shape for entry in entries],
        [entry.kept is not None for entry in entries],
    )


def _refuse_constant(name):
    raise ValueError(f"its header contains {name}.")
