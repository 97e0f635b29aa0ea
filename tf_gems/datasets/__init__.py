"""Image data as `tf.data` pipelines, from TFDS, directories or scikit-learn.

Data sets are loaded into memory. Images are float32, normalized by the mean
and standard deviation of the training set for each channel. Nothing is
downloaded unless TFDS is allowed to (`download=True`).
"""

import numpy as np

from tf_gems.datasets import in_tfds
from tf_gems.datasets import tiny_imagenet
from tf_gems.datasets.by_epoch import by_epoch
from tf_gems.datasets.image_data import ImageData
from tf_gems.targets import check_path
from tf_gems.validation import check_bool
from tf_gems.validation import check_choice
from tf_gems.validation import check_positive_integer
from tf_gems.validation import is_number

__all__ = ["NAMES", "ImageData", "by_epoch", "load"]

# How sets are loaded whose images are resized, and to which size by default.
_RESIZED = {
    "tiny_imagenet": (tiny_imagenet.load, 64),
    "caltech101": (in_tfds.load_caltech101, 224),
}
NAMES = ("digits", *in_tfds.NAMES, *_RESIZED)


def load(name, data_dir=None, fraction=1.0, download=False, image_size=None):
    """Loads a data set into memory.

    Args:
        name: `"digits"` (part of scikit-learn: 1,797 images of 8x8 pixels, of
            which every fifth is in the test set); `"mnist"`,
            `"fashion_mnist"`, `"cifar10"`, `"cifar100"` or `"caltech101"`
            (TFDS; Caltech-101 with the background as one of 102 labels); or
            `"tiny_imagenet"` (a directory).
        data_dir: Directory of TFDS. Defaults to `None`: the environment
            variable `TFDS_DATA_DIR`, or the default of TFDS. For
            `"tiny_imagenet"`, which needs it, the directory that holds
            `train` and `val`, see `tf_gems.datasets.tiny_imagenet`.
        fraction: Float in (0, 1], the fraction of the training set to use.
            Defaults to `1.0`.
        download: Whether TFDS can download missing data.
        image_size: Integer, height and width to which images of
            `"tiny_imagenet"` and `"caltech101"` are resized. Defaults to
            `None`: 64 and 224.

    Returns:
        `ImageData`.

    Raises:
        ValueError: If an argument is out of range or does not apply to the
            data set.
        FileNotFoundError: If the data is missing and downloading is not
            allowed.

    Example:

    >>> load("digits").image_shape
    (8, 8, 1)
    """
    check_choice(name, "name", NAMES)
    check_bool(download, "download")
    if data_dir is not None:
        check_path(data_dir, "data_dir", "Pass the directory of the data.")
    if not is_number(fraction) or not 0 < fraction <= 1:
        raise ValueError(
            "`fraction` must be the fraction of the training set, in (0, 1]. "
            f"Received: fraction={fraction!r:.100}. Use 1.0 for all of it."
        )
    if name in _RESIZED:
        source, size = _RESIZED[name]
        if image_size is not None:
            size = check_positive_integer(image_size, "image_size")
        return source(data_dir, fraction, download, size)
    if image_size is not None:
        raise ValueError(
            "`image_size` applies only to data sets whose images have "
            f"various sizes. Received: image_size={image_size} for '{name}', "
            "whose images have one size. Leave it out, or load "
            f"{' or '.join(map(repr, _RESIZED))}."
        )
    if name == "digits":
        train, test, classes = _load_digits(fraction)
    else:
        train, test, classes = in_tfds.load(name, data_dir, fraction, download)
    return ImageData.normalized(name, train, test, classes)


def _load_digits(fraction):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1)
    is_test = np.arange(len(labels)) % 5 == 4
    count = round(fraction * np.count_nonzero(~is_test))
    train = images[~is_test][:count], labels[~is_test][:count]
    return train, (images[is_test], labels[is_test]), 10
