"""Generates valid ticket files and hostile modifications of them."""

import copy
import json
import struct
import zlib
from pathlib import Path

import numpy as np

from tf_gems import ticket_file

FIXED = 32
INTEGERS = (
    *(0, 1, 2, 3, 7, 8, 9, 255, 256, 65_535, 2**20, 2**20 + 1, 2**31 - 1),
    *(2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1),
)
VALUES = (
    *(None, True, False, -1, 0.0, 1e308, -0.5, "", "float32", "float16"),
    *("bool", "int64", "uint64", "object", "plain", "signs", "constant"),
    *([], [0], [1], [-1], [2**31], [2**62, 0], [[1]], [1] * 33, {}, {"a": 1}),
    *(2**31, 10**30, 31, 32, "\x00", "\ud800", *INTEGERS),
)


def tickets():
    """Returns the bytes of valid files of several kinds."""
    random = np.random.default_rng(1)
    found = []
    for density in (0.01, 0.2, 0.5, 0.95, 0.0, 1.0):
        shapes = {"stem": (3, 3, 2, 5), "dense": (40, 30), "last": (7,)}
        masks = {n: random.random(s) < density for n, s in shapes.items()}
        weights = {
            "stem": random.normal(size=shapes["stem"]).astype("float32"),
            "bias": random.normal(size=5).astype("float16"),
            "mean": np.zeros(9, "float32"),
            "steps": np.array(7, "int64"),
            "dense": random.choice([-0.1, 0.1], shapes["dense"]),
            "flags": random.random(4) < 0.5,
            "last": random.normal(size=7).astype("float16").astype("float64"),
            "empty": np.zeros((0, 3), "float32"),
        }
        found.append(ticket_file.encode(masks, weights, {"seed": [1, {}]}))
    one = {"k": np.array(True)}
    found.append(ticket_file.encode(one, {"k": np.array(0.5)}, {}))
    gallery = Path(__file__).parents[1] / "savedmodels" / "digits.gem"
    return [*found, gallery.read_bytes(), _with_config()]


def _with_config():
    """Returns a file that holds a network config."""
    import tf_gems

    sparse = tf_gems.SparseModel(tf_gems.zoo.lenet_300_100((2, 2, 1), 3))
    ticket = tf_gems.methods.RandomPruning(0.99).find(sparse)
    parts = ticket.masks, ticket.weights, ticket.metadata
    return ticket_file.encode(*parts, config=ticket.config)


def take_apart(data):
    """Splits a file into header, positions and signs, and numbers."""
    header, _, numbers = struct.unpack("<IIQ", data[16:FIXED])
    end = len(data) - 4 - numbers
    return (
        zlib.decompress(data[FIXED : FIXED + header], -15),
        data[FIXED + header : end],
        zlib.decompress(data[end:-4], -15),
    )


def put_together(text, middle, numbers):
    """Returns a file of the given parts, with correct lengths and checksum."""
    header, joined = deflate(text), deflate(numbers)
    body = header + middle + joined
    lengths = 36 + len(body), len(header), len(text), len(joined)
    data = struct.pack("<4sIQIIQ", b"\x89GEM", 2, *lengths) + body
    return data + checksum(data)


