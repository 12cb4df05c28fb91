# SPDX-License-Identifier: Apache-2.0
"""Two runs on the same items: the paired difference with its interval, the test that fits, and what n can see."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from open_r1_vision.compare.estimates import Interval, label_clusters, mean_and_test
from open_r1_vision.statistics import mcnemar

TESTS = ("auto", "mcnemar", "permutation", "clustered")
#: Sign flips drawn where not all can be tried; with them p is at least 2 / 10,000.
_FLIPS = 9_999
_SEED = 0


@dataclass(frozen=True)
class PairedDifference:
    """Second minus first, item by item; differences are in [-1, 1].

    Attributes:
        difference: mean over items.
        interval: 95 %; None for one cluster, or one graded item.
        num_items: pairs.
        num_clusters: independent groups of items; `num_items` where no two share one.
        gained: items that score higher in the second.
        lost: items that score lower in the second.
        p_value: of `test`, two-sided; None where there is one cluster.
        test: `exact McNemar`, `permutation`, `clustered t`, or `sign of clusters` where all clusters change alike, so
            that there is no error to divide by.
        reason: why the test is not McNemar's; empty where it is.
        smallest: the difference that this many items, differing as they do here, show with 80 % power at the 5 %
            level; None where no item differs, or there are too few.
    """

    difference: float
    interval: Interval | None
    num_items: int
    num_clusters: int
    gained: int
    lost: int
    p_value: float | None
    test: str
    reason: str
    smallest: float | None


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[str | None] | None = None,
    test: str = "auto",
) -> PairedDifference:
    """The mean of second - first over items, its 95 % interval, and a p-value.

    The interval is Student's t of the differences, clustered where items share a cluster (Miller 2024, arXiv
    2411.00640, section 4); see :func:`open_r1_vision.compare.estimate`. The test is, with `auto`,

    - McNemar's exact test where all scores are 0 or 1 and items are independent (1947): gains and losses are equally
      likely, p = P(Binomial(gained + lost, 1/2) is as uneven);
    - a permutation test where scores are graded or means of samples: under the null hypothesis each difference has
      either sign with the same chance; all signs are tried up to 13 differing items, 9,999 drawn (seeded) beyond;
    - t of the clustered error where items share clusters, with clusters - 1 degrees of freedom.

    Args:
        first: one score for each item, in [0, 1].
        second: of the same items in the same order.
        clusters: for each item the name of its cluster, None where it has none.
        test: one of `TESTS`; a test that doesn't fit is refused.

    Raises:
        ValueError: scores that can't be paired, or a test that doesn't fit them.
    """
    before, after = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if before.shape != after.shape or before.ndim != 1 or not before.size:
        raise ValueError(
            f"{before.size} scores and {after.size} can't be paired: give one of each for the same items, at "
            "least one."
        )
    both = np.concatenate([before, after])
    if not ((both >= 0) & (both <= 1)).all():
        raise ValueError(f"Scores reach from {both.min():g} to {both.max():g}: scale them to [0, 1].")
    labels, num_clusters = label_clusters(clusters, len(before))
    change = after - before
    interval, p_value, method = mean_and_test(change, labels, num_clusters, -1.0)
    name, reason = _choose(test, bool(np.isin(both, (0.0, 1.0)).all()), labels is not None, num_clusters, len(before))
    if name == "exact McNemar":
        p_value = mcnemar(before.tolist(), after.tolist()).p_value
    elif name == "permutation":
        p_value = _flip_signs(change)
    elif method == "exact bound":
        name = "sign of clusters"
    return PairedDifference(
        difference=float(change.mean()),
        interval=interval,
        num_items=len(change),
        num_clusters=num_clusters,
        gained=int((change > 0).sum()),
        lost=int((change < 0).sum()),
        p_value=p_value,
        test=name,
        reason=reason,
        smallest=_smallest(change, labels, num_clusters),
    )


def smallest_difference(num_items: int, discordance: float, power: float = 0.8, level: float = 0.05) -> float | None:
    """The true difference that a paired comparison finds significant with the given chance, in [0, 1].

    e sqrt(discordance), where e is the effect size that statsmodels' `TTestPower` finds for that many pairs; for many
    pairs (z_0.975 + z_0.8) sqrt(discordance / n) = 2.80 sqrt(discordance / n) (Miller 2024, arXiv 2411.00640, section
    5). 1,000 items of which 20 % differ show 4.0 points.

    Args:
        num_items: pairs; of clustered items the number of clusters.
        discordance: the mean square of a pair's difference: for right and wrong the share of items that are right in
            only one of the two.
        power: chance to find it.
        level: of the two-sided test.

    Returns:
        None for fewer than 4 items, which show nothing, and where no pair differs, which says nothing of how many
        would.

    Raises:
        ValueError: a discordance that is negative, or a power or level that is no chance.
    """
    from statsmodels.stats.power import TTestPower

    if discordance < 0 or not 0 < level < power < 1:
        raise ValueError(
            f"A discordance of {discordance:g}, power of {power:g} and level of {level:g} give no smallest "
            "difference: set a discordance of at least 0, and a power between the level and 1."
        )
    if num_items < 4 or discordance == 0:
        return None
    effect = TTestPower().solve_power(nobs=num_items, alpha=level, power=power, alternative="two-sided")
    return float(np.squeeze(effect)) * discordance**0.5


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) adjusted p-values: below 0.05 in all the chance of any false finding is at most 5 %.

    Sorted, the i-th of m (from 0) becomes the largest of (m - j) p_j for j up to i, at most 1; by statsmodels'
    `multipletests`. None stays None and is no test.
    """
    from statsmodels.stats.multitest import multipletests

    known = [p for p in p_values if p is not None]
    adjusted = iter(multipletests(known, method="holm")[1].tolist() if known else [])
    return [None if p is None else next(adjusted) for p in p_values]


