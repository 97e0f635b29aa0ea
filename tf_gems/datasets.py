"""Image data as `tf.data` pipelines, from TFDS or from scikit-learn.

Images are float32, normalised by the mean and standard deviation of the
training set, channel by channel. Nothing is downloaded unless TFDS is allowed
to (`download=True`).
"""

import dataclasses
import os

import numpy as np

from tf_gems.validation import check_choice

_TFDS = ("mnist", "fashion_mnist", "cifar10", "cifar100")
NAMES = ("digits", *_TFDS)
_AUGMENTED = ("cifar10", "cifar100")
_PADDING = 4


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A classification task held in memory.

    Args:
        name: String.
        train: `(images, labels)`, float32 `(n, height, width, channels)` and
            int64 `(n,)`.
        test: The same for the test set.
        classes: Integer, number of labels.
    """

    name: str
    train: tuple
    test: tuple
    classes: int

    @property
    def image_shape(self):
        """Height, width and channels."""
        return self.train[0].shape[1:]

    def batches(self, batch_size, seed=0):
        """Returns the training set as a shuffled pipeline of batches.

        CIFAR images are cropped at random after padding by 4 pixels, and
        flipped at random, as in the paper. The order and the augmentation
        follow from the seed.

        Args:
            batch_size: Integer. The last batch may be smaller.
            seed: Integer.

        Returns:
            `tf.data.Dataset` of `(images, labels)`.
        """
        import tensorflow as tf

        images, labels = (tf.constant(array) for array in self.train)
        data = tf.data.Dataset.range(len(labels))
        # Places are shuffled, not images: eight bytes each.
        data = data.shuffle(len(labels), seed=seed)
        if self.name not in _AUGMENTED:
            return _finish(
                data.batch(batch_size).map(
                    lambda places: (
                        tf.gather(images, places),
                        tf.gather(labels, places),
                    )
                )
            )
        seeds = tf.data.Dataset.random(
            seed, rerandomize_each_iteration=True
        ).batch(4)
        data = tf.data.Dataset.zip(data, seeds).map(
            lambda i, seed: (_augment(images[i], seed), labels[i]),
            num_parallel_calls=2,
        )
        return _finish(data.batch(batch_size))

    def test_batches(self, batch_size):
        """Returns the test set as a pipeline of batches, in order.

        Args:
            batch_size: Integer.
        """
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices(self.test)
        return _finish(data.batch(batch_size))


def load(name, data_dir=None, fraction=1.0, download=False):
    """Loads a data set into memory.

    Args:
        name: `"digits"` (ships inside scikit-learn: 1,797 images of 8x8
            pixels, every fifth kept for the test), `"mnist"`,
            `"fashion_mnist"`, `"cifar10"` or `"cifar100"` (TFDS).
        data_dir: Directory of TFDS. Defaults to `None`: the environment
            variable `TFDS_DATA_DIR`, or the default of TFDS.
        fraction: Float in (0, 1], the part of the training set to use.
            Defaults to `1.0`.
        download: Whether TFDS may download what is missing.

    Returns:
        `ImageData`.

    Raises:
        ValueError: If the name or the fraction is not known.
        FileNotFoundError: If the data is missing and may not be downloaded.

    Example:

    >>> load("digits").image_shape
    (8, 8, 1)
    """
    check_choice(name, "name", NAMES)
    if not 0 < fraction <= 1:
        raise ValueError(
            "`fraction` is the part of the training set in (0, 1]. "
            f"Received: fraction={fraction}. Use 1.0 for all of it."
        )
    if name == "digits":
        train, test, classes = _load_digits(fraction)
    else:
        train, test, classes = _load_tfds(name, data_dir, fraction, download)
    mean = train[0].mean((0, 1, 2), dtype="float64")
    deviation = train[0].std((0, 1, 2), dtype="float64")

    def normalise(images, labels):
        images = (images.astype("float32") - mean) / deviation
        return images.astype("float32"), labels.astype("int64")

    return ImageData(name, normalise(*train), normalise(*test), classes)


def _load_digits(fraction):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1)
    is_test = np.arange(len(labels)) % 5 == 4
    count = round(fraction * np.count_nonzero(~is_test))
    train = images[~is_test][:count], labels[~is_test][:count]
    return train, (images[is_test], labels[is_test]), 10


def _load_tfds(name, data_dir, fraction, download):
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if download:
            builder.download_and_prepare()
        count = round(fraction * builder.info.splits["train"].num_examples)
        sets = builder.as_dataset(
            split=[f"train[:{count}]", "test"],
            batch_size=-1,
            as_supervised=True,
        )
    except (AssertionError, FileNotFoundError, KeyError) as error:
        place = data_dir or os.environ.get("TFDS_DATA_DIR", "its default")
        raise FileNotFoundError(
            f"TFDS must hold '{name}'. Received: data_dir={place}, where it "
            "is missing. Set TFDS_DATA_DIR, pass `data_dir`, or allow "
            "`download`."
        ) from error
    train, test = (tfds.as_numpy(s) for s in sets)
    return train, test, builder.info.features["label"].num_classes


def _augment(image, seed):
    import tensorflow as tf

    padded = tf.pad(image, [[_PADDING] * 2, [_PADDING] * 2, [0, 0]])
    image = tf.image.stateless_random_crop(padded, image.shape, seed[:2])
    return tf.image.stateless_random_flip_left_right(image, seed[2:])


def _finish(data):
    import tensorflow as tf

    options = tf.data.Options()
    # Autotuning delays the end of every short `fit` by up to its own time.
    options.autotune.enabled = False
    return data.prefetch(2).with_options(options)