def deflate(data):
    """Compresses data with DEFLATE at the fastest level."""
    deflater = zlib.compressobj(1, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush()


def checksum(data):
    """Returns the checksum, the last four bytes of a file."""
    return zlib.crc32(data).to_bytes(4, "little")


def mend(data):
    """Corrects the length and the checksum of a file."""
    if len(data) < 36:
        return data
    data = data[:8] + len(data).to_bytes(8, "little") + data[16:-4]
    return data + checksum(data)


def damage(random, data):
    """Flips bits, or overwrites, inserts, removes or repeats bytes."""
    data = bytearray(data)
    for _ in range(random.integers(1, 5)):
        place = int(random.integers(len(data) + 1))
        span = int(random.integers(1, 9))
        kind = random.integers(5)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << int(random.integers(8))
        elif kind == 1:
            data[place : place + span] = random.bytes(span)
        elif kind == 2:
            data[place:place] = random.bytes(span)
        elif kind == 3:
            del data[place : place + span]
        else:
            data[place:place] = data[place : place + span]
    return bytes(data)


def flip(random, data, _):
    """Flips a few bits."""
    data = bytearray(data)
    for _ in range(random.integers(1, 9)):
        data[random.integers(len(data))] ^= 1 << int(random.integers(8))
    return bytes(data)


def truncate(random, data, _):
    """Removes the end of a file."""
    return data[: random.integers(len(data))]


def extend(random, data, other):
    """Appends bytes to a file."""
    return (
        data + (random.bytes(random.integers(1, 99)), other)[random.integers(2)]
    )


def noise(random, *_):
    """Returns random bytes, sometimes after a valid magic number."""
    data = random.bytes(random.integers(1, 400))
    return data if random.integers(2) else mend(b"\x89GEM\2\0\0\0" + data)


def damage_and_mend(random, data, _):
    """Damages any bytes, and corrects the checksum."""
    return mend(damage(random, data))


def truncate_and_mend(random, *arguments):
    """Removes the end of a file, and corrects the length and the checksum."""
    return mend(truncate(random, *arguments))


def splice(random, data, other):
    """Joins the start of one file and the end of another."""
    end = other[random.integers(len(other)) :]
    return mend(data[: random.integers(len(data))] + end)


def edit_prefix(random, data, _):
    """Changes the lengths or the version, and corrects the checksum."""
    fields = list(struct.unpack("<IQIIQ", data[4:FIXED]))
    limits = 2**32, 2**64, 2**32, 2**32, 2**64
    for _ in range(random.integers(1, 3)):
        place = random.integers(5)
        value = int(random.choice(len(INTEGERS)))
        near = fields[place] + int(random.integers(-3, 4))
        value = INTEGERS[value] if random.integers(2) else near
        fields[place] = value % limits[place]
    data = data[:4] + struct.pack("<IQIIQ", *fields) + data[FIXED:-4]
    return data + checksum(data)


def damage_header(random, data, _):
    """Damages the text of the header before compression."""
    text, middle, numbers = take_apart(data)
    return put_together(damage(random, text), middle, numbers)


def edit_header(random, data, _):
    """Changes values of the header, and usually corrects the fingerprint."""
    text, middle, numbers = take_apart(data)
    header = json.loads(text)
    for _ in range(random.integers(1, 4)):
        change(random, header)
    if random.integers(4):
        columns = header.get("weights")
        try:
            header["fingerprint"] = ticket_file.fingerprint(
                columns["shape"], [kept is not None for kept in columns["kept"]]
            )
        except (KeyError, TypeError, ValueError):
            pass
    return put_together(json.dumps(header).encode(), middle, numbers)


def change(random, header):
    """Changes a value of the header, usually one of a weight."""
    columns = header.get("weights")
    if random.integers(8) and isinstance(columns, dict) and columns:
        name = str(random.choice(list(columns)))
        column = columns[name]
        if random.integers(8) and isinstance(column, list) and column:
            place = int(random.integers(len(column)))
            column[place] = another(random, column[place], column)
        else:
            columns[name] = another(random, column, list(columns.values()))
        return
    name = str(random.choice(list(header) or ["weights"]))
    header[name] = another(random, header.get(name), list(header.values()))
    if not random.integers(4):
        del header[name]


def edit_config(random, data, _):
    """Changes the network config. Few of the valid files have one."""
    text, middle, numbers = take_apart(data)
    header = json.loads(text)
    if "config" not in header:
        return edit_header(random, data, _)
    for _ in range(random.integers(1, 3)):
        part = header["config"]
        while True:
            places = list(part if isinstance(part, dict) else range(len(part)))
            place = places[random.integers(len(places))]
            deeper = isinstance(part[place], dict | list) and part[place]
            if not deeper or not random.integers(12):
                break
            part = part[place]
        values = list(part.values()) if isinstance(part, dict) else part
        part[place] = another(random, part[place], values)
        if not isinstance(header["config"], dict):
            break
    return put_together(json.dumps(header).encode(), middle, numbers)


def another(random, value, others):
    """Returns a nearby value, a hostile value or a neighboring value."""
    kind = random.integers(4)
    if kind == 0 and type(value) is int:
        return value + int(random.integers(-2, 3))
    if kind == 1 and others:
        return copy.deepcopy(others[random.integers(len(others))])
    if kind == 2 and isinstance(value, list) and value:
        value = copy.deepcopy(value)
        place = int(random.integers(len(value)))
        value[place] = another(random, value[place], value)
        return value
    return copy.deepcopy(VALUES[random.integers(len(VALUES))])


def damage_positions(random, data, _):
    """Damages the positions and signs."""
    text, middle, numbers = take_apart(data)
    return put_together(text, damage(random, middle), numbers)


def damage_numbers(random, data, _):
    """Damages the numbers, which often changes their count."""
    text, middle, numbers = take_apart(data)
    return put_together(text, middle, damage(random, numbers))


def bomb(random, data, _):
    """Replaces a part with data that decompresses to 1,000 times its size."""
    text, middle, numbers = take_apart(data)
    size = int(random.integers(1, 2**20))
    filling = (b" ", b"[", b'{"a":', b"0,", b"{},")[random.integers(5)]
    filling *= size // len(filling)
    kind = random.integers(4)
    if kind == 0:
        numbers = filling
    elif kind == 1:
        text += filling
    elif kind == 2:
        text = b"[" + filling + b"0]"
    else:
        start = b'{"metadata":{"a":[' + filling + b"0]},"
        text = start + text.replace(b'"metadata":', b'"other":', 1)[1:]
    return put_together(text, middle, numbers)


KINDS = {
    flip: 10,
    truncate: 4,
    extend: 2,
    noise: 4,
    damage_and_mend: 20,
    truncate_and_mend: 4,
    splice: 6,
    edit_prefix: 10,
    damage_header: 20,
    edit_header: 40,
    edit_config: 40,
    damage_positions: 15,
    damage_numbers: 15,
    bomb: 2,
}


def make(seed, number, valid):
    """Returns the kind and the bytes of an input."""
    random = np.random.default_rng([seed, number])
    weights = np.array(list(KINDS.values()))
    kind = list(KINDS)[random.choice(len(KINDS), p=weights / weights.sum())]
    data, other = (valid[i] for i in random.integers(len(valid), size=2))
    if kind is edit_config:
        data = valid[-1]
    return kind.__name__, kind(random, data, other)
