# SPDX-License-Identifier: Apache-2.0
import math

import pytest

from open_r1_vision.trainers.schedules import kl_weight


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("constant", 0, 0.04),
        ("constant", 100, 0.04),
        ("linear", 0, 0.04),
        ("linear", 25, 0.03),
        ("linear", 50, 0.02),
        ("linear", 100, 0.0),
        ("cosine", 0, 0.04),
        ("cosine", 25, 0.02 + 0.02 * math.sqrt(0.5)),
        ("cosine", 50, 0.02),
        ("cosine", 75, 0.02 - 0.02 * math.sqrt(0.5)),
        ("cosine", 100, 0.0),
        ("cosine", 101, 0.0),
        ("linear", 1000, 0.0),
    ],
)
def test_weight(schedule, step, expected):
    assert kl_weight(step, 100, 0.04, 0.0, schedule) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [("linear", 0, 0.5), ("linear", 3, 0.2), ("linear", 4, 0.1), ("cosine", 2, 0.3), ("cosine", 4, 0.1)],
)
def test_weight_with_a_floor(schedule, step, expected):
    assert kl_weight(step, 4, 0.5, 0.1, schedule) == pytest.approx(expected, abs=1e-12)


def test_a_floor_does_not_touch_a_constant_weight():
    assert kl_weight(3, 4, 0.5, 0.1, "constant") == 0.5


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_weight_never_rises_and_stays_above_zero_until_the_end(schedule):
    weights = [kl_weight(step, 1000, 0.04, 0.0, schedule) for step in range(1001)]
    assert weights == sorted(weights, reverse=True)
    # TRL can't start a KL term within a generation batch that was drawn without one
    assert min(weights[:-1]) > 0


def test_unknown_schedule():
    with pytest.raises(ValueError, match="Unknown beta_schedule 'cosin': set one of constant, linear, cosine."):
        kl_weight(0, 1, 0.04, 0.0, "cosin")


@pytest.mark.parametrize(("start", "floor"), [(0.04, 0.05), (0.04, -0.01), (-0.1, 0.0), (0.0, 0.1), (math.nan, 0.0)])
def test_floor_outside_the_range(start, floor):
    with pytest.raises(
        ValueError, match=f"beta_floor is {floor}, but the weight falls from beta = {start}: set 0 <= "
    ):
        kl_weight(0, 1, start, floor, "linear")
