"""Tests that the published files have the properties on their cards."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from data import tfds_directory

import tf_gems
from tf_gems import datasets
from tf_gems import zoo
from tf_gems.export.run_litert import run_litert

DIRECTORY = Path(__file__).parents[1] / "savedmodels"
CARDS = sorted(DIRECTORY.glob("*.json"))
IMAGES = 1000  # Sufficient, and quick without XNNPACK.


def accuracy(logits, labels):
    return float(np.mean(np.argmax(logits, -1) == labels))


def load(card):
    name = card["settings"]["dataset"]
    directory = None if name == "digits" else tfds_directory(name)
    # The normalization uses the statistics of all training images.
    return datasets.load(name, directory)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
            id=path.stem,
            marks=[] if path.stem == "digits" else pytest.mark.slow,
        )
        for path in CARDS
    ],
)
def test_file_matches_model_card(path):
    card = json.loads(path.read_text("utf-8"))
    promised = card["accuracy"]
    ticket_path, tflite_path = (
        path.with_suffix(".gem"),
        path.with_suffix(".tflite"),
    )
    assert ticket_path.stat().st_size == card["bytes"]["ticket"] < 200_000
    size = tflite_path.stat().st_size
    assert size == card["bytes"]["sparse_tflite"] < 200_000
    assert "python recipes/" in card["command"]

    ticket = tf_gems.Ticket.load(ticket_path)
    assert (ticket.kept, ticket.size) == (card["kept"], card["size"])
    target = 1 - card["settings"]["target_sparsity"]
    assert ticket.kept == round(target * ticket.size)
    # The weights were not trained, so each layer has a single magnitude.
    for name, mask in ticket.masks.items():
        magnitudes = np.unique(np.abs(ticket.weights[name][mask]))
        assert len(magnitudes) == 1

    data = load(card)
    images, labels = (array[:IMAGES] for array in data.test)
    # The whole test set if it is small, or four standard errors of a part.
    tolerance = 2e-3 if len(data.test[1]) <= IMAGES else 2 * IMAGES**-0.5
    network = getattr(zoo, card["settings"]["network"])(
        data.image_shape, data.classes
    )
    ticket.apply(network)
    before = accuracy(network.predict(images, verbose=0), labels)
    assert before == pytest.approx(promised["before_finetuning"], abs=tolerance)

    [outputs, *_], _ = run_litert(str(tflite_path), [{"image": images}])
    [logits] = outputs[0].values()
    after = accuracy(logits, labels)
    assert after == pytest.approx(promised["tflite"], abs=tolerance)
    assert after == pytest.approx(promised["after_finetuning"], abs=tolerance)


def test_tickets_are_near_their_information():
    for path in CARDS:
        summary = tf_gems.Ticket.inspect(path.with_suffix(".gem"))
        assert 1.0 <= summary.ratio <= 1.03
    summary = tf_gems.Ticket.inspect(DIRECTORY / "cifar10.gem")
    ticket = tf_gems.Ticket.load(DIRECTORY / "cifar10.gem")
    assert (ticket.size, round(ticket.density, 4)) == (268_336, 0.0144)
    assert summary.bytes < 9_500
    assert summary.lengths["signs"] == 3_864 // 8


def test_half_precision_statistics_are_enough(tmp_path):
    """The file is a third smaller, and the outputs differ only by rounding."""
    ticket = tf_gems.Ticket.load(DIRECTORY / "cifar10.gem")
    ticket.save(tmp_path / "half.gem", dtype="float16")
    assert (tmp_path / "half.gem").stat().st_size < 7_000
    half = tf_gems.Ticket.load(tmp_path / "half.gem")
    images = np.random.default_rng(0).normal(size=(20, 32, 32, 3))
    network = zoo.resnet20()
    outputs = []
    for found in (ticket, half):
        found.apply(network)
        outputs.append(network.predict(images, verbose=0))
    scale = np.abs(outputs[0]).max()
    np.testing.assert_allclose(*outputs, atol=2e-3 * scale)


def test_published_files_exist():
    assert len(CARDS) >= 2


@pytest.fixture(scope="module")
def gallery():
    """The program that measures the published files."""
    path = Path(__file__).parents[1] / "benchmarks" / "gallery.py"
    spec = importlib.util.spec_from_file_location("gallery", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_matches_files(gallery):
    path = DIRECTORY.parent / "benchmarks" / "results" / "gallery.json"
    results = json.loads(path.read_text("utf-8"))
    table = (DIRECTORY / "README.md").read_text("utf-8")
    assert table == gallery.render(results)
    assert {row["name"] for row in results["rows"]} == {p.stem for p in CARDS}
    for row in results["rows"]:
        card = json.loads(
            (DIRECTORY / f"{row['name']}.json").read_text("utf-8")
        )
        assert row["ticket_bytes"] == card["bytes"]["ticket"]
        assert row["sparse_bytes"][0] == card["bytes"]["sparse_tflite"]
        assert row["dense_bytes"][0] == pytest.approx(
            card["bytes"]["dense_tflite"], rel=0.02
        )
        assert row["accuracy"] == pytest.approx(
            card["accuracy"]["tflite"], abs=1e-3
        )
        assert row["sparse_microseconds"] > 0 < row["dense_microseconds"]


def test_dense_file_has_same_outputs(gallery, tmp_path):
    sparse = DIRECTORY / "digits.tflite"
    dense = tmp_path / "dense.tflite"
    dense.write_bytes(gallery.densified(sparse.read_bytes()))
    assert dense.stat().st_size > 4 * sparse.stat().st_size
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype("float32")
    found = [
        run_litert(str(path), [{"image": x}])[0][0][0]
        for path in (sparse, dense)
    ]
    for ours, twin in zip(*(f.values() for f in found), strict=True):
        np.testing.assert_allclose(ours, twin, atol=1e-6)
