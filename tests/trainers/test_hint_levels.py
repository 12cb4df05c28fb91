# SPDX-License-Identifier: Apache-2.0
"""Levels of a row and the choice among them, worked out by hand."""

import pytest

from open_r1_vision.trainers.hint_levels import choose, has_signal, is_solved, ladder


@pytest.mark.parametrize(
    ("num_steps", "num_levels", "max_share", "expected"),
    [
        (6, 3, None, [(0, 0), (1, 2), (2, 4)]),
        (7, 3, None, [(0, 0), (1, 2), (2, 4)]),  # floor(7/3), floor(14/3)
        (3, 3, None, [(0, 0), (1, 1), (2, 2)]),
        (2, 3, None, [(0, 0), (2, 1)]),  # level 1 would give floor(2/3) = 0 steps again
        (1, 3, None, [(0, 0)]),
        (0, 3, None, [(0, 0)]),
        (5, 2, None, [(0, 0), (1, 2)]),
        (9, 1, None, [(0, 0)]),
        (10, 2, 0.7, [(0, 0), (1, 7)]),
        (7, 3, 1.0, [(0, 0), (1, 3), (2, 7)]),
        (9, 4, 2 / 3, [(0, 0), (1, 2), (2, 4), (3, 6)]),
        (4, 9, 0.5, [(0, 0), (4, 1), (8, 2)]),  # 4 * 0.5 * m / 8 = m / 4
    ],
)
def test_ladder(num_steps, num_levels, max_share, expected):
    assert [(rung.level, rung.num_steps) for rung in ladder(num_steps, num_levels, max_share)] == expected


def test_the_paper_is_the_default():
    """With M levels the share (M - 1) / M at the last level is the formula floor(L * m / M)."""
    for num_levels in (2, 3, 4, 5):
        for num_steps in range(40):
            given = ladder(num_steps, num_levels, (num_levels - 1) / num_levels)
            assert given == ladder(num_steps, num_levels), (num_steps, num_levels)


@pytest.mark.parametrize(
    ("scores", "threshold", "solved", "signal"),
    [
        ([0.0, 0.0], 0.0, False, False),
        ([0.0, 0.6], 0.0, True, True),
        ([0.0, 0.6], 0.6, False, True),
        ([1.0, 1.0], 0.0, True, False),
        ([None, None], 0.0, True, False),
        ([None, 0.0], 0.0, False, False),
        ([None, 0.0, 1.0], 0.0, True, True),
    ],
)
def test_groups(scores, threshold, solved, signal):
    assert is_solved(scores, threshold) is solved
    assert has_signal(scores) is signal


@pytest.mark.parametrize(
    ("solved", "chosen"),
    [([True], 0), ([False], 0), ([False, True, True], 1), ([False, False, True], 2), ([False, False, False], 0)],
)
def test_choose(solved, chosen):
    assert choose(solved) == chosen
