"""Reads a ticket file bit by bit, as the format specifies."""

import json
import math
import struct
import zlib


def read(data):
    """Returns masks and values as flat lists. Supports only valid files."""
    assert data[:4] == b"\x89GEM"
    version, total, header_length, text_length, numbers_length = struct.unpack(
        "<IQIIQ", data[4:32]
    )
    assert (version, total) == (2, len(data))
    assert int.from_bytes(data[-4:], "little") == zlib.crc32(data[:-4])
    text = zlib.decompress(data[32 : 32 + header_length], -15)
    assert len(text) == text_length
    header = json.loads(text)
    columns = header["weights"]
    rows = [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]
    for row in rows:
        row["size"] = math.prod(row["shape"])
        row["count"] = row["size"] if row["kept"] is None else row["kept"]

    numbers = zlib.decompress(data[-4 - numbers_length : -4], -15)
    signed = sum(row["count"] for row in rows if row["coding"] == "signs")
    end = len(data) - 4 - numbers_length - math.ceil(signed / 8)
    signs = bits_of(data[end : end + math.ceil(signed / 8)])
    masked = [row for row in rows if row["kept"] is not None]
    masks = read_positions(
        data[32 + header_length : end],
        [(row["size"], row["kept"], row["width"]) for row in masked],
    )
    found = {"metadata": header["metadata"], "values": {}}
    found["masks"] = {
        row["path"]: mask for row, mask in zip(masked, masks, strict=True)
    }
    for row in rows:
        code = CODES["float16" if row["coding"] == "float16" else row["dtype"]]
        once = row["coding"] in ("constant", "signs")
        count = 1 if once else row["count"]
        length = count * struct.calcsize(code)
        values = list(struct.unpack(f"<{count}{code}", numbers[:length]))
        numbers = numbers[length:]
        if once:
            values *= row["count"]
        if row["coding"] == "signs":
            values = [-v if next(signs) else v for v in values]
        found["values"][row["path"]] = values
    assert not numbers and not any(signs)
    return found


CODES = {
    **{"bool": "?", "float16": "e", "float32": "f", "float64": "d"},
    **{"int8": "b", "int16": "h", "int32": "i", "int64": "q"},
    **{"uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q"},
}


def bits_of(data):
    """Yields the bits of bytes, starting with the highest bit of each."""
    for byte in data:
        for place in range(7, -1, -1):
            yield byte >> place & 1


def read_positions(data, rows):
    """Returns masks as lists, for rows of size, kept and width."""
    bits = bits_of(data)
    codes = []
    for size, kept, width in rows:
        remainders = []
        for _ in range(min(kept, size - kept)):
            remainder = 0
            for _ in range(width):
                remainder = 2 * remainder + next(bits)
            remainders.append(remainder)
        codes.append(remainders)
    masks = []
    for (size, kept, width), remainders in zip(rows, codes, strict=True):
        positions = set()
        place = -1
        for remainder in remainders:
            quotient = 0
            while not next(bits):
                quotient += 1
            place += 1 + (quotient << width) + remainder
            positions.add(place)
        masks.append(
            [(i in positions) != (2 * kept > size) for i in range(size)]
        )
    rest = list(bits)
    assert len(rest) < 8 and not any(rest)
    return masks
