# SPDX-License-Identifier: Apache-2.0
"""Compare evaluation runs: read, match, estimate, test, correct."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

from open_r1_vision.compare.differences import PairedDifference, holm, paired_difference
from open_r1_vision.compare.estimates import Estimate, estimate, pass_at_k, require_statsmodels
from open_r1_vision.compare.matching import match_benchmarks, match_items, score_clusters
from open_r1_vision.compare.reading import Run, find_benchmarks, first_few, name_runs, read_run
from open_r1_vision.evaluate.items import source_of

ACCURACY = "accuracy"
#: Which runs are compared with which: all others with the first, or each with each.
PAIRS = ("first", "all")
_FEW_CLUSTERS = 30


@dataclass(frozen=True)
class Pair:
    """Two runs on one measure of one benchmark.

    Attributes:
        first: name of the run that is taken off.
        second: name of the run that it is taken off from.
        result: second - first.
        holm: the p-value after Holm's correction over all pairs and benchmarks of the measure; None without p-value.
    """

    first: str
    second: str
    result: PairedDifference
    holm: float | None = None


@dataclass(frozen=True)
class Table:
    """One measure of one benchmark.

    Attributes:
        benchmark: its name.
        measure: `accuracy`, or `pass@k`.
        estimates: by the name of the run, in the order given.
        pairs: what was compared.
        runs: what was read, on the items that are compared.
    """

    benchmark: str
    measure: str
    estimates: Mapping[str, Estimate]
    pairs: tuple[Pair, ...]
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare_runs` found. `str()` gives the tables; see :mod:`open_r1_vision.compare.table`.

    Attributes:
        tables: for each benchmark the accuracy, then pass@k.
        notes: what a reader should know before reading them, such as other prompts.
    """

    tables: tuple[Table, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)

    def __str__(self) -> str:
        from open_r1_vision.compare.table import format_tables

        return format_tables(self)


def compare_runs(
    runs: Sequence[str | Path],
    *,
    names: Sequence[str] | None = None,
    benchmarks: Sequence[str] | None = None,
    intersect: bool = False,
    pairs: str = "first",
    pass_at: Sequence[int] | None = None,
    test: str = "auto",
    whole_clusters: bool = False,
) -> Comparison:
    """Compare evaluation runs on the same items.

    Args:
        runs: output folders of `python -m open_r1_vision.evaluate`, at least two: each with a folder per benchmark,
            or the folder of one benchmark.
        names: what to call them; None takes what differs in their paths.
        benchmarks: which to compare; None for all that the runs have, which must then be the same.
        intersect: compare the benchmarks and finished items that all runs share, where they differ.
        pairs: `first` compares each run with the first, `all` each with each.
        pass_at: values of k; None for 2, 4, 8, … up to the samples of an item.
        test: `auto`, or one of `mcnemar`, `permutation`, `clustered`; see :func:`paired_difference`.
        whole_clusters: a cluster is one item, right where all of its items are.

    Raises:
        ValueError: runs that can't be compared, and why.
        ModuleNotFoundError: statsmodels is not installed.
    """
    require_statsmodels()
    if len(runs) < 2:
        raise ValueError(
            f"{len(runs)} run{'s' * (len(runs) != 1)} can't be compared: give the folders of at least two."
        )
    if pairs not in PAIRS:
        raise ValueError(f"There are no pairs {pairs!r}: set one of {', '.join(PAIRS)}.")
    unnamed = [_read_all(run, benchmarks) for run in runs]
    names = _check_names(names, [_find_owner(Path(run), inside) for run, inside in zip(runs, unnamed, strict=True)])
    read = {
        name: {benchmark: replace(run, name=name) for benchmark, run in inside.items()}
        for name, inside in zip(names, unnamed, strict=True)
    }
    tables: list[Table] = []
    notes: list[str] = []
    for benchmark in match_benchmarks(read, benchmarks, intersect):
        matched, new = match_items([read[name][benchmark] for name in names], intersect)
        notes += [f"{benchmark}: {note}" for note in new]
        if whole_clusters:
            if all(answers.cluster is None for answers in matched[0].items.values()):
                raise ValueError(
                    f"No items of {benchmark} share a source, so it has no whole clusters: compare items."
                )
            matched = [score_clusters(run) for run in matched]
        for measure, values in _measure(matched, pass_at):
            tables.append(_compare(benchmark, measure, matched, values, pairs, test))
        notes += _list_few_clusters(tables[-1])
    return Comparison(tuple(_correct(tables)), tuple(dict.fromkeys(notes)))


