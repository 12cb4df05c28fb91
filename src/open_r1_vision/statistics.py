# SPDX-License-Identifier: Apache-2.0
"""How sure a held-out accuracy, and a difference between two of them, can be."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Proportion:
    """A share of successes with its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class PairedChange:
    """What changed between two measurements of the same rows.

    Attributes:
        gained: rows that only the second got right.
        lost: rows that only the first got right.
        p_value: of McNemar's exact test that gains and losses are equally likely.
    """

    difference: float
    gained: int
    lost: int
    p_value: float


def wilson_interval(scores: Sequence[float]) -> Proportion:
    """Share of full marks with Wilson's 95 % interval (1927).

    Args:
        scores: one score a row; 1 is a success, everything below is none.

    Raises:
        ValueError: no scores.
    """
    from scipy.stats import binomtest

    if not scores:
        raise ValueError("There are no scores, so there is no share of successes: evaluate at least one row.")
    successes = sum(score >= 1 for score in scores)
    interval = binomtest(successes, len(scores)).proportion_ci(confidence_level=0.95, method="wilson")
    return Proportion(successes / len(scores), interval.low, interval.high, len(scores))


def mean_interval(values: Sequence[float]) -> Proportion:
    """The mean of values in [0, 1] with Student's 95 % interval, for shares that are neither 0 nor 1.

    Raises:
        ValueError: fewer than two values.
    """
    from scipy.stats import sem, t

    if len(values) < 2:
        raise ValueError(f"There is no interval for the mean of {len(values)} value(s): give at least two.")
    mean = math.fsum(values) / len(values)
    half = float(sem(values) * t.ppf(0.975, len(values) - 1))
    return Proportion(mean, max(mean - half, 0.0), min(mean + half, 1.0), len(values))


def mcnemar(before: Sequence[float], after: Sequence[float]) -> PairedChange:
    """McNemar's exact test (1947) on two scores of each row; p is 1 when no row changed.

    Raises:
        ValueError: the two don't cover the same number of rows, or none.
    """
    from scipy.stats import binomtest

    if len(before) != len(after) or not before:
        raise ValueError(
            f"{len(before)} scores before and {len(after)} after can't be paired: evaluate the same rows both times."
        )
    gained = sum(b < 1 <= a for b, a in zip(before, after, strict=True))
    lost = sum(a < 1 <= b for b, a in zip(before, after, strict=True))
    p_value = binomtest(min(gained, lost), gained + lost).pvalue if gained + lost else 1.0
    return PairedChange((gained - lost) / len(before), gained, lost, float(p_value))
