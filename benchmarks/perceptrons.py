"""The multilayer perceptrons of `native.py` and `mined_mlp.py`."""

from keras import Input
from keras import Sequential
from keras import layers

# Positions of the zeros: the name in tables, and `pattern` in `tf_gems`.
PATTERNS = {"random": "unstructured", "blocks of 4": "4x1"}


def perceptron(sizes):
    """Returns fully connected layers with ReLU activations in between.

    Args:
        sizes: List of integers, the size of the inputs and of every layer.
    """
    hidden = [layers.Dense(n, activation="relu") for n in sizes[1:-1]]
    return Sequential([Input(sizes[:1]), *hidden, layers.Dense(sizes[-1])])
