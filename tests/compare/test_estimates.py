# SPDX-License-Identifier: Apache-2.0
"""Means with intervals, and pass@k, against values worked out by hand."""

import math
import sys
from itertools import combinations

import numpy as np
import pytest

from open_r1_vision.compare import compare_runs, estimate, pass_at_k


def test_right_and_wrong_take_wilson():
    share = estimate([1.0] * 683 + [0.0] * 317)
    assert (share.mean, share.num_items, share.num_clusters, share.method) == (0.683, 1000, 1000, "Wilson")
    assert str(share) == "68.3 % [65.4, 71.1]"


@pytest.mark.parametrize(
    ("n", "half_width"),
    [(447, 4.6), (754, 3.6), (788, 3.5), (900, 3.3), (1000, 3.1), (1500, 2.5), (1740, 2.3), (3040, 1.8)],
)
def test_published_half_widths(n, half_width):
    low, high = estimate([1.0] * (n // 2) + [0.0] * (n - n // 2)).interval
    assert round(50 * (high - low), 1) == half_width


def test_graded_scores_take_student():
    # mean 0.4375, squared deviations 0.0039 + 0.0352 + 0.1914 + 0.3164 = 0.5469, sd sqrt(0.5469 / 3) = 0.42696,
    # error 0.21348, t of 3 degrees of freedom 3.182446
    share = estimate([0.5, 0.25, 0.0, 1.0])
    assert (share.mean, share.method) == (0.4375, "t")
    assert share.interval == (0.0, 1.0)  # 0.4375 +- 0.6794, cut to what a score can be
    low, high = estimate([0.5, 0.25, 0.0, 1.0] * 4).interval
    half = 2.131450 * math.sqrt(4 * 0.546875 / 15) / 4
    assert (low, high) == pytest.approx((0.4375 - half, 0.4375 + half), abs=1e-6)


PAIRS_OF_ITEMS = [*"aabbccddeeffgghhiijj"]


def test_clustered_error_by_hand():
    # ten sources of two items: four all right, four all wrong, two half right. The sums of residuals are 4 times 1,
    # 4 times -1 and twice 0; their squares add up to 8. Error sqrt(8) / 20 * sqrt(10 / 9), t of 9 degrees 2.262157
    values = [1, 1] * 4 + [0, 0] * 4 + [1, 0] * 2
    share = estimate(values, PAIRS_OF_ITEMS)
    half = 2.262157 * math.sqrt(8) / 20 * math.sqrt(10 / 9)
    assert (share.mean, share.num_items, share.num_clusters, share.method) == (0.5, 20, 10, "clustered t")
    assert share.interval == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    # without them it would be taken for much better known
    assert estimate(values).interval == pytest.approx((0.2993, 0.7007), abs=1e-4)


def test_clusters_of_one_are_none():
    assert estimate([1, 0, 1], ["a", None, "b"]) == estimate([1, 0, 1])
    assert estimate([1, 0, 1], [None] * 3) == estimate([1, 0, 1])
    # two items without cluster are not of one cluster
    assert estimate([1, 0, 1, 1], [None, None, "a", "a"]).num_clusters == 3


def test_no_spread_is_not_taken_for_certainty():
    # 0 of 10 sources were seen to be otherwise: up to u = 1 - 0.025^(1/10) = 0.3085 of them may be
    share = estimate([1.0] * 20, PAIRS_OF_ITEMS)
    assert share.interval == pytest.approx((1 - 0.308498, 1.0), abs=1e-6)
    assert share.method == "exact bound"
    # of five graded items u = 1 - 0.025^(1/5) = 0.5218; the others may be all right or all wrong
    assert estimate([0.5] * 5).interval == pytest.approx((0.5 - 0.260912, 0.5 + 0.260912), abs=1e-6)


@pytest.mark.parametrize(("values", "clusters"), [([0.5], None), ([1, 0, 1], ["a"] * 3)])
def test_no_interval_from_one(values, clusters):
    share = estimate(values, clusters)
    assert share.interval is None
    assert str(share) == f"{100 * share.mean:.1f} %"


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ([], None, "There are no values"),
        ([0.5, 1.5], None, r"1.5 is no score in \[0, 1\]: scale"),
        ([0.5, float("nan")], None, "nan is no score"),
        ([0.5, 1.0], ["a"], "1 clusters for 2 values: give one for each"),
    ],
)
def test_bad_values(values, clusters, message):
    with pytest.raises(ValueError, match=message):
        estimate(values, clusters)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_by_enumeration(k):
    counts = [(0, 5), (1, 5), (3, 5), (5, 5), (2, 8), (7, 8)]
    expected = []
    for correct, count in counts:
        draws = list(combinations([True] * correct + [False] * (count - correct), k))
        expected.append(sum(map(any, draws)) / len(draws))
    assert pass_at_k(*zip(*counts, strict=True), k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("correct", "counts", "k", "message"),
    [
        ([1], [4], 5, "an item here has 4: set k between 1 and 4, or evaluate more samples"),
        ([1, 1], [8, 2], 4, "pass@4 needs at least 4"),
        ([1], [4], 0, "pass@0"),
        ([5], [4], 1, "must be between 0 and the number of samples"),
        ([1], [4, 4], 1, "1 counts of right samples and 2 of all"),
        ([], [], 1, "0 counts"),
    ],
)
def test_bad_pass_at_k(correct, counts, k, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(correct, counts, k)


def test_intervals_hold_what_they_promise():
    """95 % intervals cover the truth in about 95 %, and without their clusters they would not."""
    rng = np.random.default_rng(0)
    clusters = [str(place // 6) for place in range(240)]
    covered = {"clustered": 0, "ignored": 0, "wilson": 0}
    rounds = 400
    for _ in range(rounds):
        values = (rng.uniform(size=240) < np.repeat(rng.uniform(size=40), 6)).astype(float)
        independent = (rng.uniform(size=240) < 0.5).astype(float)
        intervals = {
            "clustered": estimate(values, clusters).interval,
            "ignored": estimate(values).interval,
            "wilson": estimate(independent).interval,
        }
        for name, (low, high) in intervals.items():
            covered[name] += low <= 0.5 <= high
    # binomial error of a share of 0.95 over 400 rounds is 0.011
    assert 0.92 <= covered["clustered"] / rounds <= 0.98
    assert 0.92 <= covered["wilson"] / rounds <= 0.98
    # the variance within a cluster is 1/6 of items that share 1/12: error too small by sqrt(1 + 5/3) = 1.6
    assert covered["ignored"] / rounds < 0.85


def test_statsmodels_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"statsmodels is not installed.*pip install 'open_r1_vision\[eval\]'"
    ):
        compare_runs(["a", "b"])
