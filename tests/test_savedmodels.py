"""The published artefacts keep what their cards promise."""

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
IMAGES = 1000  # enough to tell, and quick without XNNPACK


def accuracy(logits, labels):
    return float(np.mean(np.argmax(logits, -1) == labels))


def load(card):
    name = card["settings"]["dataset"]
    directory = None if name == "digits" else tfds_directory(name)
    # The statistics that normalise images are those of all training images.
    return datasets.load(name, directory)


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_artefact_does_what_its_card_says(path):
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
    # Mined, not trained: every layer still has weights of one magnitude.
    for name, mask in ticket.masks.items():
        magnitudes = np.unique(np.abs(ticket.weights[name][mask]))
        assert len(magnitudes) == 1

    data = load(card)
    images, labels = (array[:IMAGES] for array in data.test)
    # All of a small test set, or four standard errors of a part.
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


def test_there_are_artefacts_to_test():
    assert len(CARDS) >= 2
