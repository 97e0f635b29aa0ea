import contextlib
import io
import json
import math
import resource
import struct
import tracemalloc
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from reference_reader import read as read_slowly

from tf_gems import ticket_file
from tf_gems.ticket import Ticket
from tf_gems.ticket_file.header import DTYPES


def example(seed=0):
    random = np.random.default_rng(seed)
    shapes = {"stem": (3, 3, 2, 5), "dense": (13, 7)}
    masks = {name: random.random(s) < 0.2 for name, s in shapes.items()}
    weights = {
        "stem": random.normal(size=shapes["stem"]).astype("float32"),
        "bias": random.normal(size=5).astype("float32"),
        "dense": random.normal(size=shapes["dense"]).astype("float16"),
        "steps": np.array(7, "int64"),
    }
    return Ticket(masks, weights, {"method": "gem_miner", "epochs": 150})


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "example.gem"
    example().save(path)
    return path


def assert_same(ticket, loaded):
    assert list(ticket.weights) == list(loaded.weights)
    assert list(ticket.masks) == list(loaded.masks)
    assert ticket.metadata == loaded.metadata
    for name, value in ticket.weights.items():
        value = np.asarray(value)
        if value.dtype.name == "bfloat16":
            value = value.astype("float32")  # Each of its values is exact.
        if name in ticket.masks:
            mask = ticket.masks[name]
            np.testing.assert_array_equal(loaded.masks[name], mask)
            value = np.where(mask, value, 0).astype(value.dtype)
        assert loaded.weights[name].dtype == value.dtype
        assert loaded.weights[name].shape == value.shape
        # Compares bits, so that NaN and -0.0 count too.
        assert loaded.weights[name].tobytes() == value.tobytes()


def test_round_trip(path):
    assert_same(example(), Ticket.load(path))
    loaded = Ticket.load(str(path))
    loaded.weights["bias"][0] = 1  # The arrays are writable copies.
    loaded.masks["dense"][0, 0] ^= True


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_ticket_round_trips(tmp_path_factory, data):
    names = st.text(max_size=8)
    paths = data.draw(st.lists(names, min_size=1, max_size=5, unique=True))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weights, masks = {}, {}
    for index, name in enumerate(paths):
        dtype = data.draw(st.sampled_from([*DTYPES, "bfloat16"]))
        shape = data.draw(st.lists(st.integers(1, 4), max_size=4))
        raw = random.normal(scale=100, size=shape)
        kind = data.draw(st.sampled_from(["any", "signs", "constant", "half"]))
        if kind in ("signs", "constant"):
            raw = np.where(raw < 0, -0.3, 0.3 if kind == "signs" else -0.3)
        elif kind == "half":
            raw = raw.astype("float16")
        weights[name] = np.asarray(raw).astype(
            ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        )
        if index == 0 or data.draw(st.booleans()):
            masks[name] = np.asarray(random.random(shape) < 0.5)
    metadata = data.draw(
        st.dictionaries(names, st.one_of(st.integers(), st.none(), names))
    )
    ticket = Ticket(masks, weights, metadata)
    path = tmp_path_factory.mktemp("round_trip") / "any.gem"
    ticket.save(path)
    assert_same(ticket, Ticket.load(path))
    slow = read_slowly(path.read_bytes())
    assert slow["metadata"] == metadata
    for name, value in Ticket.load(path).weights.items():
        if name in masks:
            assert slow["masks"].pop(name) == masks[name].ravel().tolist()
            value = value[masks[name]]
        assert slow["values"][name] == value.ravel().tolist()
    assert not slow["masks"]
    # Writing a ticket after reading gives the same bytes.
    again = path.with_name("again.gem")
    Ticket.load(path).save(again)
    assert again.read_bytes() == path.read_bytes()


