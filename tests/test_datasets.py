import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from data import directory
from data import tfds_directory

from tf_gems import datasets


def test_digits_are_normalized_and_split():
    data = datasets.load("digits")
    assert data.image_shape == (8, 8, 1)
    assert len(data.train[1]) == 1438
    assert len(data.test[1]) == 359
    assert data.classes == 10
    assert abs(data.train[0].mean()) < 1e-6
    assert abs(data.train[0].std() - 1) < 1e-5


def test_batches_contain_each_example_once_in_seeded_order():
    data = datasets.load("digits")

    def labels(seed):
        epoch = [y.numpy() for _, y in data.batches(100, seed)]
        return np.concatenate(epoch)

    first = labels(0)
    np.testing.assert_array_equal(np.sort(first), np.sort(data.train[1]))
    np.testing.assert_array_equal(first, labels(0))
    assert (first != labels(1)).any()
    assert (first != data.train[1]).any()


def test_epochs_have_different_orders():
    batches = datasets.load("digits").batches(2000, seed=0)
    [(_, first)], [(_, second)] = list(batches), list(batches)
    assert (first.numpy() != second.numpy()).any()


def test_fraction_applies_only_to_training_set():
    data = datasets.load("digits", fraction=0.5)
    assert len(data.train[1]) == 719
    assert len(data.test[1]) == 359


def test_augmentation_of_cifar10_but_not_mnist():
    directory = tfds_directory("cifar10")
    data = datasets.load("cifar10", directory, fraction=0.002)
    assert data.image_shape == (32, 32, 3)
    assert len(data.test[1]) == 10_000
    [(images, labels)] = data.batches(100, seed=0)
    known = {image.tobytes() for image in data.train[0]}
    unchanged = sum(image.tobytes() in known for image in images.numpy())
    assert images.shape == (100, 32, 32, 3)
    assert unchanged < 20  # One crop in 81 and one flip in two change nothing.
    np.testing.assert_array_equal(np.sort(labels), np.sort(data.train[1]))
    # Cropping moves pixels and creates no new values.
    values = np.unique(data.train[0])
    assert np.isin(images.numpy(), np.append(values, 0.0)).all()

    data = datasets.load("mnist", tfds_directory("mnist"), fraction=0.001)
    [(images, _)] = data.batches(60, seed=0)
    known = {image.tobytes() for image in data.train[0]}
    assert all(image.tobytes() in known for image in images.numpy())


def test_unknown_name_is_refused_with_nearest_name():
    with pytest.raises(ValueError, match="Did you mean 'cifar10'"):
        datasets.load("cifar-10")


def test_fraction_out_of_range_is_refused():
    with pytest.raises(ValueError, match="Received: fraction=0"):
        datasets.load("digits", fraction=0)


def test_missing_data_error_names_directory_and_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="Set TFDS_DATA_DIR"):
        datasets.load("mnist", str(tmp_path))


CLASSES = ("n01", "n02", "n03")


@pytest.fixture
def tiny(tmp_path):
    """A directory of lossless images, and the arrays that it holds."""
    random = np.random.default_rng(0)
    train = random.integers(256, size=(3, 4, 64, 64, 3), dtype="uint8")
    val = random.integers(256, size=(3, 2, 64, 64, 3), dtype="uint8")
    for part, arrays in (("train", train), ("val", val)):
        for name, images in zip(CLASSES, arrays, strict=True):
            (tmp_path / part / name).mkdir(parents=True)
            for index, image in enumerate(images):
                path = tmp_path / part / name / f"{name}_{index}.png"
                keras.utils.save_img(path, image, scale=False)
    return tmp_path, train, val


def official(plain, root):
    """Arranges the images as in the official archive."""
    shutil.copytree(plain / "train", root / "train")
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for name in CLASSES:
        moved = root / "train" / name
        moved.rename(root / "moved")
        moved.mkdir()
        (root / "moved").rename(moved / "images")
        (moved / f"{name}_boxes.txt").write_text("none")
        for path in (plain / "val" / name).iterdir():
            shutil.copy(path, root / "val" / "images")
            lines.append(f"{path.name}\t{name}\t0\t0\t62\t62\n")
    # In random order, with images of a class that is not listed.
    lines = [*sorted(lines, key=lambda x: x[4:]), "x.png\tn09\t0\t0\t1\t1\n"]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return lines


