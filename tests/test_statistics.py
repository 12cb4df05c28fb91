# SPDX-License-Identifier: Apache-2.0
import pytest

from open_r1_vision.statistics import PairedChange, Proportion, mcnemar, wilson_interval


def test_wilson_interval():
    share = wilson_interval([1.0] * 683 + [0.0] * 317)
    assert (share.mean, share.count) == (0.683, 1000)
    assert (round(share.low, 3), round(share.high, 3)) == (0.654, 0.711)
    assert str(share) == "68.3 % [65.4, 71.1]"


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        # (z^2 / (n + z^2)) for none or all of n, z = 1.959964
        ([0, 0, 0, 0], Proportion(0.0, 0.0, 0.489890, 4)),
        ([1, 1, 1, 1], Proportion(1.0, 0.510110, 1.0, 4)),
        # only full marks are successes
        ([1, 0.99, 0.5, 0], Proportion(0.25, 0.045587, 0.699358, 4)),
    ],
)
def test_wilson_interval_of_few(scores, expected):
    share = wilson_interval(scores)
    assert (share.mean, share.count) == (expected.mean, expected.count)
    assert (share.low, share.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_no_scores():
    with pytest.raises(ValueError, match="There are no scores, .*evaluate at least one row"):
        wilson_interval([])


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    [(1, 5, 0.21875), (5, 1, 0.21875), (2, 4, 0.6875), (2, 10, 0.0386), (0, 0, 1.0), (0, 1, 1.0), (3, 3, 1.0)],
)
def test_mcnemar(lost, gained, p_value):
    before = [1.0] * lost + [0.0] * gained + [1.0, 0.0] * 4
    after = [0.0] * lost + [1.0] * gained + [1.0, 0.0] * 4
    change = mcnemar(before, after)
    assert (change.lost, change.gained) == (lost, gained)
    assert change.difference == pytest.approx((gained - lost) / len(before))
    assert change.p_value == pytest.approx(p_value, abs=5e-5)


def test_mcnemar_counts_only_full_marks():
    assert mcnemar([0.5, 0.9, 1.0], [0.9, 1.0, 1.0]) == PairedChange(pytest.approx(1 / 3), 1, 0, 1.0)


@pytest.mark.parametrize(("before", "after"), [([1.0], [1.0, 0.0]), ([], [])])
def test_unpaired_scores(before, after):
    message = f"{len(before)} scores before and {len(after)} after can't be paired: evaluate the same rows both times"
    with pytest.raises(ValueError, match=message):
        mcnemar(before, after)