def _read_all(folder: str | Path, wanted: Sequence[str] | None) -> dict[str, Run]:
    """The benchmarks of a run; what was not asked for isn't read, so it may be unfinished or broken."""
    runs: dict[str, Run] = {}
    inside = find_benchmarks(folder)
    for path in (
        inside if wanted is None or inside == [Path(folder)] else [one for one in inside if one.name in wanted]
    ):
        run = read_run(path)
        if run.benchmark in runs:
            raise ValueError(f"{runs[run.benchmark].folder} and {path} are both {run.benchmark}: give one of them.")
        runs[run.benchmark] = run
    return runs


def _find_owner(folder: Path, inside: Mapping[str, Run]) -> Path:
    """The folder that names a run: of RUN/mathvista it is RUN."""
    folder = folder.resolve()
    return (
        folder.parent
        if [run.folder.resolve() for run in inside.values()] == [folder] and folder.name in inside
        else folder
    )


def _check_names(names: Sequence[str] | None, folders: Sequence[Path]) -> Sequence[str]:
    twice = [str(folder) for place, folder in enumerate(folders) if folder in folders[:place]]
    if twice:
        raise ValueError(f"{first_few(twice)} is given twice: a run compared with itself says nothing.")
    if names is None:
        return name_runs(folders)
    if len(names) != len(folders) or len(set(names)) != len(names):
        raise ValueError(
            f"The names {', '.join(names)} don't fit {len(folders)} runs: give as many, each of them once, in the "
            "order of the runs."
        )
    return names


def _measure(runs: Sequence[Run], pass_at: Sequence[int] | None) -> Iterable[tuple[str, list[list[float]]]]:
    """For each measure its values: for each run one for each item."""
    yield ACCURACY, [[fmean(answers.scores) for answers in run.items.values()] for run in runs]
    fewest = min(len(answers.scores) for run in runs for answers in run.items.values())
    if pass_at is None:
        pass_at = [2**power for power in range(1, fewest.bit_length()) if 2**power <= fewest]
        pass_at += [fewest] if fewest > 1 and fewest not in pass_at else []
    for k in pass_at:
        values = []
        for run in runs:
            counts = [len(answers.scores) for answers in run.items.values()]
            correct = [sum(score >= 1 for score in answers.scores) for answers in run.items.values()]
            try:
                values.append(pass_at_k(correct, counts, k))
            except ValueError as error:
                raise ValueError(f"{run.name} on {run.benchmark}: {error}") from error
        yield f"pass@{k}", values


def _compare(
    benchmark: str, measure: str, runs: Sequence[Run], values: Sequence[Sequence[float]], pairs: str, test: str
) -> Table:
    clusters = [source_of(answers.cluster) for answers in runs[0].items.values()]
    by_name = {run.name: each for run, each in zip(runs, values, strict=True)}
    chosen = combinations(by_name, 2) if pairs == "all" else ((runs[0].name, run.name) for run in runs[1:])
    try:
        results = tuple(
            Pair(first, second, paired_difference(by_name[first], by_name[second], clusters, test))
            for first, second in chosen
        )
    except ValueError as error:
        raise ValueError(f"{benchmark}, {measure}: {error}") from error
    return Table(
        benchmark=benchmark,
        measure=measure,
        estimates={name: estimate(each, clusters) for name, each in by_name.items()},
        pairs=results,
        runs=tuple(runs),
    )


def _list_few_clusters(table: Table) -> list[str]:
    result = table.pairs[0].result
    if result.num_clusters == result.num_items or result.num_clusters >= _FEW_CLUSTERS:
        return []
    if result.num_clusters == 1:
        return [f"{table.benchmark}: all items come from one source, so there is neither an interval nor a p-value"]
    return [f"{table.benchmark}: intervals and p-values from {result.num_clusters} sources are rough"]


def _correct(tables: Sequence[Table]) -> Iterable[Table]:
    """With Holm's p-values: each measure over its pairs and benchmarks."""
    corrected = {}
    for measure in {table.measure: None for table in tables}:
        family = [
            (place, pair) for place, table in enumerate(tables) if table.measure == measure for pair in table.pairs
        ]
        for (place, pair), p_value in zip(family, holm([pair.result.p_value for _, pair in family]), strict=True):
            corrected[place, pair.first, pair.second] = replace(pair, holm=p_value)
    return [
        replace(table, pairs=tuple(corrected[place, pair.first, pair.second] for pair in table.pairs))
        for place, table in enumerate(tables)
    ]
