"""The 8x8 digits that ship inside scikit-learn."""

import numpy as np


def load(fraction):
    """Loads the digits, every fifth for the test.

    Args:
        fraction: Float in (0, 1], the part of the training set to use.

    Returns:
        `(train, test, classes)`, where the first two are `(images, labels)`.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1)
    is_test = np.arange(len(labels)) % 5 == 4
    count = round(fraction * np.count_nonzero(~is_test))
    train = images[~is_test][:count], labels[~is_test][:count]
    return train, (images[is_test], labels[is_test]), 10