def test_special_values_and_empty_weights(tmp_path):
    weights = {
        "kernel": np.array([[np.nan, np.inf], [-0.0, 1e-45]], "float32"),
        "signed": np.array([np.nan, -np.nan, np.nan], "float32"),
        "zeros": np.array([0.0, -0.0, -0.0]),
        "halves": np.array([np.inf, 0.5, 65504, 6e-8, -0.0], "float32"),
        "scalar": np.array(2.5, "float32"),
        "empty": np.zeros((0, 3), "float32"),
        "big_endian": np.array([1.1, 2.2], ">f4"),
    }
    weights["halves"][3] = np.float16(6e-8)
    masks = {
        "kernel": np.array([[True, False], [True, True]]),
        "scalar": np.array(True),
        "empty": np.zeros((0, 3), bool),
    }
    ticket = Ticket(masks, weights)
    ticket.save(tmp_path / "special.gem")
    weights["big_endian"] = weights["big_endian"].astype("float32")
    assert_same(ticket, Ticket.load(tmp_path / "special.gem"))


def test_equal_tickets_give_equal_bytes(path, tmp_path):
    again = example()
    again.metadata = dict(reversed(again.metadata.items()))
    # Values hidden by a mask are not stored.
    again.weights["stem"] = np.where(
        again.masks["stem"], again.weights["stem"], 9
    ).astype("float32")
    again.save(tmp_path / "again.gem")
    assert (tmp_path / "again.gem").read_bytes() == path.read_bytes()
    example(seed=1).save(tmp_path / "again.gem")
    assert (tmp_path / "again.gem").read_bytes() != path.read_bytes()


def test_failed_write_keeps_old_file(path):
    before = path.read_bytes()
    large = example()
    large.weights["bias"] = np.random.default_rng(0).random(50_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
    try:
        with pytest.raises(OSError):
            large.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    large.save(path)
    assert_same(large, Ticket.load(path))


def test_invalid_paths(path, tmp_path):
    folder = tmp_path / "folder.gem"
    folder.mkdir()
    for target in (tmp_path / "no" / "x.gem", path / "x.gem", folder):
        with pytest.raises(OSError):
            example().save(target)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "example.gem",
        "folder.gem",
    ]
    for missing in (tmp_path / "no.gem", folder):
        with pytest.raises(OSError, match=missing.name):
            Ticket.load(missing)


