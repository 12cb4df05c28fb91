# SPDX-License-Identifier: Apache-2.0
"""Missing verdicts: what they become, by hand, and when the run stops."""

import math

import pytest

from open_r1_vision.reasoners import FailureGuard, TooManyFailures, consecutive_groups, fill_failures

NAN = math.nan
# rewards: accuracy, judge; two groups of four, the judge failed on the second of each, and there on the third as well
REWARDS = [[1, 0.5], [0, NAN], [1, 1.0], [0, 0.0], [1, 1.0], [0, None], [0, NAN], [1, 0.5]]
FAILED = [[False, math.isnan(value if value is not None else NAN)] for _, value in REWARDS]
GROUPS = [0, 0, 0, 0, 1, 1, 1, 1]


def column(table, index):
    return [None if math.isnan(row[index]) else row[index] for row in table]


def test_group_mean():
    filled = fill_failures(REWARDS, FAILED, GROUPS, "group_mean")
    assert column(filled, 0) == [1, 0, 1, 0, 1, 0, 0, 1]
    assert column(filled, 1) == [0.5, 0.5, 1, 0, 1, 0.75, 0.75, 0.5]


def test_zero():
    assert column(fill_failures(REWARDS, FAILED, GROUPS, "zero"), 1) == [0.5, 0, 1, 0, 1, 0, 0, 0.5]


def test_drop_group_takes_every_reward_of_the_group():
    failed = [[False, False]] * 4 + FAILED[4:]
    rewards = [[1, 0.5]] * 4 + REWARDS[4:]
    filled = fill_failures(rewards, failed, GROUPS, "drop_group")
    assert column(filled, 0) == [1, 1, 1, 1, None, None, None, None]
    assert column(filled, 1) == [0.5, 0.5, 0.5, 0.5, None, None, None, None]


def test_abort():
    with pytest.raises(TooManyFailures, match="3 of 8 completions have no verdict, and on_failure is abort"):
        fill_failures(REWARDS, FAILED, GROUPS, "abort")
    fine = [[1.0], [NAN]]
    assert column(fill_failures(fine, [[False], [False]], [0, 0], "abort"), 0) == [1, None]


def test_a_group_without_any_verdict_teaches_nothing_and_keeps_the_mean():
    rewards = [[NAN], [NAN], [1.0], [0.5]]
    filled = fill_failures(rewards, [[True], [True], [False], [False]], [0, 0, 1, 1])
    assert column(filled, 0) == [0.75, 0.75, 1, 0.5]
    assert column(fill_failures([[NAN]] * 2, [[True]] * 2, [0, 0]), 0) == [0, 0]


def test_what_was_never_to_be_scored_stays_unscored():
    rewards = [[NAN, 1.0], [NAN, NAN], [NAN, 0.0]]
    failed = [[False, False], [False, True], [False, False]]
    filled = fill_failures(rewards, failed, [0, 0, 0])
    assert column(filled, 0) == [None, None, None]
    assert column(filled, 1) == [1, 0.5, 0]


def test_groups_may_be_spread_over_processes():
    # as when each of two processes holds half of each group: the groups decide, not the places
    rewards = [[1.0], [NAN], [0.0], [0.5]]
    failed = [[False], [True], [False], [False]]
    assert column(fill_failures(rewards, failed, ["a", "b", "a", "b"]), 0) == [1, 0.5, 0, 0.5]


def test_the_input_is_left_as_it_was():
    rewards = [[1.0], [NAN]]
    fill_failures(rewards, [[False], [True]], [0, 0])
    assert math.isnan(rewards[1][0])


def test_wrong_use():
    with pytest.raises(ValueError, match="on_failure is 'mean'"):
        fill_failures(REWARDS, FAILED, GROUPS, "mean")
    with pytest.raises(ValueError, match="shorter"):
        fill_failures(REWARDS, FAILED[:3], GROUPS)
    with pytest.raises(ValueError, match="7 completions can't be divided into groups of 2"):
        consecutive_groups(7, 2)
    assert consecutive_groups(6, 2) == [0, 0, 1, 1, 2, 2]


def test_the_guard_bears_failures_up_to_its_rate():
    guard = FailureGuard(0.2, window=100)
    assert guard.rate == 0
    assert guard.update(20, 100) == 0.2
    with pytest.raises(TooManyFailures, match=r"41 of the last 200 .*max_failure_rate 0.2 .*timeout: no answer"):
        FailureGuard(0.2, window=200).update(41, 200, "timeout: no answer")


def test_the_guard_forgets_what_lies_outside_its_window():
    guard = FailureGuard(0.2, window=100)
    guard.update(15, 60)
    assert guard.update(0, 60) == 0.125  # without the first, the window would not be full
    assert guard.update(5, 60) == pytest.approx(5 / 120)


def test_the_guard_stops_before_its_window_is_full_once_it_is_certain():
    guard = FailureGuard(0.2, window=1000)
    for _ in range(3):
        guard.update(64, 64)  # 192 failures: as many as the window bears
    with pytest.raises(TooManyFailures, match="256 of the last 256"):
        guard.update(64, 64)


def test_a_few_failures_at_the_start_are_borne():
    guard = FailureGuard(0.2, window=1000)
    assert guard.update(3, 4) == 0.75
