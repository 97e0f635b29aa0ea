"""Caltech-101 of TensorFlow Datasets, resized.

Photographs of 101 kinds of objects, some 300x200 pixels each, and of none:
TFDS has 102 labels, of which `background_google` (4) is treated like any
other. It trains on 30 images of each and tests on the rest. The authors of
Gem-Miner leave the background out, split 60/20/20 and do not augment, so their
accuracies are of a somewhat different task.
"""

from tf_gems.datasets.image_data import ImageData
from tf_gems.datasets.in_tfds import open_sets
from tf_gems.datasets.resizing import collect
from tf_gems.datasets.resizing import resize

SIZE = 224


def load(data_dir, fraction, download, size=SIZE):
    """Loads Caltech-101.

    Args:
        data_dir: Directory of TFDS, or `None`.
        fraction: Float in (0, 1], the part of the training set to use.
        download: Whether TFDS may download what is missing.
        size: Integer, height and width to which images are resized. Defaults
            to `224`.

    Returns:
        `ImageData`.

    Raises:
        FileNotFoundError: If TFDS does not hold it.
    """
    sets, classes = open_sets("caltech101", data_dir, fraction, download)
    train, test = (
        collect(
            data.map(
                lambda image, label: (resize(image, size), label),
                num_parallel_calls=2,
            ),
            len(data),
            size,
        )
        for data in sets
    )
    return ImageData.of_bytes("caltech101", train, test, classes)
