# SPDX-License-Identifier: Apache-2.0
"""From scores to metrics: means over items or groups of them, with 95 % intervals.

Everything but status `ok` scores 0. Of several samples of an item the mean counts once. The interval is Wilson's where
values are 0 or 1 and independent, Student's where they are graded, and that of clustered errors where items share a
source. Figures are over the items that have a gold answer.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from statistics import fmean

from open_r1_vision.evaluate.items import Item, Metric, Record, shared_source, source_of
from open_r1_vision.statistics import mean_interval, wilson_interval

logger = logging.getLogger(__name__)

#: Scores of an item's samples, by the item's index.
Scores = Mapping[str, list[float]]


def collect_scores(name: str, items: Sequence[Item], records: Sequence[Record]) -> dict[str, list[float]]:
    """The scores of each item that has a gold answer, in the order of its samples.

    Raises:
        ValueError: records of another benchmark, of items that are not there, doubled ones, or too few.
    """
    by_item: dict[str, dict[int, float]] = {item.index: {} for item in items}
    for record in records:
        if record.dataset != name:
            raise ValueError(
                f"A record is of the benchmark {record.dataset!r}, but {name!r} is asked for: give the records of one "
                "benchmark."
            )
        if record.index not in by_item:
            raise ValueError(
                f"There is a record of the item {record.index!r}, but {name!r} has no such item: they were "
                "made with other data. Give the data file that they were made with."
            )
        if record.sample in by_item[record.index]:
            raise ValueError(f"The item {record.index!r} has two records of sample {record.sample}: keep one of them.")
        by_item[record.index][record.sample] = (record.score or 0.0) if record.status == "ok" else 0.0
    counts = {len(samples) for samples in by_item.values()}
    if len(counts) > 1 or 0 in counts:
        missing = sum(len(samples) < max(counts) for samples in by_item.values())
        raise ValueError(
            f"{missing} of the {len(items)} items of {name!r} have fewer records than the others: finish the run, or "
            "give only the items that were answered."
        )
    gold = {item.index for item in items if item.answer is not None}
    return {
        index: [samples[sample] for sample in sorted(samples)] for index, samples in by_item.items() if index in gold
    }


def accuracy(name: str, items: Sequence[Item], scores: Scores) -> list[Metric]:
    """The mean score over items as one metric; none where no item has a gold answer."""
    scored = [item for item in items if item.index in scores]
    if not scored:
        return []
    values = [fmean(scores[item.index]) for item in scored]
    return [Metric(name, fmean(values), len(values), interval(values, [source_of(item.cluster) for item in scored]))]


def accuracy_by(
    name: str, items: Sequence[Item], scores: Scores, kinds_of: Callable[[Item], Sequence[str]]
) -> list[Metric]:
    """The mean score of each kind of items, as `<name>_<kind>`, in the order of the names.

    Args:
        kinds_of: the kinds of an item, which may be of several or none.
    """
    kinds: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        for kind in dict.fromkeys(map(slug, kinds_of(item))):
            kinds[kind].append(item)
    return [metric for kind in sorted(kinds) for metric in accuracy(f"{name}_{kind}", kinds[kind], scores)]


def groups_of(items: Sequence[Item], scores: Scores, key: Callable[[Item], Hashable]) -> dict[Hashable, list[Item]]:
    """Items that have a gold answer, by group, in their order."""
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        if item.index in scores:
            groups[key(item)].append(item)
    return dict(groups)


def all_right(name: str, groups: Mapping[Hashable, Sequence[Item]], scores: Scores) -> list[Metric]:
    """The share of groups of which every item is right, the samples taken one by one."""
    if not groups:
        return []
    values = [
        fmean(min(sample) for sample in zip(*(scores[item.index] for item in group), strict=True))
        for group in groups.values()
    ]
    return [mean_metric(name, values, sources_of(groups.values()))]


def whole_groups(
    name: str, groups: Mapping[Hashable, Sequence[Item]], size_of: Callable[[Item], int]
) -> dict[Hashable, Sequence[Item]]:
    """The groups of which every item is there; others, which a metric would find too good, are counted in the log.

    Args:
        name: of the metric.
        groups: items by group.
        size_of: how many items the group of an item has.
    """
    whole = {key: group for key, group in groups.items() if len(group) >= size_of(group[0])}
    if len(whole) < len(groups):
        logger.warning(
            "%s: %d of %d groups of items are not there with all of their items, and are left out. Have all items of "
            "the data answered for them to count.",
            name,
            len(groups) - len(whole),
            len(groups),
        )
    return whole


def sources_of(groups: Iterable[Sequence[Item]]) -> list[str | None]:
    """For each group what it shares with others; None where it is independent."""
    return [shared_source(group[0].cluster) for group in groups]


def mean_metric(name: str, values: Sequence[float], clusters: Sequence[Hashable | None] = ()) -> Metric:
    """The mean of values in [0, 1], see :func:`interval`."""
    return Metric(name, fmean(values), len(values), interval(values, clusters))


def interval(values: Sequence[float], clusters: Sequence[Hashable | None] = ()) -> tuple[float, float] | None:
    """The 95 % interval of a mean.

    Args:
        values: in [0, 1].
        clusters: of each value, None for one that is independent; empty where all are.

    Returns:
        Low and high; None where nothing can be said, of one graded value or one cluster.
    """
    groups: dict[Hashable, int] = {}
    numbers = [
        groups.setdefault(("alone", place) if cluster is None else ("shared", cluster), len(groups))
        for place, cluster in enumerate(clusters or [None] * len(values))
    ]
    if len(groups) == len(values) and set(values) <= {0.0, 1.0}:
        found = wilson_interval(values)
    elif len(set(values)) == 1 and values[0] in (0.0, 1.0):
        found = wilson_interval(
            [values[0]] * len(groups)
        )  # equal values have no spread, but few clusters are no proof
    elif len(groups) < 2:
        return None
    elif len(groups) == len(values):
        found = mean_interval(values)
    else:
        return _clustered(values, numbers)
    return found.low, found.high


def slug(text: str) -> str:
    """A name in lower case, words joined by underscores."""
    return re.sub(r"\W+", "_", text.casefold()).strip("_")


def _clustered(values: Sequence[float], clusters: Sequence[int]) -> tuple[float, float] | None:
    """Errors that may be alike within a cluster (Miller, arXiv 2411.00640, equation 4), with Student's quantile."""
    try:
        from statsmodels.regression.linear_model import OLS
    except ImportError:
        logger.warning(
            "Items share sources, so their interval needs statsmodels, which is not installed: "
            "`pip install 'open_r1_vision[eval]'`. The interval is left out."
        )
        return None
    fit = OLS(list(values), [1.0] * len(values)).fit(
        cov_type="cluster", cov_kwds={"groups": list(clusters)}, use_t=True
    )
    low, high = fit.conf_int(alpha=0.05)[0]
    return max(float(low), 0.0), min(float(high), 1.0)
