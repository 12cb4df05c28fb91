# SPDX-License-Identifier: Apache-2.0
"""Whether runs can be compared: the same benchmarks, the same items, nothing missing, and what else differs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from open_r1_vision.compare.reading import Answers, Run, find_setting, first_few
from open_r1_vision.evaluate.items import GROUP_MARK, shared_source

#: What two runs are compared for, or says nothing of how their items were put and scored: whole names, not those of a
#: judge or reasoner, whose model is none of the two that are compared. The judge is said by itself.
_EXPECTED = {
    *("model", "model_name_or_path", "revision", "model_revision", "adapter", "weights", "fingerprint"),
    *("num_samples", "seed", "created", "started", "finished", "seconds", "command", "output", "output_dir", "host"),
    *("data", "path", "md5", "data_md5", "prompt_style", "batch_size", "versions", "num_items", "base_url"),
    "judge",
}


def match_benchmarks(
    runs: Mapping[str, Mapping[str, Any]], wanted: Sequence[str] | None = None, intersect: bool = False
) -> list[str]:
    """The benchmarks to compare, in the order of the first run.

    Args:
        runs: for each run its benchmarks.
        wanted: benchmarks that were asked for; None for all.
        intersect: leave out what a run does not have.

    Raises:
        ValueError: a run lacks a benchmark that another has or that was asked for, or nothing is in common.
    """
    every = list(dict.fromkeys(name for benchmarks in runs.values() for name in benchmarks))
    common = [name for name in every if all(name in benchmarks for benchmarks in runs.values())]
    held = "; ".join(f"{run} has {', '.join(benchmarks) or 'none of them'}" for run, benchmarks in runs.items())
    if wanted is not None:
        lacking = [name for name in wanted if name not in common]
        if lacking:
            raise ValueError(f"Not every run has {', '.join(lacking)}: {held}. Evaluate it, or ask for others.")
        return [name for name in common if name in wanted]
    if not common:
        raise ValueError(f"The runs have no benchmark in common: {held}. Evaluate the same one with each model.")
    if len(common) < len(every) and not intersect:
        raise ValueError(
            f"The runs are of different benchmarks: {held}. Set --benchmarks {' '.join(common)}, or --intersect, to "
            f"compare {'that one' if len(common) == 1 else f'those {len(common)}'} alone."
        )
    return common


def match_items(runs: Sequence[Run], intersect: bool = False) -> tuple[list[Run], list[str]]:
    """The runs on the items to compare, in the same order, and what a reader of the comparison should know.

    Args:
        runs: of one benchmark.
        intersect: compare the finished items that all runs have, with the same gold answer.

    Raises:
        ValueError: the runs were evaluated on different items or are unfinished, and `intersect` is not set; or they
            share nothing; or they name different clusters for an item.
    """
    if not intersect:
        _refuse_unfinished(runs)
        _refuse_different(runs)
    first, *others = runs
    shared = [index for index in first.items if _is_shared(index, runs)]
    if not shared:
        raise ValueError(
            f"The runs share no item of {first.benchmark} that is finished and has the same gold answer: were "
            f"{first.name} and {others[0].name} evaluated on the same data?"
        )
    notes = _list_left_out(runs, len(shared)) if intersect else []
    clusters = {index: _common_cluster(index, runs) for index in shared}
    matched = [
        replace(run, items={index: replace(run.items[index], cluster=clusters[index]) for index in shared})
        for run in runs
    ]
    return matched, notes + _list_differences(matched)


def score_clusters(run: Run) -> Run:
    """A run whose items are whole clusters: full marks for a sample where it earns them on each item of the cluster.

    MMBench's CircularEval and DynaMath's worst case count so. An item without a cluster stays what it is. Clusters of
    one source, such as questions about one image, are items of one cluster.

    Raises:
        ValueError: the items of a cluster have different numbers of samples.
    """
    groups: dict[str, list[Answers]] = {}
    for index, answers in run.items.items():
        key = f"item {index}" if answers.cluster is None else f"cluster {answers.cluster}"
        groups.setdefault(key, []).append(answers)
    items = {}
    for key, group in groups.items():
        if len({len(answers.scores) for answers in group}) > 1:
            raise ValueError(
                f"The items of {key} in {run.name} have different numbers of samples, so its samples can't be scored "
                "as wholes: finish the run, or compare items."
            )
        columns = zip(*(answers.scores for answers in group), strict=True)
        scores = tuple(float(min(column) >= 1) for column in columns)
        items[key] = Answers(scores, cluster=shared_source(group[0].cluster))
    return replace(run, items=items)


def _refuse_unfinished(runs: Iterable[Run]) -> None:
    for run in runs:
        if not run.is_finished:
            have, lacking = run.num_samples, len(run.lacking)
            of = f" of {run.num_expected:,}" if run.num_expected is not None else ""
            items = f", too few of {lacking:,} of the items ({first_few(run.lacking)})" if lacking else ""
            raise ValueError(
                f"{run.name} is unfinished on {run.benchmark}: {have:,}{of} samples are there{items}. Give its "
                "evaluation command again, or set --intersect to compare the items that are finished."
            )


def _refuse_different(runs: Sequence[Run]) -> None:
    first = runs[0]
    for other in runs[1:]:
        parts = []
        for one, two in ((first, other), (other, first)):
            lacking = [index for index in one.items if index not in two.items]
            if lacking:
                count = f"{len(lacking):,} of the {len(one.items):,} items of {one.name}"
                parts.append(f"not in {two.name}: {count} ({first_few(lacking)})")
        golds = [
            index
            for index, answers in first.items.items()
            if index in other.items and answers.gold != other.items[index].gold
        ]
        if golds:
            parts.append(f"with another gold answer: {len(golds):,} ({first_few(golds)})")
        if parts:
            shared = len([index for index in first.items if _is_shared(index, (first, other))])
            hint = f", or set --intersect to compare the {shared:,} that they share" if shared else ""
            raise ValueError(
                f"{first.name} and {other.name} were not evaluated on the same items of {first.benchmark}: "
                f"{'; '.join(parts)}. Evaluate both on the same data{hint}."
            )


def _is_shared(index: str, runs: Sequence[Run]) -> bool:
    found = [run.items[index] for run in runs if index in run.items and run.items[index].is_complete]
    return len(found) == len(runs) and len({answers.gold for answers in found}) == 1


def _list_left_out(runs: Sequence[Run], shared: int) -> list[str]:
    counts = ", ".join(f"{len(run.items) - shared:,} of {run.name}'s {len(run.items):,}" for run in runs)
    if all(len(run.items) == shared for run in runs):
        return []
    return [f"only the {shared:,} items that all runs have finished are compared; left out: {counts}"]


def _common_cluster(index: str, runs: Sequence[Run]) -> str | None:
    names = {name for run in runs if (name := run.items[index].cluster) is not None}
    # data of another extent may show that a question shares its image, or not
    if len({name.rpartition(GROUP_MARK)[2] for name in names}) > 1:
        raise ValueError(
            f"Item {index} of {runs[0].benchmark} has the clusters {', '.join(sorted(map(str, names)))} in different "
            "runs, so it is not the same item: evaluate both on the same data."
        )
    return max(names, key=len, default=None)


def _list_differences(runs: Sequence[Run]) -> list[str]:
    """What else could be behind a difference than the model."""
    notes = []
    for run in runs:
        if not run.settings:
            notes.append(f"{run.name} has no run.json: whether it is finished, and on which data, is not known")
        if run.no_gold:
            notes.append(f"without gold answer and left out: {len(run.no_gold):,} of the items of {run.name}")
        if run.num_unjudged:
            notes.append(
                f"{run.num_unjudged:,} answer{'s' * (run.num_unjudged > 1)} of {run.name} "
                f"{'have' if run.num_unjudged > 1 else 'has'} no verdict (the judge failed) and "
                f"keep{'s' * (run.num_unjudged == 1)} the rule's score: give its evaluation command again"
            )
    if len({run.styles for run in runs}) > 1:
        styles = ", ".join(f"{run.name} in {' and '.join(run.styles)}" for run in runs)
        notes.append(f"other prompt styles: {styles} style; part of a difference may be the prompt")
    for other in runs[1:]:
        notes += _list_pair(runs[0], other)
    return notes


def _list_pair(first: Run, other: Run) -> list[str]:
    notes = []
    md5s = [_find_md5(run.settings) for run in (first, other)]
    if None not in md5s and md5s[0] != md5s[1]:
        notes.append(
            f"{first.name} and {other.name} read different data files (md5 {str(md5s[0])[:8]}, {str(md5s[1])[:8]}); "
            "their items have the same indexes and gold answers"
        )
    unknown = [run.name for run in (first, other) if not any(answers.prompt for answers in run.items.values())]
    prompts = sum(answers.prompt != other.items[index].prompt for index, answers in first.items.items())
    if unknown:
        notes.append(
            f"how {' and '.join(unknown)} put the items is not known, as always of imported runs and of training's "
            "own evaluations: part of a difference may be the prompt"
        )
    elif prompts and first.styles == other.styles:
        notes.append(
            f"{first.name} and {other.name} put {prompts:,} of {len(first.items):,} items differently (other text or "
            "images): part of a difference may be the prompt"
        )
    notes += _list_judges(first, other)
    counts = [_count_samples(run) for run in (first, other)]
    if counts[0] != counts[1]:
        notes.append(
            f"{first.name} has {counts[0]} of an item, {other.name} {counts[1]}: each item counts as the mean of its "
            "samples"
        )
    changed = _changed_settings(first.settings, other.settings)
    if changed:
        notes.append(f"{first.name} and {other.name} differ in {first_few(changed, 6)}")
    return notes


def _list_judges(first: Run, other: Run) -> list[str]:
    judged = [run for run in (first, other) if run.judged_by.get("llm")]
    if len(judged) == 1:
        (run,) = judged
        ruled = other if run is first else first
        return [
            f"a model judged {run.judged_by['llm']:,} of {run.num_samples:,} samples of {run.name}, none of "
            f"{ruled.name}: part of a difference may be the judge"
        ]
    if not judged:
        return []
    one, two = (run.settings.get("judge") or {} for run in judged)
    unknown = [run.name for run, judge in zip(judged, (one, two), strict=True) if not judge]
    if unknown:
        return [f"which model judged {' and '.join(unknown)} is not known: part of a difference may be the judge"]
    if one.get("model") != two.get("model"):
        return [
            f"{first.name} and {other.name} were judged by {one.get('model')} and {two.get('model')}: part of a "
            "difference may be the judge"
        ]
    changed = _changed(one, two)
    return [f"the judges of {first.name} and {other.name} differ in {first_few(changed, 6)}"] if changed else []


def _count_samples(run: Run) -> str:
    counts = {len(answers.scores) for answers in run.items.values()}
    low, high = min(counts), max(counts)
    return f"{low} sample{'s' * (low > 1)}" if low == high else f"{low} to {high} samples"


def _find_md5(settings: Mapping[str, Any]) -> Any:
    return next((value for name in ("md5", "data_md5") if (value := find_setting(settings, name)) is not None), None)


def _changed_settings(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    one, two = (
        {name: value for name, value in settings.items() if name not in _EXPECTED} for settings in (first, other)
    )
    return _changed(one, two)


def _changed(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    one, two = (dict(_flatten(settings)) for settings in (first, other))
    return [
        f"{name} ({_shorten(one[name])}, {_shorten(two[name])})"
        for name in one
        if name in two and one[name] != two[name]
    ]


def _shorten(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:39]}…"


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
