import io
import json
import math
import resource
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tf_gems import ticket_file
from tf_gems.ticket import Ticket

DTYPES = ticket_file._DTYPES


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
            value = value.astype("float32")  # every value of it is exact
        if name in ticket.masks:
            mask = ticket.masks[name]
            np.testing.assert_array_equal(loaded.masks[name], mask)
            value = np.where(mask, value, 0).astype(value.dtype)
        assert loaded.weights[name].dtype == value.dtype
        assert loaded.weights[name].shape == value.shape
        # Bit for bit, so that NaN and -0.0 count too.
        assert loaded.weights[name].tobytes() == value.tobytes()


def test_round_trip(path):
    assert_same(example(), Ticket.load(path))
    loaded = Ticket.load(str(path))
    loaded.weights["bias"][0] = 1  # arrays of one's own
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


def test_special_values_and_empty_weights(tmp_path):
    weights = {
        "kernel": np.array([[np.nan, np.inf], [-0.0, 1e-45]], "float32"),
        "scalar": np.array(2.5, "float32"),
        "empty": np.zeros((0, 3), "float32"),
    }
    masks = {
        "kernel": np.array([[True, False], [True, True]]),
        "scalar": np.array(True),
        "empty": np.zeros((0, 3), bool),
    }
    ticket = Ticket(masks, weights)
    ticket.save(tmp_path / "special.gem")
    assert_same(ticket, Ticket.load(tmp_path / "special.gem"))


def test_equal_tickets_give_equal_bytes(path, tmp_path):
    again = example()
    again.metadata = dict(reversed(again.metadata.items()))
    # What a mask hides is not stored.
    again.weights["stem"] = np.where(
        again.masks["stem"], again.weights["stem"], 9
    ).astype("float32")
    again.save(tmp_path / "again.gem")
    assert (tmp_path / "again.gem").read_bytes() == path.read_bytes()
    example(seed=1).save(tmp_path / "again.gem")
    assert (tmp_path / "again.gem").read_bytes() != path.read_bytes()


def test_a_write_that_fails_leaves_the_old_file(path):
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


def test_paths_that_cannot_be_written(path, tmp_path):
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


