"""Tiny ImageNet, or any directory of images in classes.

Of the 200 classes, each with 500 training and 50 test images of 64x64 pixels,
those are used whose directories are there. The test set is all of `val`; the
authors of Gem-Miner test on half of it and tune on the other. Two layouts:

    <directory>/{train,val}/<class>/*.JPEG

and that of the official archive,

    <directory>/train/<class>/images/*.JPEG
    <directory>/val/images/*.JPEG
    <directory>/val/val_annotations.txt        name, class, box; tabs between
"""

from pathlib import Path

from tf_gems.datasets.image_data import ImageData
from tf_gems.datasets.in_tfds import collect
from tf_gems.datasets.in_tfds import resize

_ENDINGS = {".jpeg", ".jpg", ".png"}


def load(data_dir, fraction, download, size):
    """Returns the `ImageData` of a directory; labels are in order of names."""
    if download:
        raise ValueError(
            "Tiny ImageNet is not available in TFDS. Received: "
            "download=True. Unpack "
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip and pass its "
            "directory as `data_dir`."
        )
    train, val = (Path(data_dir or "", part) for part in ("train", "val"))
    if data_dir is None or not (train.is_dir() and val.is_dir()):
        raise FileNotFoundError(
            "Tiny ImageNet is read from a directory that contains 'train' "
            f"and 'val'. Received: data_dir={data_dir}. Unpack "
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip and pass its "
            "directory, 'tiny-imagenet-200'."
        )
    classes = sorted(path.name for path in train.iterdir() if path.is_dir())
    chosen = []
    for name in classes:
        paths = _images(train / name)
        # Of every class its part: files are in the order of classes.
        count = max(1, round(fraction * len(paths)))
        chosen += [(path, name) for path in paths[:count]]
    return ImageData.of_bytes(
        "tiny_imagenet",
        _read(chosen, classes, size, train),
        _read(_test_images(val), classes, size, val),
        len(classes),
    )


def _images(directory):
    """Returns the images of a class, or of its directory `images`."""
    if (directory / "images").is_dir():
        directory = directory / "images"
    return sorted(
        path for path in directory.iterdir() if path.suffix.lower() in _ENDINGS
    )


def _test_images(val):
    """Returns pairs of a path and the name of its class."""
    annotations = val / "val_annotations.txt"
    if annotations.is_file():
        lines = annotations.read_text("utf-8").splitlines()
        rows = [line.split("\t") for line in lines if line]
        return [(val / "images" / name, label) for name, label, *_ in rows]
    directories = sorted(path for path in val.iterdir() if path.is_dir())
    return [
        (path, directory.name)
        for directory in directories
        for path in _images(directory)
    ]


def _read(images, classes, size, directory):
    import tensorflow as tf

    number = {name: label for label, name in enumerate(classes)}
    images = [(str(path), number[n]) for path, n in images if n in number]
    if not images:
        raise FileNotFoundError(
            "Images must be in one directory per class. Received: "
            f"{directory}, with no {', '.join(sorted(_ENDINGS))} file of a "
            f"class of the training set, which has {len(classes)} classes."
        )
    paths, labels = zip(*images, strict=True)

    def read(path, label):
        file = tf.io.read_file(path)
        # PNG as well. The default is coarser than what the authors read.
        image = tf.io.decode_jpeg(
            file, channels=3, dct_method="INTEGER_ACCURATE"
        )
        return resize(image, size), label

    data = tf.data.Dataset.from_tensor_slices((list(paths), list(labels)))
    return collect(data.map(read, num_parallel_calls=2), len(paths), size)
