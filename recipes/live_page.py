"""Writes the page of a run for `tf_gems serve RUN_DIR`."""

import keras
import numpy as np
import picture

import tf_gems as gems

EXAMPLES = 20
_STAGES = {
    "mine": "mining",
    "finetune": "fine-tuning",
    "random": "random ticket",
    "dense": "dense network",
}
_COLUMNS = {
    "val_accuracy": "test accuracy",
    "density": "density",
}


def write(directory, data):
    """Writes the page of a run with a fine-tuned network.

    Args:
        directory: Path of the run. The page is written to its subdirectory
            `page`.
        data: `tf_gems.datasets.ImageData` of the run.
    """
    model = keras.models.load_model(
        directory / "finetuned.keras", compile=False
    )
    batches = data.test_batches(EXAMPLES).as_numpy_iterator()
    images, labels = next(batches)
    mean, deviation = statistics(data)
    settings = f"{model.name} on {data.name}"
    history = curves(directory)
    gems.page.write_page(
        model,
        directory / "page",
        images,
        labels,
        range(data.classes),
        mean=mean,
        deviation=deviation,
        history=history,
        name=settings,
        accuracy=_last(history, "fine-tuning, test accuracy"),
        dense_accuracy=_last(history, "dense network, test accuracy"),
    )


def _last(history, name):
    return history[name][-1] if name in history else None


def curves(directory):
    """Returns the curves of all stages of a run, by title."""
    found = {}
    for column, title in _COLUMNS.items():
        for stage, name in _STAGES.items():
            file = directory / f"{stage}.csv"
            rows = picture.read(file) if file.exists() else []
            if rows and column in rows[0]:
                found[f"{name}, {title}"] = [row[column] for row in rows]
    return found


def statistics(data):
    """Returns the channel means and deviations of pixels between 0 and 1.

    If images are stored normalized, both follow from the smallest and the
    largest value, which correspond to black and white.
    """
    if data.mean is not None:
        return data.mean / 255, data.deviation / 255
    images = data.train[0]
    low, high = images.min((0, 1, 2)), images.max((0, 1, 2))
    deviation = 1 / np.maximum(high - low, 1e-6)
    return -low * deviation, deviation
