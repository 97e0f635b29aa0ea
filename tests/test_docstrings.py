"""Runs the examples in docstrings."""

import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pytest

import tf_gems

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(tf_gems.__path__, "tf_gems.")
    if not name.endswith(".__main__")
]
ONLY_TENSORFLOW = "<tf.Tensor"


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    names = {
        **vars(module),
        "np": np,
        "keras": keras,
        "ops": keras.ops,
        "tf_gems": tf_gems,
    }
    finder, runner = (
        doctest.DocTestFinder(),
        doctest.DocTestRunner(
            optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        ),
    )
    on_tensorflow = keras.backend.backend() == "tensorflow"
    for example in finder.find(module, globs=names):
        if on_tensorflow or ONLY_TENSORFLOW not in (example.docstring or ""):
            runner.run(example)
    assert runner.failures == 0


def test_examples_exist():
    found = doctest.DocTestFinder().find(tf_gems.masks)
    assert any(example.examples for example in found)
