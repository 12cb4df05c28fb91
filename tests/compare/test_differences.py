# SPDX-License-Identifier: Apache-2.0
"""Paired differences and their tests, against published p-values and values worked out by hand."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import t

from open_r1_vision.compare import holm, paired_difference, smallest_difference

PAIRS_OF_ITEMS = [*"aabbccddeeffgghhiijj"]


def discordant(lost, gained, same=8):
    first = [1.0] * lost + [0.0] * gained + [1.0, 0.0] * same
    return first, [0.0] * lost + [1.0] * gained + first[lost + gained :]


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"), [(1, 5, "0.2188"), (2, 4, "0.6875"), (2, 10, "0.0386"), (0, 0, "1.0000")]
)
def test_published_mcnemar(lost, gained, p_value):
    result = paired_difference(*discordant(lost, gained))
    assert (result.test, result.reason) == ("exact McNemar", "")
    assert (result.lost, result.gained, f"{result.p_value:.4f}") == (lost, gained, p_value)
    assert result.difference == pytest.approx((gained - lost) / (16 + lost + gained))


def test_interval_of_the_difference():
    # 4 lost, 16 gained of 100: mean 0.12, variance (0.2 - 0.0144) 100 / 99, error 0.0433, t of 99 degrees 1.984217
    result = paired_difference(*discordant(4, 16, same=40))
    half = 1.984217 * math.sqrt((0.2 - 0.12**2) / 99)
    assert result.interval == pytest.approx((0.12 - half, 0.12 + half), abs=1e-6)


def test_equal_runs_are_not_taken_for_certainly_equal():
    # of no item of 20 that differs, u = 1 - 0.025^(1/20) = 0.1684 of all may
    result = paired_difference([1.0, 0.0] * 10, [1.0, 0.0] * 10)
    assert (result.difference, result.p_value, result.smallest) == (0.0, 1.0, None)
    assert result.interval == pytest.approx((-0.168433, 0.168433), abs=1e-6)


def test_graded_scores_are_permuted():
    first, second = [0.5, 0.25, 0.0, 1.0, 0.5], [0.75, 1.0, 0.0, 0.5, 0.75]
    change = np.subtract(second, first)
    sums = [abs(np.dot(signs, change)) for signs in product((-1, 1), repeat=5)]
    result = paired_difference(first, second)
    assert result.test == "permutation"
    assert "not right or wrong" in result.reason
    assert result.p_value == pytest.approx(np.mean(np.array(sums) >= change.sum() - 1e-9))
    assert (result.gained, result.lost) == (3, 1)


def test_many_permutations_are_drawn_from_a_seed():
    rng = np.random.default_rng(3)
    first = rng.integers(0, 9, 300) / 8
    second = np.clip(first + rng.choice([-0.125, 0.0, 0.125], 300, p=[0.15, 0.6, 0.25]), 0, 1)
    one, two = (paired_difference(first.tolist(), second.tolist()) for _ in range(2))
    assert one == two
    change = second - first
    # close to the normal approximation of the sum of independent signs
    z = abs(change.sum()) / math.sqrt((change**2).sum())
    assert one.p_value == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.25)


@pytest.mark.parametrize("change", [[0.0, 0.0], [0.5, 0.0]])
def test_too_little_to_permute(change):
    assert paired_difference([0.5, 0.25], np.add([0.5, 0.25], change).tolist()).p_value == 1.0


def test_clustered_difference_by_hand():
    # of ten sources of two items four are gained whole: mean 0.4, sums of residuals 4 times 1.2 and 6 times -0.8, and
    # their squares add up to 9.6; error sqrt(9.6) / 20 * sqrt(10 / 9) = 0.1633
    result = paired_difference([0.0] * 20, [1, 1] * 4 + [0, 0] * 6, PAIRS_OF_ITEMS)
    error = math.sqrt(9.6) / 20 * math.sqrt(10 / 9)
    assert (result.difference, result.num_clusters, result.test) == (0.4, 10, "clustered t")
    half = 2.262157 * error
    assert result.interval == pytest.approx((0.4 - half, 0.4 + half), abs=1e-6)
    assert result.p_value == pytest.approx(2 * t.sf(0.4 / error, 9))
    assert "McNemar refused: the 20 items come from 10 sources" in result.reason
    # McNemar would take them for eight independent gains: p 0.008 instead of 0.037
    assert paired_difference([0.0] * 20, [1, 1] * 4 + [0, 0] * 6).p_value == pytest.approx(2 / 2**8)


def test_sources_that_all_change_alike():
    # no error to divide by: five sources of five in one direction, 2 / 2^5
    result = paired_difference([0.0] * 10, [1, 0] * 5, [*"aabbccddee"])
    assert (result.test, result.p_value) == ("sign of clusters", pytest.approx(2 / 2**5))
    unseen = 1 - 0.025 ** (1 / 5)
    assert result.interval == pytest.approx((0.5 - 1.5 * unseen, 0.5 + 0.5 * unseen))


def test_one_source_says_nothing():
    result = paired_difference([0.0, 0.0], [1.0, 0.0], ["a", "a"])
    assert (result.difference, result.interval, result.p_value, result.smallest) == (0.5, None, None, None)


def test_a_test_can_be_asked_for():
    first, second = discordant(1, 5)
    result = paired_difference(first, second, test="permutation")
    # six signs, as McNemar's
    assert (result.test, result.p_value) == ("permutation", pytest.approx(0.21875))
    assert paired_difference(first, second, test="mcnemar").test == "exact McNemar"


@pytest.mark.parametrize(
    ("first", "second", "clusters", "test", "message"),
    [
        ([0.0] * 3, [1.0] * 3, [*"aab"], "mcnemar", "McNemar refused: the 3 items come from 2 sources, .* clustered"),
        ([0.0] * 3, [1.0] * 3, [*"aab"], "permutation", "A permutation test of single items is refused: 3 items come"),
        ([0.5, 1.0], [1.0, 1.0], None, "mcnemar", "McNemar does not apply: .*graded.* auto or permutation"),
        ([0.0, 1.0], [1.0, 1.0], None, "clustered", "No two items share a source"),
        ([0.0, 1.0], [1.0, 1.0], None, "welch", "There is no test 'welch': set one of auto, mcnemar"),
        ([0.0], [1.0, 1.0], None, "auto", "1 scores and 2 can't be paired"),
        ([], [], None, "auto", "0 scores and 0 can't be paired"),
        ([0.0, 2.0], [1.0, 1.0], None, "auto", r"Scores reach from 0 to 2: scale them to \[0, 1\]"),
        ([0.0, float("nan")], [1.0, 1.0], None, "auto", "Scores reach from nan"),
    ],
)
def test_bad_pairs(first, second, clusters, test, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(first, second, clusters, test)


@pytest.mark.parametrize(
    ("n", "points"),
    [(447, 5.9), (754, 4.6), (788, 4.5), (900, 4.2), (1000, 4.0), (1500, 3.2), (1740, 3.0), (3040, 2.3)],
)
def test_published_smallest_differences(n, points):
    assert round(100 * smallest_difference(n, 0.2), 1) == points


def test_smallest_difference_uses_the_discordance_that_is_there():
    # (z_0.975 + z_0.8) sqrt(0.2 / 2000)
    result = paired_difference(*discordant(150, 250, same=800))
    assert result.smallest == pytest.approx(2.801585 * math.sqrt(0.2 / 2000), rel=2e-3)
    # with sources of two that change together it is as if there were half as many items
    doubled = [list(np.repeat(side, 2)) for side in discordant(150, 250, same=800)]
    sources = np.repeat(np.arange(2000), 2).astype(str).tolist()
    assert paired_difference(*doubled, sources).smallest == pytest.approx(result.smallest)


def test_smallest_difference_is_found_four_times_in_five():
    """80 % power is what the t test has at that difference."""
    rng = np.random.default_rng(0)
    smallest = smallest_difference(400, 0.25)
    gain, loss = (0.25 + smallest) / 2, (0.25 - smallest) / 2
    change = rng.choice([1.0, -1.0, 0.0], size=(4000, 400), p=[gain, loss, 0.75])
    statistic = change.mean(axis=1) / (change.std(axis=1, ddof=1) / 20)
    # binomial error 0.006; the discordance of a true difference is a little below its mean square
    assert np.mean(np.abs(statistic) > t.ppf(0.975, 399)) == pytest.approx(0.8, abs=0.03)


def test_nothing_to_see():
    assert smallest_difference(3, 0.2) is None
    assert smallest_difference(1000, 0.0) is None
    with pytest.raises(ValueError, match="A discordance of -1"):
        smallest_difference(1000, -1.0)
    with pytest.raises(ValueError, match="power of 0.01"):
        smallest_difference(1000, 0.2, power=0.01)


def test_holm_by_hand():
    # sorted 0.01, 0.03, 0.04: 3 * 0.01, 2 * 0.03, then 0.04, but not below the one before
    assert holm([0.01, 0.04, None, 0.03]) == [pytest.approx(0.03), pytest.approx(0.06), None, pytest.approx(0.06)]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([None]) == [None]
