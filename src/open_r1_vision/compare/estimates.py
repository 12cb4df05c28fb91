# SPDX-License-Identifier: Apache-2.0
"""How sure the mean over the items of a benchmark can be, with and without clusters, and pass@k.

Items are the unit throughout: an item that was sampled several times is one value, the mean over its samples, and
items of one cluster (questions about one image, variants of one problem) are not counted as if they were independent.
References: Miller 2024, "Adding Error Bars to Evals", arXiv 2411.00640; Chen et al. 2021, arXiv 2107.03374.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from open_r1_vision.statistics import wilson_interval

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A mean over items with its 95 % interval; both in [0, 1].

    Attributes:
        mean: over items, each counted once.
        interval: None where there is none: one graded item, or one cluster.
        num_items: values that the mean is over.
        num_clusters: independent groups of them; `num_items` where no two items share one.
        method: `Wilson`, `t`, `clustered t`, or `exact bound` where all clusters agree.
    """

    mean: float
    interval: Interval | None
    num_items: int
    num_clusters: int
    method: str

    def __str__(self) -> str:
        if self.interval is None:
            return f"{100 * self.mean:.1f} %"
        return f"{100 * self.mean:.1f} % [{100 * self.interval[0]:.1f}, {100 * self.interval[1]:.1f}]"


def require_statsmodels() -> None:
    """Fail early where the statistics of a comparison can't be computed.

    Raises:
        ModuleNotFoundError: statsmodels is not installed.
    """
    if find_spec("statsmodels") is None:
        raise ModuleNotFoundError(
            "statsmodels is not installed, and clustered errors, Holm's correction and power come from it: "
            "pip install 'open_r1_vision[eval]', or statsmodels alone.",
            name="statsmodels",
        )


def estimate(values: Sequence[float], clusters: Sequence[str | None] | None = None) -> Estimate:
    """The mean of one value per item, with the interval that suits the values.

    - all 0 or 1, no clusters: Wilson's score interval (1927), by scipy's `binomtest`;
    - graded, or means of samples, no clusters: Student's t with n - 1 degrees of freedom, by scipy's `ttest_1samp`;
    - clusters: standard error sqrt(sum over clusters of (sum of its residuals)^2) / n, times sqrt(G / (G - 1)) for G
      clusters, with t of G - 1 degrees of freedom, by statsmodels' `OLS` (Miller 2024, eq. 4, and its small-sample
      correction);
    - no spread at all, which these would take for certainty: what can't be excluded at 97.5 % is that a share
      u = 1 - 0.025^(1/G) of the clusters is different, so [m - u m, m + u (1 - m)].

    Args:
        values: one for each item, in [0, 1].
        clusters: for each item the name of its cluster, None for an item that shares nothing; None for no clusters.

    Raises:
        ValueError: no values, values outside [0, 1], or not as many clusters as values.
    """
    array = _check(values, 0.0)
    labels, num_clusters = label_clusters(clusters, len(array))
    mean = float(array.mean())
    if labels is None and np.isin(array, (0.0, 1.0)).all():
        share = wilson_interval(array.tolist())
        return Estimate(mean, (share.low, share.high), len(array), num_clusters, "Wilson")
    interval, _, method = mean_and_test(array, labels, num_clusters, 0.0)
    return Estimate(mean, interval, len(array), num_clusters, method)


def label_clusters(clusters: Sequence[str | None] | None, num_items: int) -> tuple[np.ndarray | None, int]:
    """A number for each item's cluster, and how many clusters there are; None where each item is its own.

    Raises:
        ValueError: not as many clusters as items.
    """
    if clusters is None:
        return None, num_items
    if len(clusters) != num_items:
        raise ValueError(
            f"{len(clusters)} clusters for {num_items} values: give one for each, None where it has none."
        )
    names = [(name,) if name is not None else (None, place) for place, name in enumerate(clusters)]
    numbers: dict[tuple, int] = {}
    labels = np.array([numbers.setdefault(name, len(numbers)) for name in names])
    return (None if len(numbers) == num_items else labels), len(numbers)


def mean_and_test(
    values: np.ndarray, labels: np.ndarray | None, num_clusters: int, low: float
) -> tuple[Interval | None, float | None, str]:
    """The t interval of a mean of values in [low, 1], p that it is 0, and the method; see :func:`estimate`.

    Args:
        values: (items,), float.
        labels: (items,), numbers of clusters; None where each item is its own.
        num_clusters: how many clusters there are.
        low: the least value there can be.
    """
    if num_clusters < 2:
        return None, None, "none"
    mean = float(values.mean())
    sums = values - mean if labels is None else np.bincount(labels, weights=values - mean)
    if np.allclose(sums, 0.0, atol=1e-12):
        from scipy.stats import binomtest

        unseen = binomtest(0, num_clusters).proportion_ci(method="exact").high
        interval = (mean - unseen * (mean - low), mean + unseen * (1.0 - mean))
        return interval, (1.0 if mean == 0.0 else float(binomtest(0, num_clusters).pvalue)), "exact bound"
    if labels is None:
        from scipy.stats import ttest_1samp

        result: Any = ttest_1samp(values, 0.0)
        bounds, p_value, method = result.confidence_interval(), result.pvalue, "t"
    else:
        from statsmodels.regression.linear_model import OLS

        fit = OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": labels}, use_t=True)
        bounds, p_value, method = fit.conf_int()[0], fit.pvalues[0], "clustered t"
    return (max(float(bounds[0]), low), min(float(bounds[1]), 1.0)), float(p_value), method


def pass_at_k(num_correct: Sequence[int], num_samples: Sequence[int], k: int) -> list[float]:
    """For each item the chance that k of its samples, drawn without replacement, hold a right one.

    1 - C(n - c, k) / C(n, k) for c right samples of n (Chen et al. 2021, eq. 1), by scipy's `hypergeom`. It is
    unbiased for k independent samples; :func:`estimate` of it gives the mean over items with its interval.

    Args:
        num_correct: for each item its right samples.
        num_samples: for each item all of its samples; they may differ.
        k: at least 1, at most the fewest samples that an item has.

    Raises:
        ValueError: k that some item has too few samples for, or counts that don't fit.
    """
    from scipy.stats import hypergeom

    if len(num_correct) != len(num_samples) or not num_correct:
        raise ValueError(
            f"{len(num_correct)} counts of right samples and {len(num_samples)} of all: give both per item."
        )
    if any(not 0 <= correct <= count for correct, count in zip(num_correct, num_samples, strict=True)):
        raise ValueError("Right samples must be between 0 and the number of samples of their item.")
    if not 1 <= k <= min(num_samples):
        raise ValueError(
            f"pass@{k} needs at least {max(k, 1)} sample(s) of each item, and k of at least 1; an item here has "
            f"{min(num_samples)}: set k between 1 and {min(num_samples)}, or evaluate more samples."
        )
    return hypergeom.sf(0, np.asarray(num_samples), np.asarray(num_correct), k).tolist()


def _check(values: Sequence[float], low: float) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not array.size:
        raise ValueError("There are no values, so there is no mean: give one value for each item.")
    outside = array[~((array >= low) & (array <= 1.0))]
    if outside.size:
        raise ValueError(f"{outside[0]} is no score in [{low:g}, 1]: scale scores to that range.")
    return array
