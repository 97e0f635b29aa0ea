"""A classification task as pipelines of batches."""

import dataclasses

import numpy as np

from tf_gems.datasets.by_epoch import by_epoch

_CROPPED = ("cifar10", "cifar100", "tiny_imagenet")
_FLIPPED = (*_CROPPED, "caltech101")
_PADDING = 4


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A data set for image classification, in memory.

    Small images are stored as normalized float32 values. Large images are
    stored as bytes, which take a quarter of the memory, and are normalized by
    the pipelines.

    Args:
        name: String.
        train: `(images, labels)`, float32 or uint8 `(n, height, width,
            channels)` and int64 `(n,)`.
        test: The same for the test set.
        classes: Integer, number of labels.
        mean: Array, the mean of each channel of uint8 images. Defaults to
            `None`: images are float32.
        deviation: Array, the standard deviation of each channel, likewise.
    """

    name: str
    train: tuple
    test: tuple
    classes: int
    mean: np.ndarray | None = None
    deviation: np.ndarray | None = None

    @classmethod
    def normalized(cls, name, train, test, classes):
        """Stores images, normalized by the statistics of the training set.

        Args:
            name: String.
            train: `(images, labels)`, images of any type.
            test: The same for the test set.
            classes: Integer, number of labels.
        """
        mean = train[0].mean((0, 1, 2), dtype="float64")
        deviation = train[0].std((0, 1, 2), dtype="float64")

        def normalize(images, labels):
            images = (images.astype("float32") - mean) / deviation
            return images.astype("float32"), labels.astype("int64")

        return cls(name, normalize(*train), normalize(*test), classes)

    @classmethod
    def of_bytes(cls, name, train, test, classes):
        """Stores images as bytes, which are normalized batch by batch.

        Args:
            name: String.
            train: `(images, labels)`, uint8 and int64.
            test: The same for the test set.
            classes: Integer, number of labels.
        """
        return cls(name, train, test, classes, *_statistics(train[0]))

    @property
    def image_shape(self):
        """Height, width and channels."""
        return self.train[0].shape[1:]

    def batches(self, batch_size, seed=0):
        """Returns the training set as shuffled batches.

        Images of CIFAR and Tiny ImageNet are randomly cropped after padding by
        4 pixels of the mean color, and randomly flipped, as in the paper
        (whose padding is black). Images of Caltech-101 are randomly flipped.
        The order and the augmentation depend on the seed and the epoch, which
        `tf_gems.callbacks.SetEpoch` sets.

        Args:
            batch_size: Integer. The last batch can be smaller.
            seed: Integer.

        Returns:
            `tf.data.Dataset` of `(images, labels)`, float32 and int64, with a
            method `set_epoch`, see `tf_gems.datasets.by_epoch`.
        """
        import tensorflow as tf

        with tf.device("CPU"):  # where pipelines run
            images, labels = (tf.constant(array) for array in self.train)
        count = len(self.train[1])

        def of_epoch(seed):
            order, crop, flip = tf.unstack(tf.random.split(seed, 3))
            # Places are shuffled, not images: eight bytes each.
            places = tf.random.experimental.stateless_shuffle(
                tf.range(count, dtype="int64"), order
            )
            data = tf.data.Dataset.from_tensor_slices(places)
            if self.name not in _FLIPPED:
                return data.batch(batch_size).map(
                    lambda places: (
                        self._normalize(tf.gather(images, places)),
                        tf.gather(labels, places),
                    )
                )

            def example(place):
                seeds = (tf.random.fold_in(s, place) for s in (crop, flip))
                image = self._normalize(images[place])
                return self._augment(image, *seeds), labels[place]

            return data.map(example, num_parallel_calls=2).batch(batch_size)

        return by_epoch(of_epoch, seed, -(-count // batch_size))

    def test_batches(self, batch_size, replicas=1):
        """Returns the test set as batches, in order.

        Args:
            batch_size: Integer, the maximum size. The last batch can be
                smaller.
            replicas: Integer, number of replicas of a
                `tf.distribute.Strategy`. Keras requires that they divide the
                first batch evenly.

        Returns:
            `tf.data.Dataset` of `(images, labels)`, float32 and int64.
        """
        import tensorflow as tf

        largest = min(batch_size, len(self.test[1]))
        batch_size = max(1, largest // replicas) * replicas
        with tf.device("CPU"):
            data = tf.data.Dataset.from_tensor_slices(self.test)
        data = data.batch(batch_size)
        data = data.map(lambda x, y: (self._normalize(x), y))
        options = tf.data.Options()
        options.autotune.enabled = False  # as for training
        return data.prefetch(2).with_options(options)

    def _normalize(self, images):
        import tensorflow as tf

        if self.mean is None:
            return images
        images = tf.cast(images, "float32")
        return (images - self.mean) / self.deviation

    def _augment(self, image, crop, flip):
        import tensorflow as tf

        if self.name in _CROPPED:
            padded = tf.pad(image, [[_PADDING] * 2, [_PADDING] * 2, [0, 0]])
            image = tf.image.stateless_random_crop(padded, image.shape, crop)
        return tf.image.stateless_random_flip_left_right(image, flip)


def _statistics(images):
    """Returns mean and deviation of each channel of uint8 images, exactly.

    They are those of its histogram: floats would take eight times the memory.
    """
    counts = np.zeros((images.shape[-1], 256), "int64")
    for part in np.array_split(images, 1 + len(images) // 1000):
        for channel, count in enumerate(counts):
            count += np.bincount(part[..., channel].ravel(), minlength=256)
    frequencies = counts / counts.sum(-1, keepdims=True)
    values = np.arange(256)
    mean = frequencies @ values
    variance = frequencies @ values**2 - mean**2
    return mean.astype("float32"), np.sqrt(variance).astype("float32")
