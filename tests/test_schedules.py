import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tf_gems import registry
from tf_gems import schedules
from tf_gems.layers import RoundMask
from tf_gems.layers import TopKMask
from tf_gems.layers.gem_layer import MASKS
from tf_gems.schedules import geometric_counts

RESNET20 = 268_336


@pytest.mark.parametrize(
    "percent, freezes, exact, reference",
    [
        (3.72, 29, 9_982, 9_977),
        (1.44, 29, 3_864, 3_861),
        (0.59, 29, 1_583, 1_580),
        (0.59, 18, 1_583, 1_581),
        (50.0, 18, 134_168, 134_161),
    ],
)
def test_counts_match_paper_resnet20(percent, freezes, exact, reference):
    # The authors' conversion of the density, including its rounding error.
    density = 1.0 - (1.0 - percent / 100)
    assert geometric_counts(RESNET20, density, freezes)[-1] == exact
    counts = geometric_counts(RESNET20, density, freezes, "reference")
    assert counts[-1] == reference


@settings(deadline=None)
@given(
    st.integers(1, 10**6),
    st.floats(0.001, 1.0),
    st.integers(1, 60),
)
def test_counts(size, density, freezes):
    exact = geometric_counts(size, density, freezes)
    assert len(exact) == freezes + 1
    assert exact[0] == size
    assert exact[-1] == round(size * density)
    assert exact == sorted(exact, reverse=True)

    # The authors' main.py: rate = 1 - s^(1/N). Each freeze removes ceil(rate *
    # alive).
    rate, alive = 1 - density ** (1 / freezes), size
    expected = [size]
    for _ in range(freezes):
        alive -= math.ceil(rate * alive)
        expected.append(alive)
    assert geometric_counts(size, density, freezes, "reference") == expected


def test_counts_use_ceil():
    # 10000 * (1 - (1 - 0.8583)) rounds to 8583, but ceil removes 1418.
    counts = geometric_counts(10_000, 0.8583, 1, "reference")
    assert counts[-1] == 10_000 - math.ceil((1 - 0.8583) * 10_000)


def test_values():
    geometric = schedules.Geometric(initial=0.5, final=0.02)
    progress = np.linspace(0, 1, 11)
    values = np.array([geometric(t) for t in progress])
    assert values[0] == 0.5
    np.testing.assert_allclose(values[-1], 0.02)
    ratios = values[1:] / values[:-1]
    np.testing.assert_allclose(ratios, ratios[0])

    cubic = schedules.Polynomial(initial=0.1, final=0.9)
    # Zhu & Gupta, equation 1, with t0 = 0 and n * dt = 1.
    expected = 0.9 + (0.1 - 0.9) * (1 - progress) ** 3
    np.testing.assert_allclose([cubic(t) for t in progress], expected)
    assert schedules.Polynomial(1.0, 0.0, power=1)(0.25) == 0.75
    cosine = schedules.Cosine(0.3, 0.1)
    np.testing.assert_allclose(
        [cosine(i / 3) for i in range(4)], [0.3, 0.25, 0.15, 0.1]
    )
    assert schedules.Constant(3)(0.7) == 3.0


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.Constant(0.25),
        schedules.Cosine(0.5, 0.25),
        schedules.Geometric(0.5, 0.125),
        schedules.Polynomial(0.25, 0.75, 2.0),
        RoundMask(threshold=0.25),
        TopKMask(sparsity=0.75, scope="layerwise"),
    ],
)
def test_config_round_trip(schedule):
    config = keras.saving.serialize_keras_object(schedule)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(schedule)
    assert copy.get_config() == schedule.get_config()
    known = MASKS if hasattr(schedule, "scope") else {"x": type(schedule)}
    assert registry.get(config, known, "x").get_config() == (
        schedule.get_config()
    )
    assert type(schedule).from_config(schedule.get_config()).get_config() == (
        schedule.get_config()
    )


def test_get():
    schedule = schedules.Geometric(final=0.5)
    assert schedules.get(schedule) is schedule
    assert schedules.get(1e-4)(0.3) == 1e-4
    assert schedules.get(np.float32(0.5))(0.3) == 0.5
    assert isinstance(schedules.get("polynomial"), schedules.Polynomial)
    assert isinstance(registry.get("round", MASKS, "mask"), RoundMask)


@pytest.mark.parametrize(
    "identifier, message",
    [
        ("geometrik", "Unknown `weight`.*Did you mean 'geometric'"),
        (None, "`weight` must be.*weight=None.*'constant', 'cosine'"),
        (RoundMask(), "`weight` must be a name, a config or an instance"),
        (True, "`weight` must be.*weight=True"),
        (float("nan"), "`weight` must be.*weight=nan"),
    ],
)
def test_get_refuses(identifier, message):
    with pytest.raises(ValueError, match=message):
        schedules.get(identifier, "weight")


@pytest.mark.parametrize("ends", [(0, 1), (1, 0), (-1, 1)])
def test_geometric_refuses_nonpositive_values(ends):
    with pytest.raises(ValueError, match="must be positive.*Use `Polynomial`"):
        schedules.Geometric(*ends)


def test_polynomial_refuses_nonpositive_power():
    with pytest.raises(ValueError, match="Received: power=0"):
        schedules.Polynomial(power=0)