def test_image_directory_is_stored_as_bytes_and_normalized(tiny):
    path, train, val = tiny
    data = datasets.load("tiny_imagenet", path)
    np.testing.assert_array_equal(data.train[0], train.reshape(-1, 64, 64, 3))
    np.testing.assert_array_equal(data.train[1], np.repeat(range(3), 4))
    np.testing.assert_array_equal(data.test[0], val.reshape(-1, 64, 64, 3))
    assert data.train[0].dtype == "uint8"
    assert (data.classes, data.image_shape) == (3, (64, 64, 3))
    mean = train.mean((0, 1, 2, 3))
    deviation = train.std((0, 1, 2, 3))
    np.testing.assert_allclose(data.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(data.deviation, deviation, rtol=1e-6)
    [(images, labels)] = data.test_batches(10)
    expected = (val.reshape(-1, 64, 64, 3) - mean) / deviation
    np.testing.assert_allclose(images, expected, atol=1e-5)
    np.testing.assert_array_equal(labels, np.repeat(range(3), 2))
    shares = [len(labels) for _, labels in data.test_batches(5, replicas=4)]
    assert shares == [4, 2]


def test_image_directory_is_cropped_and_flipped(tiny):
    data = datasets.load("tiny_imagenet", tiny[0])
    [(images, labels)] = data.batches(12, seed=0)
    np.testing.assert_array_equal(np.sort(labels), data.train[1])
    held = ((data.train[0] - data.mean) / data.deviation).astype("float32")
    padded = np.pad(held, [(0, 0), (4, 4), (4, 4), (0, 0)])
    moved = set()
    for image in images.numpy():
        found = [
            (top, left, flip)
            for original in padded
            for top in range(9)
            for left in range(9)
            for flip in (1, -1)
            if np.allclose(
                image[:, ::flip][30:34, 30:34],
                original[top + 30 : top + 34, left + 30 : left + 34],
                atol=1e-5,
            )
            and np.allclose(
                image[:, ::flip],
                original[top : top + 64, left : left + 64],
                atol=1e-5,
            )
        ]
        assert len(found) == 1
        moved.add(found[0])
    assert len(moved) > 6
    assert {flip for _, _, flip in moved} == {1, -1}


def test_official_layout_gives_same_data(tiny, tmp_path):
    path, _, val = tiny
    lines = official(path, tmp_path / "official")
    plain = datasets.load("tiny_imagenet", path, fraction=0.5)
    data = datasets.load("tiny_imagenet", tmp_path / "official", fraction=0.5)
    for ours, theirs in zip(data.train, plain.train, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Half of every class.
    np.testing.assert_array_equal(data.train[1], [0, 0, 1, 1, 2, 2])
    named = [line.split("\t")[:2] for line in lines[:-1]]
    assert data.test[1].tolist() == [CLASSES.index(n) for _, n in named]
    for image, (file, name) in zip(data.test[0], named, strict=True):
        index = int(file.removesuffix(".png")[-1])
        np.testing.assert_array_equal(image, val[CLASSES.index(name), index])


def test_images_of_any_size_and_color_are_resized(tiny):
    path, _, _ = tiny
    grey = np.full((50, 90, 1), 77, "uint8")
    keras.utils.save_img(path / "train" / "n01" / "a.jpg", grey, scale=False)
    (path / "train" / "n01" / "notes.txt").write_text("no image")
    data = datasets.load("tiny_imagenet", path, image_size=16)
    assert data.train[0].shape == (13, 16, 16, 3)
    assert (data.train[0][0] == 77).all()
    # Downscaling averages, which reduces the deviation of noise.
    assert data.train[0][1:].std() < 40


def test_jpeg_decoding_matches_pillow():
    place = directory("tiny_imagenet_20")
    data = datasets.load("tiny_imagenet", place, fraction=1e-9)
    assert data.train[0].shape == (20, 64, 64, 3)
    assert data.test[0].shape == (1000, 64, 64, 3)
    np.testing.assert_array_equal(data.train[1], range(20))
    first = min(Path(place, "val").glob("n*"))
    images = [
        np.asarray(keras.utils.load_img(path))
        for path in sorted(first.glob("*.JPEG"))
    ]
    np.testing.assert_array_equal(data.test[1][: len(images)], 0)
    difference = np.abs(data.test[0][: len(images)] - np.float32(images))
    assert difference.mean() < 0.01


def test_caltech101_is_resized_and_flipped():
    place = tfds_directory("caltech101")
    data = datasets.load("caltech101", place, fraction=0.02, image_size=24)
    assert data.image_shape == (24, 24, 3)
    assert data.train[0].dtype == data.test[0].dtype == "uint8"
    assert data.classes == 102
    assert len(data.train[1]) == 24
    assert set(data.test[1]) == set(range(102))
    [(images, labels)] = data.batches(30, seed=0)
    held = ((data.train[0] - data.mean) / data.deviation).astype("float32")
    flips = []
    for image, label in zip(images.numpy(), labels, strict=True):
        same = np.abs(held - image).max((1, 2, 3)) < 1e-5
        mirrored = np.abs(held - image[:, ::-1]).max((1, 2, 3)) < 1e-5
        [place] = np.flatnonzero(same | mirrored)
        assert label == data.train[1][place]
        flips.append(bool(mirrored[place]))
    assert len(set(flips)) == 2


def test_missing_images_error_names_remedy(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="data_dir=None. Unpack"):
        datasets.load("tiny_imagenet")
    with pytest.raises(FileNotFoundError, match="'train' and 'val'"):
        datasets.load("tiny_imagenet", tmp_path / "train")
    with pytest.raises(ValueError, match="Received: download=True. Unpack"):
        datasets.load("tiny_imagenet", tmp_path, download=True)
    shutil.rmtree(tmp_path / "val" / "n01")
    (tmp_path / "val" / "n02").rename(tmp_path / "val" / "other")
    shutil.rmtree(tmp_path / "val" / "n03")
    with pytest.raises(FileNotFoundError, match="one directory per class"):
        datasets.load("tiny_imagenet", tmp_path)


def test_image_size_requires_images_of_many_sizes():
    with pytest.raises(ValueError, match="load 'tiny_imagenet' or 'caltech10"):
        datasets.load("digits", image_size=16)
    with pytest.raises(ValueError, match="Received: image_size=0"):
        datasets.load("tiny_imagenet", image_size=0)
