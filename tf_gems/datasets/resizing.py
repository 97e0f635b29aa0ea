"""Images of many sizes, brought to one and held as bytes."""

import numpy as np


def resize(image, size):
    """Resizes one image as torchvision and PIL do, to a square.

    Linear interpolation, smoothed where it shrinks; the aspect ratio is not
    kept. An image that has the size already stays as it is.

    Args:
        image: uint8 tensor `(height, width, 3)`.
        size: Integer, height and width.

    Returns:
        uint8 tensor `(size, size, 3)`.
    """
    import tensorflow as tf

    # Rounding gives back every byte of an image that is not resized.
    resized = tf.round(tf.image.resize(image, (size, size), antialias=True))
    return tf.saturate_cast(tf.ensure_shape(resized, (size, size, 3)), tf.uint8)


def collect(data, count, size):
    """Collects a pipeline of resized images in memory, with no copy.

    Args:
        data: `tf.data.Dataset` of `(image, label)`, the images resized.
        count: Integer, at least the number of images.
        size: Integer, height and width of each.

    Returns:
        `(images, labels)`, uint8 `(n, size, size, 3)` and int64 `(n,)`.
    """
    images = np.empty((count, size, size, 3), "uint8")
    labels = np.empty(count, "int64")
    start = 0
    for batch in data.batch(256).as_numpy_iterator():
        end = start + len(batch[1])
        images[start:end], labels[start:end] = batch
        start = end
    return images[:start], labels[:start]