def _choose(wanted: str, is_binary: bool, is_clustered: bool, num_clusters: int, num_items: int) -> tuple[str, str]:
    """The test, and why it is not McNemar's."""
    if wanted not in TESTS:
        raise ValueError(f"There is no test {wanted!r}: set one of {', '.join(TESTS)}.")
    reason = ""
    if is_clustered:
        reason = (
            f"McNemar refused: the {num_items:,} items come from {num_clusters:,} sources, and items of one source "
            "are right or wrong together, so they are not the independent pairs it counts"
        )
    elif not is_binary:
        reason = "McNemar does not apply: scores are graded or means of several samples, not right or wrong"
    if is_clustered and wanted in ("mcnemar", "permutation"):
        detail = (
            reason if wanted == "mcnemar" else f"A permutation test of single items is refused: {num_items:,} items"
        )
        detail += "" if wanted == "mcnemar" else f" come from {num_clusters:,} sources and don't change independently"
        raise ValueError(f"{detail}. Set the test to auto or clustered, or score whole clusters.")
    if wanted == "mcnemar" and reason:
        raise ValueError(f"{reason}. Set the test to auto or permutation.")
    if is_clustered:
        return "clustered t", reason
    if wanted == "clustered":
        raise ValueError("No two items share a source, so there is nothing to cluster: set the test to auto.")
    if wanted == "permutation":
        return "permutation", reason or "asked for"
    return ("exact McNemar", "") if is_binary else ("permutation", reason)


def _flip_signs(change: np.ndarray) -> float:
    from scipy.stats import permutation_test

    # an item that did not change has no sign to flip; without them few changes can be tried in all ways
    moved = change[np.abs(change) > 1e-12]
    if moved.size < 2:
        return 1.0  # either sign of one change is as far from 0
    result = permutation_test(
        (moved,),
        lambda values, axis: values.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_FLIPS,
        batch=1_000,
        rng=np.random.default_rng(_SEED),
    )
    return float(result.pvalue)


def _smallest(change: np.ndarray, labels: np.ndarray | None, num_clusters: int) -> float | None:
    """By the error under the null hypothesis, sqrt(sum over clusters of (sum of its differences)^2) / n."""
    sums = change if labels is None else np.bincount(labels, weights=change)
    return smallest_difference(num_clusters, float((sums**2).sum()) * num_clusters / len(change) ** 2)
