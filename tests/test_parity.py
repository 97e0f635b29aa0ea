"""Tests the comparison of outputs."""

import numpy as np
import pytest

from tf_gems.parity import doubts
from tf_gems.parity import measure_parity
from tf_gems.parity import refuse_non_finite


def share(expected, received):
    return measure_parity(
        {"y": np.asarray(expected)}, {"y": np.asarray(received)}
    ).share


def test_nonfinite_outputs_are_different():
    for value in (np.nan, np.inf, -np.inf):
        assert share([1.0, 2.0], [1.0, value]) == np.inf
        assert share([1.0, value], [1.0, value]) == np.inf
        with pytest.raises(RuntimeError, match="'y' is missing, has another"):
            measure_parity(
                {"y": np.ones(2)}, {"y": np.array([1, value])}
            ).refuse_above(1e9, "a file")
        with pytest.raises(ValueError, match="output 'y' of 'net'"):
            refuse_non_finite([{"y": np.array([1.0, value])}], "net")
    assert share([1.0], [[1.0]]) == np.inf
    assert measure_parity({"y": np.ones(2)}, {}).share == np.inf


def test_outputs_are_compared_relative_to_their_scale():
    large, small = np.array([1000.0]), np.array([10.0])
    both = measure_parity(
        {"a": large, "b": small}, {"a": large, "b": small + 5}
    )
    assert (both.output, both.share) == ("b", 0.5)
    # Small outputs have the rounding errors of the large ones.
    tiny = np.array([1e-9])
    both = measure_parity({"a": large, "b": tiny}, {"a": large, "b": -tiny})
    assert both.share < 1e-8


def test_denormal_outputs_may_be_rounded_to_zero():
    denormal, normal = np.float32([4.3e-39]), np.float32([4.3e-37])
    for tiny, agrees in ((denormal, True), (normal, False)):
        for pair in ((tiny, 0 * tiny), (0 * tiny, tiny)):
            both = measure_parity({"y": pair[0]}, {"y": pair[1]})
            assert both.within(1e-4) == agrees


def test_integers_and_text_must_be_equal():
    assert share([3, 900], [7, 900]) == 0.5
    assert share([True, False], [True, False]) == 0.0
    assert share(["a", "b"], np.array([b"a", b"c"], object)) == 0.5
    assert share([1 + 1j, 2], [1 - 1j, 2]) == 1.0


def test_constant_outputs_are_doubted():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 7, 3))
    for batches in (
        [first],
        [first, first[:1]],
        [first[:1], second[:1]],
        [first @ first.T, first[:1] @ first[:1].T],  # Batch by batch.
        [np.float32(1), np.float32(2)],
        [np.array(["a", "b"])],
        [np.arange(7)],
    ):
        assert not doubts([{"y": value} for value in batches])
    for batches in (
        [np.ones((7, 3))],
        [first[:1]],
        [first[:1], first[:1]],
        [np.array(["a", "a"])],
    ):
        assert len(doubts([{"y": value} for value in batches])) == 1
    # One output that varies is sufficient.
    assert not doubts([{"x": np.ones((7, 3)), "y": first}])