def test_values_that_have_no_place_in_a_file(tmp_path):
    masks = {"kernel": np.ones(3, bool)}
    ticket = Ticket(masks, {"kernel": np.array(["a", "b", "c"])})
    with pytest.raises(ValueError, match=r"weights\['kernel'\] of <U1"):
        ticket.save(tmp_path / "text.gem")
    ticket = Ticket(masks, {"kernel": np.ones(3)}, {"loss": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        ticket.save(tmp_path / "nan.gem")
    assert not list(tmp_path.iterdir())


def refused(path):
    """Loads a file that is no ticket, and returns the message."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as error:
            Ticket.load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**26, "a file that is refused took much memory"
    message = str(error.value)
    assert f"Received: path='{path}'" in message
    assert "Save the ticket again" in message
    return message


def test_truncated_files_are_refused(path):
    data = path.read_bytes()
    for length in range(0, len(data), 37):
        path.write_bytes(data[:length])
        refused(path)


def test_a_flipped_byte_is_refused_or_changes_nothing(path):
    # A few bytes of a zip archive, such as its dates, mean nothing.
    random = np.random.default_rng(11)
    data, caught = path.read_bytes(), 0
    for position in random.choice(len(data), 200, replace=False):
        damaged = bytearray(data)
        damaged[position] ^= random.integers(1, 256)
        path.write_bytes(damaged)
        try:
            assert_same(example(), Ticket.load(path))
        except ValueError as error:
            assert str(path) in str(error)
            caught += 1
    assert caught > 100


def archive_of(**entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npz():
    buffer = io.BytesIO()
    np.savez(buffer, masks=np.ones(3), values=np.ones(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"a text, but no ticket\n" * 100,
        bytes(range(256)) * 20,
        npz(),
        archive_of(readme="x"),
        # A `.keras` file.
        archive_of(**{"metadata.json": "{}", "config.json": "{}"}),
        archive_of(**{"ticket.json": "{}", "masks": b"", "values": b""}),
        archive_of(**{"ticket.json": "[" * 10**5, "masks": "", "values": ""}),
        archive_of(**{"ticket.json": b"\xff\xfe", "masks": "", "values": ""}),
    ],
)
def test_foreign_files_are_refused(tmp_path, data):
    (tmp_path / "foreign.gem").write_bytes(data)
    refused(tmp_path / "foreign.gem")


def rewrite(path, header=None, **entries):
    """Writes the example again with another header or other entries."""
    with zipfile.ZipFile(path) as archive:
        old = {name: archive.read(name) for name in archive.namelist()}
    if header is not None:
        old["ticket.json"] = json.dumps(header)
    path.write_bytes(archive_of(**{**old, **entries}))


@pytest.fixture
def header(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("ticket.json"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": 2}, "version 2"),
        ({"version": None}, "version None"),
        ({"format": "other"}, "format 'other'"),
        ({"metadata": []}, "metadata"),
        ({"weights": []}, "prunes nothing"),
        ({"weights": None}, "not iterable"),
        ({"weights": {"stem": 1}}, ""),
    ],
)
def test_edited_headers_are_refused(path, header, change, message):
    rewrite(path, {**header, **change})
    assert message in refused(path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": [2**20, 2**20]}, "describes 1099511627"),
        ({"shape": [2**62, 0]}, "impossible weight"),
        ({"shape": [10**400]}, "impossible weight"),
        ({"shape": [3, 3, 2, 6]}, "'masks' claims"),
        ({"shape": [-3, -3, 2, 5]}, "impossible weight"),
        ({"shape": [3.0, 3, 2, 5]}, "impossible weight"),
        ({"shape": [True, 90]}, "impossible weight"),
        ({"shape": "90"}, "impossible weight"),
        ({"shape": [1] * 60 + [90]}, "impossible weight"),
        ({"kept": 3}, "'values' claims"),
        ({"kept": -1}, "impossible weight"),
        ({"kept": 91}, "impossible weight"),
        ({"kept": False}, "impossible weight"),
        ({"kept": 0.0}, "impossible weight"),
        ({"kept": None}, "claims"),
        ({"dtype": "float64"}, "'values' claims"),
        ({"dtype": "object"}, "impossible weight"),
        ({"dtype": "<f4"}, "impossible weight"),
        ({"dtype": None}, "impossible weight"),
        ({"path": 3}, "impossible weight"),
        ({"path": "dense"}, "same path"),
    ],
)
def test_edited_weights_are_refused(path, header, change, message):
    header["weights"][0].update(change)
    rewrite(path, header)
    assert message in refused(path)


def test_masks_that_contradict_the_header_are_refused(path, header):
    with zipfile.ZipFile(path) as archive:
        masks = bytearray(archive.read("masks"))
    masks[0] ^= 0x80
    rewrite(path, masks=bytes(masks))
    assert "the mask of 'stem' keeps" in refused(path)


def test_missing_keys_are_refused(path, header):
    for key in ("path", "shape", "dtype", "kept"):
        weights = [dict(weight) for weight in header["weights"]]
        del weights[1][key]
        rewrite(path, {**header, "weights": weights})
        assert key in refused(path)


def test_bombs_are_refused_before_they_unfold(path, header):
    rewrite(path, **{"ticket.json": b" " * 2**25})
    assert "'ticket.json' claims" in refused(path)

    rewrite(path, header, values=bytes(2**22))
    assert "'values' claims" in refused(path)

    # Sizes that agree with each other, for a network of 2^31 + 8 weights.
    weight = {"shape": [2**30 + 4], "dtype": "float32", "kept": 0}
    header["weights"] = [{"path": name, **weight} for name in "ab"]
    rewrite(path, header, masks=bytes(2**28 + 1), values=b"")
    assert path.stat().st_size < 2**19
    assert "describes 2147483656 weights" in refused(path)


def test_claims_of_the_archive_itself_are_not_believed(path, header):
    # The directory of the archive says that 10^9 bytes follow; few do.
    weight = {"path": "a", "shape": [10**9], "dtype": "bool", "kept": None}
    kernel = {"path": "k", "shape": [8], "dtype": "bool", "kept": 0}
    header["weights"] = [weight, kernel]
    rewrite(path, header, masks=b"\0", values=bytes(1000))
    data = path.read_bytes()
    size = (1000).to_bytes(4, "little")
    assert data.count(size) == 2  # the entry and the directory
    path.write_bytes(data.replace(size, (10**9).to_bytes(4, "little")))
    assert "'values' claims 1000000000" in refused(path)


def test_masks_must_fit_their_weights():
    weights = {"kernel": np.ones((2, 3), "float32")}
    for mask in (np.ones((3, 2), bool), np.ones((2, 3), "float32")):
        with pytest.raises(ValueError, match=r"masks\['kernel'\]"):
            Ticket({"kernel": mask}, weights)
    with pytest.raises(ValueError, match=r"masks\['other'\]"):
        Ticket({"other": np.ones((2, 3), bool)}, weights)
    with pytest.raises(ValueError, match="at least one weight"):
        Ticket({}, weights)


def test_a_ticket_is_small(tmp_path):
    # One bit a weight at most, and four bytes a kept one.
    random = np.random.default_rng(0)
    mask = random.random((500, 400)) < 0.01
    ticket = Ticket({"k": mask}, {"k": random.normal(size=mask.shape)})
    ticket.weights["k"] = ticket.weights["k"].astype("float32")
    ticket.save(tmp_path / "small.gem")
    bits = -(0.01 * math.log2(0.01) + 0.99 * math.log2(0.99)) * mask.size
    size = (tmp_path / "small.gem").stat().st_size
    assert size < 4 * mask.sum() + 1.6 * bits / 8 + 1_000
