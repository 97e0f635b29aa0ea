import numpy as np
import pytest
from data import tfds_directory

from tf_gems import datasets


def test_digits_are_normalised_and_split_in_five():
    data = datasets.load("digits")
    assert data.image_shape == (8, 8, 1)
    assert len(data.train[1]) == 1438
    assert len(data.test[1]) == 359
    assert data.classes == 10
    assert abs(data.train[0].mean()) < 1e-6
    assert abs(data.train[0].std() - 1) < 1e-5


def test_batches_hold_every_example_once_in_an_order_of_the_seed():
    data = datasets.load("digits")

    def labels(seed):
        epoch = [y.numpy() for _, y in data.batches(100, seed)]
        return np.concatenate(epoch)

    first = labels(0)
    np.testing.assert_array_equal(np.sort(first), np.sort(data.train[1]))
    np.testing.assert_array_equal(first, labels(0))
    assert (first != labels(1)).any()
    assert (first != data.train[1]).any()


def test_each_epoch_has_another_order():
    batches = datasets.load("digits").batches(2000, seed=0)
    [(_, first)], [(_, second)] = list(batches), list(batches)
    assert (first.numpy() != second.numpy()).any()


def test_fraction_takes_part_of_the_training_set_only():
    data = datasets.load("digits", fraction=0.5)
    assert len(data.train[1]) == 719
    assert len(data.test[1]) == 359


def test_cifar10_is_cropped_and_flipped_and_mnist_is_not():
    directory = tfds_directory("cifar10")
    data = datasets.load("cifar10", directory, fraction=0.002)
    assert data.image_shape == (32, 32, 3)
    assert len(data.test[1]) == 10_000
    [(images, labels)] = data.batches(100, seed=0)
    known = {image.tobytes() for image in data.train[0]}
    unchanged = sum(image.tobytes() in known for image in images.numpy())
    assert images.shape == (100, 32, 32, 3)
    assert unchanged < 20  # one crop in 81 and one flip in two change nothing
    np.testing.assert_array_equal(np.sort(labels), np.sort(data.train[1]))
    # Cropping moves pixels, it does not make them.
    values = np.unique(data.train[0])
    assert np.isin(images.numpy(), np.append(values, 0.0)).all()

    data = datasets.load("mnist", tfds_directory("mnist"), fraction=0.001)
    [(images, _)] = data.batches(60, seed=0)
    known = {image.tobytes() for image in data.train[0]}
    assert all(image.tobytes() in known for image in images.numpy())


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'cifar10'"):
        datasets.load("cifar-10")


def test_fraction_out_of_range_is_refused():
    with pytest.raises(ValueError, match="Received: fraction=0"):
        datasets.load("digits", fraction=0)


def test_missing_data_names_the_directory_and_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="Set TFDS_DATA_DIR"):
        datasets.load("mnist", str(tmp_path))
