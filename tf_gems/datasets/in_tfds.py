"""Sets of images in TensorFlow Datasets (TFDS), as they are or resized.

Caltech-101 has photographs of 101 kinds of objects, some 300x200 pixels each,
and of none: TFDS has 102 labels, of which `background_google` (4) is treated
like any other. It trains on 30 images of each and tests on the rest. The
authors of Gem-Miner leave the background out, split 60/20/20 and do not
augment, so their accuracies are of a somewhat different task.
"""

import os

import numpy as np

from tf_gems.datasets.image_data import ImageData

NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100")


def load(name, data_dir, fraction, download):
    """Returns `(train, test, classes)` of one of `NAMES`, pairs of arrays."""
    import tensorflow_datasets as tfds

    sets, classes = _open(name, data_dir, fraction, download, batch_size=-1)
    train, test = (tfds.as_numpy(s) for s in sets)
    return train, test, classes


def load_caltech101(data_dir, fraction, download, size):
    """Returns the `ImageData` of Caltech-101, resized to a square."""
    sets, classes = _open("caltech101", data_dir, fraction, download)

    def resized(image, label):
        return resize(image, size), label

    train, test = (
        collect(data.map(resized, num_parallel_calls=2), len(data), size)
        for data in sets
    )
    return ImageData.of_bytes("caltech101", train, test, classes)


def _open(name, data_dir, fraction, download, batch_size=None):
    """Returns `([train, test], classes)`: part of the one set, and the other.

    `batch_size` is that of TFDS: -1 for one batch, `None` for single images.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if download:
            builder.download_and_prepare()
        count = round(fraction * builder.info.splits["train"].num_examples)
        sets = builder.as_dataset(
            split=[f"train[:{count}]", "test"],
            batch_size=batch_size,
            as_supervised=True,
        )
    except (AssertionError, FileNotFoundError, KeyError) as error:
        place = data_dir or os.environ.get("TFDS_DATA_DIR", "its default")
        raise FileNotFoundError(
            f"TFDS must contain '{name}'. Received: data_dir={place}, where "
            "it is missing. Set TFDS_DATA_DIR, pass `data_dir`, or pass "
            "`download=True`."
        ) from error
    return sets, builder.info.features["label"].num_classes


def resize(image, size):
    """Resizes one uint8 image to a square, as torchvision and PIL do.

    Linear interpolation, smoothed where it shrinks; the aspect ratio is not
    kept. An image that has the size already stays as it is.
    """
    import tensorflow as tf

    # Rounding gives back every byte of an image that is not resized.
    resized = tf.round(tf.image.resize(image, (size, size), antialias=True))
    return tf.saturate_cast(tf.ensure_shape(resized, (size, size, 3)), tf.uint8)


def collect(data, count, size):
    """Returns resized images and labels of a pipeline, without a copy.

    They are uint8 `(n, size, size, 3)` and int64 `(n,)`, of at most `count`.
    """
    images = np.empty((count, size, size, 3), "uint8")
    labels = np.empty(count, "int64")
    start = 0
    for batch in data.batch(256).as_numpy_iterator():
        end = start + len(batch[1])
        images[start:end], labels[start:end] = batch
        start = end
    return images[:start], labels[:start]
