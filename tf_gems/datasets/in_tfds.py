"""Small sets of equal images in TensorFlow Datasets (TFDS)."""

import os

NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100")


def load(name, data_dir, fraction, download):
    """Loads one of `NAMES`.

    Args:
        name: String.
        data_dir: Directory of TFDS, or `None`.
        fraction: Float in (0, 1], the part of the training set to use.
        download: Whether TFDS may download what is missing.

    Returns:
        `(train, test, classes)`, where the first two are `(images, labels)`.

    Raises:
        FileNotFoundError: If TFDS does not hold it.
    """
    import tensorflow_datasets as tfds

    sets, classes = open_sets(name, data_dir, fraction, download, batch_size=-1)
    train, test = (tfds.as_numpy(s) for s in sets)
    return train, test, classes


def open_sets(name, data_dir, fraction, download, batch_size=None):
    """Opens the training set, or part of it, and the test set.

    Args:
        name: Name in TFDS.
        data_dir: Directory of TFDS, or `None`.
        fraction: Float in (0, 1], the part of the training set to use.
        download: Whether TFDS may download what is missing.
        batch_size: Integer, `-1` for one batch, or `None` for single images.

    Returns:
        `([train, test], classes)`.

    Raises:
        FileNotFoundError: If TFDS does not hold it.
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
            f"TFDS must hold '{name}'. Received: data_dir={place}, where it "
            "is missing. Set TFDS_DATA_DIR, pass `data_dir`, or allow "
            "`download`."
        ) from error
    return sets, builder.info.features["label"].num_classes