def test_unsupported_values(tmp_path):
    masks = {"kernel": np.ones(3, bool)}
    ticket = Ticket(masks, {"kernel": np.array(["a", "b", "c"])})
    with pytest.raises(ValueError, match=r"weights\['kernel'\] of <U1"):
        ticket.save(tmp_path / "text.gem")
    ticket = Ticket(masks, {"kernel": np.ones(3)}, {"loss": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        ticket.save(tmp_path / "nan.gem")
    assert not list(tmp_path.iterdir())


def refused(path):
    """Loads an invalid file. Returns the error message."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as error:
            Ticket.load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**26, "an invalid file took too much memory"
    message = str(error.value)
    assert f"Received: path='{path}'" in message
    remedies = ("Save the ticket again", "Raise the limit if you trust")
    assert any(remedy in message for remedy in remedies)
    return message


def test_truncated_and_extended_files_are_refused(path):
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path)
    for more in (b"\0", data, bytes(10**5)):
        path.write_bytes(data + more)
        assert "bytes instead of" in refused(path)


def test_every_flipped_byte_is_refused(path):
    random = np.random.default_rng(11)
    data = path.read_bytes()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= random.integers(1, 256)
        path.write_bytes(damaged)
        refused(path)


def archive_of(**entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def sealed(prefix, body):
    """Returns the bytes of a file with correct lengths and checksum."""
    header, text, numbers = prefix
    start = struct.pack(
        "<4sIQIIQ", b"\x89GEM", 2, 36 + len(body), header, text, numbers
    )
    return start + body + zlib.crc32(start + body).to_bytes(4, "little")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89GEM",
        b"a text, but no ticket\n" * 100,
        bytes(range(256)) * 20,
        archive_of(readme="x"),
        sealed((0, 0, 0), b""),
        sealed((0, 2**20, 2**60), b"\x03\0"),
        sealed((2, 0, 2), b"\x03\0\x03\0"),
        sealed((2**31, 2**20, 0), b"\x03\0"),
    ],
)
def test_foreign_files_are_refused(tmp_path, data):
    (tmp_path / "foreign.gem").write_bytes(data)
    refused(tmp_path / "foreign.gem")


def test_first_version_is_named(tmp_path):
    (tmp_path / "old.gem").write_bytes(archive_of(**{"ticket.json": "{}"}))
    assert "zip archive, as tickets of version 1" in refused(
        tmp_path / "old.gem"
    )


def deflate(data):
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush()


def parts(data):
    """Returns header, positions with signs, and numbers of a file."""
    length, _, numbers = struct.unpack("<IIQ", data[16:32])
    end = len(data) - 4 - numbers
    return (
        json.loads(zlib.decompress(data[32 : 32 + length], -15)),
        data[32 + length : end],
        zlib.decompress(data[end:-4], -15),
    )


def rewrite(path, header=None, middle=None, numbers=None):
    """Writes the example with other parts and their checksum."""
    old = example()
    old_header, old_middle, old_numbers = parts(
        ticket_file.encode(old.masks, old.weights, old.metadata)
    )
    text = old_header if header is None else header
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    middle = old_middle if middle is None else middle
    numbers = old_numbers if numbers is None else numbers
    stored, values = deflate(text), deflate(numbers)
    lengths = len(stored), len(text), len(values)
    path.write_bytes(sealed(lengths, stored + middle + values))


@pytest.fixture
def header(path):
    return parts(path.read_bytes())[0]


def edited(header, change):
    """Returns a header with other weights and their fingerprint."""
    header = {**header, "weights": {**header["weights"], **change}}
    with contextlib.suppress(TypeError, ValueError, KeyError):
        header["fingerprint"] = ticket_file.fingerprint(
            header["weights"]["shape"],
            [kept is not None for kept in header["weights"]["kept"]],
        )
    return header


def test_recompressed_parts_give_same_ticket(path, header):
    # Another program may compress in a different way.
    rewrite(path, json.dumps(header, indent=3).encode())
    assert_same(example(), Ticket.load(path))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"fingerprint": "0" * 16}, "fingerprint belongs to another network"),
        ({"metadata": []}, "metadata is not an object"),
        ({"metadata": {"loss": float("nan")}}, "contains NaN"),
        ({"weights": []}, "list indices"),
        ({"weights": None}, "not subscriptable"),
        ({"weights": {"path": ["stem"]}}, "shape"),
    ],
)
def test_edited_headers_are_refused(path, header, change, message):
    rewrite(path, {**header, **change})
    assert message in refused(path)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 10**5, b"9" * 10**5],
)
def test_invalid_headers_are_refused(path, text):
    rewrite(path, text)
    refused(path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": [2**20, 2**20]}, "describes 1099511627"),
        ({"shape": [2**62, 0]}, "impossible weight"),
        ({"shape": [10**400]}, "impossible weight"),
        ({"shape": [0]}, "impossible weight"),
        ({"shape": [2**28, 2]}, "max_bytes=2,147,483,648"),
        ({"shape": [-3, -3, 2, 5]}, "impossible weight"),
        ({"shape": [3.0, 3, 2, 5]}, "impossible weight"),
        ({"shape": [True, 90]}, "impossible weight"),
        ({"shape": "90"}, "impossible weight"),
        ({"shape": [1] * 60 + [90]}, "impossible weight"),
        ({"kept": 3}, ""),
        ({"kept": -1}, "impossible weight"),
        ({"kept": 91}, "impossible weight"),
        ({"kept": False}, "impossible weight"),
        ({"kept": 0.0}, "impossible weight"),
        ({"kept": None}, "impossible weight"),
        ({"kept": None, "width": None}, ""),
        ({"width": None}, "impossible weight"),
        ({"width": -1}, "impossible weight"),
        ({"width": 32}, "impossible weight"),
        ({"width": 10**30}, "impossible weight"),
        ({"width": 0}, "positions"),
        ({"dtype": "float64"}, "numbers do not have their length"),
        ({"dtype": "object"}, "impossible weight"),
        ({"dtype": "<f4"}, "impossible weight"),
        ({"dtype": None}, "impossible weight"),
        ({"dtype": []}, "impossible weight"),
        ({"coding": "float16"}, "numbers do not have their length"),
        ({"coding": "constant"}, "numbers do not have their length"),
        ({"coding": "signs"}, ""),
        ({"coding": "other"}, "impossible weight"),
        ({"coding": {}}, "impossible weight"),
        ({"dtype": "int32", "coding": "signs"}, "impossible weight"),
        ({"path": 3}, "impossible weight"),
        ({"path": "dense"}, "same path"),
    ],
)
def test_edited_weights_are_refused(path, header, change, message):
    old = header["weights"]
    new = {name: [value, *old[name][1:]] for name, value in change.items()}
    rewrite(path, edited(header, new))
    assert message in refused(path)


def test_columns_of_wrong_length_are_refused(path, header):
    for name, column in header["weights"].items():
        for other in (column[:-1], [*column, None], {}, None, "x" * 4):
            rewrite(path, edited(header, {name: other}))
            refused(path)
        weights = {k: v for k, v in header["weights"].items() if k != name}
        rewrite(path, {**header, "weights": weights})
        assert name in refused(path)
    rewrite(path, edited(header, {name: [] for name in header["weights"]}))
    assert "prunes nothing" in refused(path)


def test_wrong_positions_signs_and_numbers_are_refused(path):
    _, middle, numbers = parts(path.read_bytes())
    for other in (b"", middle[:-1], middle + b"\0", bytes(len(middle))):
        rewrite(path, middle=other)
        refused(path)
    for other in (b"", numbers[:-1], numbers + b"\0", bytes(10**7)):
        rewrite(path, numbers=other)
        assert "numbers do not have their length" in refused(path)


def test_sign_padding_is_checked(tmp_path):
    path = tmp_path / "signs.gem"
    kernel = np.array([1, -1, 1], "float32")
    Ticket({"k": np.ones(3, bool)}, {"k": kernel}).save(path)
    _, middle, _ = parts(path.read_bytes())
    assert middle == bytes([0b010_00000])
    data = path.read_bytes()
    end = data.index(middle, 32)
    data = data[:end] + bytes([0b010_00001]) + data[end + 1 : -4]
    path.write_bytes(data + zlib.crc32(data).to_bytes(4, "little"))
    assert "signs are followed by" in refused(path)


def test_decompression_bombs_are_refused(path, header):
    rewrite(path, b" " * 2**25)
    assert "header claims 33554432 bytes" in refused(path)
    # The prefix states that the header is short.
    stored, text = deflate(b" " * 2**25), 100
    path.write_bytes(sealed((len(stored), text, 0), stored))
    assert "header does not have 100 bytes" in refused(path)

    # A network of 2^31 + 8 weights that keeps none.
    columns = {
        "path": ["a", "b"],
        "shape": [[2**30 + 4]] * 2,
        "dtype": ["float32"] * 2,
        "kept": [0, 0],
        "width": [0, 0],
        "coding": ["plain"] * 2,
    }
    rewrite(path, edited(header, columns), b"", b"")
    assert path.stat().st_size < 2**9
    assert "describes 2147483656 weights" in refused(path)
    # The user may choose a smaller limit.
    columns["shape"] = [[2**20]] * 2
    rewrite(path, edited(header, columns), b"", b"")
    with pytest.raises(ValueError, match="max_bytes=10,000,000"):
        Ticket.load(path, max_bytes=10_000_000)
    assert Ticket.load(path, max_bytes=2**24).kept == 0


def test_masks_must_match_weights():
    weights = {"kernel": np.ones((2, 3), "float32")}
    for mask in (np.ones((3, 2), bool), np.ones((2, 3), "float32")):
        with pytest.raises(ValueError, match=r"masks\['kernel'\]"):
            Ticket({"kernel": mask}, weights)
    with pytest.raises(ValueError, match=r"masks\['other'\]"):
        Ticket({"other": np.ones((2, 3), bool)}, weights)
    with pytest.raises(ValueError, match="at least one weight"):
        Ticket({}, weights)


def test_bytes_of_each_coding(tmp_path):
    """Each weight uses the shortest exact coding."""
    random = np.random.default_rng(0)
    noise = random.normal(size=800).astype("float32")
    signs = np.where(noise < 0, -0.1, 0.1).astype("float32")
    found = {}
    for name, value in {
        "constant": np.ones(800, "float32"),
        "signs": signs,
        "float16": noise.astype("float16").astype("float32"),
        "plain": noise,
    }.items():
        path = tmp_path / f"{name}.gem"
        mask = {"k": np.ones(800, bool)}
        Ticket(mask, {"k": value}).save(path)
        summary = Ticket.inspect(path)
        assert summary.bytes == path.stat().st_size
        assert [layer["coding"] for layer in summary.layers] == [name]
        assert summary.lengths["positions"] == 0
        found[name] = summary.lengths["signs"] + summary.lengths["numbers"]
    assert found["constant"] < 10
    assert found["signs"] == found["constant"] + 100
    assert 1200 < found["float16"] < 1610
    assert 2400 < found["plain"] < 3210


def test_half_precision_is_optional(tmp_path):
    random = np.random.default_rng(0)
    noise = random.normal(size=100).astype("float32")
    weights = {
        "kernel": noise,
        "signs": np.where(noise < 0, -0.1, 0.1).astype("float32"),
        "steps": np.arange(100),
        "double": noise.astype("float64") / 3,
    }
    ticket = Ticket({"kernel": noise > 0}, weights)
    exact, half = tmp_path / "exact.gem", tmp_path / "half.gem"
    ticket.save(exact)
    ticket.save(half, dtype="float16")
    assert half.stat().st_size < exact.stat().st_size - 400
    loaded = Ticket.load(half).weights
    for name, value in weights.items():
        expected = value
        if name in ("kernel", "double"):
            expected = value.astype("float16").astype(value.dtype)
        if name == "kernel":
            expected = np.where(noise > 0, expected, 0)
        np.testing.assert_array_equal(loaded[name], expected)
        assert loaded[name].dtype == value.dtype
    with pytest.raises(ValueError, match="dtype='int8'.*'float16'"):
        ticket.save(half, dtype="int8")
    weights["double"][3] = -1e5
    before = half.read_bytes()
    with pytest.raises(ValueError, match=r"\['double'\].*65504.*100000"):
        ticket.save(half, dtype="float16")
    assert half.read_bytes() == before
    weights["double"][3] = np.inf
    ticket.save(half, dtype="float16")
    assert Ticket.load(half).weights["double"][3] == np.inf


def test_large_metadata_are_refused_on_write(tmp_path):
    ticket = example()
    ticket.metadata["curve"] = "x" * 2**21
    with pytest.raises(ValueError, match="must take at most 2,097,152"):
        ticket.save(tmp_path / "large.gem")
    assert not list(tmp_path.iterdir())


def test_summary(path):
    summary = Ticket.inspect(path)
    ticket = example()
    assert summary.bytes == path.stat().st_size
    assert summary.metadata == ticket.metadata
    assert summary.fingerprint == ticket.fingerprint
    assert [layer["path"] for layer in summary.layers] == list(ticket.weights)
    total = 0.0
    for layer in summary.layers:
        name = layer["path"]
        assert tuple(layer["shape"]) == ticket.weights[name].shape
        if name not in ticket.masks:
            assert layer["kept"] is layer["density"] is None
            continue
        mask = ticket.masks[name]
        assert layer["kept"] == mask.sum()
        assert layer["density"] == pytest.approx(mask.mean())
        total += math.log2(math.comb(mask.size, int(mask.sum())))
    assert summary.entropy_bytes == pytest.approx(total / 8)
    assert summary.ratio == pytest.approx(
        8 * summary.lengths["positions"] / total
    )
    bits = sum(layer["positions"] for layer in summary.layers)
    assert summary.lengths["positions"] == math.ceil(bits / 8)
    assert json.loads(json.dumps(summary.to_dict())) == summary.to_dict()
    table = str(summary)
    for name in ticket.weights:
        assert name in table
    for text in (
        f"{summary.bytes:,}  total",
        f"{summary.ratio:.3f} times their entropy",
        'method: "gem_miner"',
        ticket.fingerprint,
    ):
        assert text in table


def test_fingerprints_distinguish_networks():
    ticket = example()
    names = {name: f"other/{name}" for name in ticket.weights}
    renamed = Ticket(
        {names[name]: ~mask for name, mask in ticket.masks.items()},
        {names[name]: value * 0 for name, value in ticket.weights.items()},
    )
    assert renamed.fingerprint == ticket.fingerprint
    less = Ticket({"stem": ticket.masks["stem"]}, ticket.weights)
    wider = Ticket(ticket.masks, {**ticket.weights, "bias": np.zeros(6)})
    prints = {ticket.fingerprint, less.fingerprint, wider.fingerprint}
    assert len(prints) == 3
