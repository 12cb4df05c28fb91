# SPDX-License-Identifier: Apache-2.0
"""Evaluation runs as `python -m open_r1_vision.evaluate` leaves them: `samples.jsonl` and `run.json` per benchmark."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.items import STATUSES

SAMPLES_FILE = "samples.jsonl"
RUN_FILE = "run.json"
_FIELDS = (
    "dataset",
    "index",
    "sample",
    "prompt_sha",
    "prompt_style",
    "gold",
    "score",
    "judged_by",
    "status",
    "cluster",
)


@dataclass(frozen=True)
class Answers:
    """One item's samples, in the order of their numbers.

    Attributes:
        scores: one for each sample, in [0, 1]; 0 where the sample was cut, failed or holds no answer.
        gold: the gold answer.
        cluster: what the item shares with others; None for an independent item.
        prompt: sha256 of the messages.
        is_complete: the item has as many samples as the run was to draw.
    """

    scores: tuple[float, ...]
    gold: str | None = None
    cluster: str | None = None
    prompt: str = ""
    is_complete: bool = True


@dataclass(frozen=True)
class Run:
    """One benchmark of one evaluation run.

    Attributes:
        name: what it is called in tables.
        benchmark: the benchmark's name.
        items: those with a gold answer, by index, in the order of the file.
        folder: where it was read.
        settings: what `run.json` says; empty where there is none.
        statuses: how many samples ended in which way.
        judged_by: how many samples were judged by what.
        styles: the prompt styles of the samples.
        no_gold: indexes that were left out, because there is no gold answer.
        num_expected: samples that the run was to draw; None where that is not known.
        num_unjudged: samples with an answer or without one, and with a gold answer, whose judge failed.
    """

    name: str
    benchmark: str
    items: Mapping[str, Answers]
    folder: Path = Path()
    settings: Mapping[str, Any] = field(default_factory=dict)
    statuses: Mapping[str, int] = field(default_factory=dict)
    judged_by: Mapping[str, int] = field(default_factory=dict)
    styles: tuple[str, ...] = ()
    no_gold: tuple[str, ...] = ()
    num_expected: int | None = None
    num_unjudged: int = 0

    @property
    def num_samples(self) -> int:
        """Samples that the file holds."""
        return sum(self.statuses.values())

    @property
    def lacking(self) -> list[str]:
        """Indexes that have fewer samples than the run was to draw."""
        return [index for index, answers in self.items.items() if not answers.is_complete]

    @property
    def is_finished(self) -> bool:
        """Whether nothing is missing, as far as that is known."""
        return not self.lacking and (self.num_expected is None or self.num_samples >= self.num_expected)


def find_benchmarks(folder: str | Path) -> list[Path]:
    """The folders with samples: the folder itself, or those directly in it.

    Raises:
        ValueError: there is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: give the output folder of an evaluation.")
    if (folder / SAMPLES_FILE).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{SAMPLES_FILE}"))
    if not found:
        raise ValueError(
            f"{folder} holds no {SAMPLES_FILE}, nor does a folder in it: give the output folder of an evaluation, or "
            "of one benchmark in it."
        )
    return found


def read_run(folder: str | Path, name: str = "") -> Run:
    """Read one benchmark of one run.

    A torn last line, which a killed evaluation leaves, is no sample.

    Args:
        folder: with `samples.jsonl`.
        name: what to call the run; empty for the folder's name.

    Raises:
        ValueError: no samples, a line that is none, samples twice, samples of several benchmarks, samples without a
            score, or no gold answer at all.
    """
    folder = Path(folder)
    path = folder / SAMPLES_FILE
    lines = _read_lines(path)
    if not lines:
        raise ValueError(f"{path} holds no samples: the run has not got that far. Give its evaluation command again.")
    datasets = Counter(line["dataset"] for line in lines)
    if len(datasets) > 1:
        counts = ", ".join(f"{dataset} ({count:,})" for dataset, count in datasets.items())
        raise ValueError(f"{path} mixes samples of {counts}: keep each benchmark in a folder of its own.")
    keys = Counter((line["index"], line["sample"]) for line in lines)
    twice = [f"{index} (sample {sample})" for (index, sample), count in keys.items() if count > 1]
    if twice:
        raise ValueError(
            f"{path} holds samples more than once, {len(twice):,} in all: {first_few(twice)}. Which one counts is "
            "unknown: keep one line for each index and sample, or evaluate anew."
        )
    by_index: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_index.setdefault(line["index"], []).append(line)
    _check_scored(path, lines)
    no_gold = [index for index, group in by_index.items() if group[0]["gold"] is None and group[0]["score"] is None]
    if len(no_gold) == len(by_index):
        raise ValueError(
            f"{path} has a gold answer for 0 of {len(by_index):,} items, so nothing is right or wrong: evaluate "
            "a split with answers, or hand the answers in where they are kept."
        )
    settings = _read_settings(folder / RUN_FILE)
    num_items, per_item = (find_setting(settings, name) for name in ("num_items", "num_samples"))
    most = per_item if isinstance(per_item, int) else max(map(len, by_index.values()))
    left_out = set(no_gold)
    items = {
        index: _to_answers(path, index, group, most) for index, group in by_index.items() if index not in left_out
    }
    return Run(
        name=name or folder.name,
        benchmark=str(lines[0]["dataset"]),
        items=items,
        folder=folder,
        settings=settings,
        statuses=Counter(line["status"] for line in lines),
        judged_by=Counter(line["judged_by"] for line in lines),
        styles=tuple(sorted({str(line["prompt_style"]) for line in lines})),
        no_gold=tuple(no_gold),
        num_expected=num_items * most if isinstance(num_items, int) else None,
        num_unjudged=sum(map(_is_unjudged, lines)),
    )


def find_setting(settings: Mapping[str, Any], name: str) -> Any:
    """A setting of `run.json`, at its top or in one of its blocks; None where there is none."""
    if name in settings:
        return settings[name]
    blocks = (value for value in settings.values() if isinstance(value, Mapping))
    return next((block[name] for block in blocks if name in block), None)


def name_runs(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of different paths by which they differ, after the end that they share."""
    paths = [folder.resolve() for folder in folders]
    parts = [list(path.parts) for path in paths]
    while len({words[-1] for words in parts}) == 1 and min(map(len, parts)) > 2 and len(parts) > 1:
        parts = [words[:-1] for words in parts]
    for count in range(1, max(map(len, parts))):
        names = ["/".join(words[-count:]) for words in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def first_few(names: Iterable[str], count: int = 3) -> str:
    """The first names, for a message."""
    names = list(names)
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The fields of each line that are needed here: the texts of a large run would not fit."""
    lines = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                # what has no end is torn: its run was killed, and counts as unfinished
                if line.endswith(b"\n") and line.strip():
                    lines.append(_read_line(path, number, line))
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error}): give the folder of one benchmark of a run.") from error
    return lines


def _read_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"Line {number} of {path} is no JSON ({error}): evaluate anew, or mend it.") from error
    if not isinstance(record, dict):
        raise ValueError(
            f"Line {number} of {path} is no record, but a {type(record).__name__}: compare reads what "
            "open_r1_vision.evaluate writes or imports."
        )
    if missing := [name for name in _FIELDS if name not in record]:
        raise ValueError(
            f"Line {number} of {path} lacks {', '.join(missing)}: compare reads what open_r1_vision.evaluate "
            "writes or imports."
        )
    kept = {name: record[name] for name in _FIELDS}
    score, status, cluster = kept["score"], kept["status"], kept["cluster"]
    is_score = isinstance(score, (int, float)) and math.isfinite(score) and 0 <= score <= 1
    if score is not None and not is_score:
        wanted, given = "a score in [0, 1], or null without gold", f"the score {score!r}"
    elif status not in STATUSES:
        wanted, given = f"one of {', '.join(STATUSES)}", f"the status {status!r}"
    elif not isinstance(kept["index"], str) or not isinstance(kept["sample"], int):
        wanted, given = "a text and a number", f"the index {kept['index']!r} and the sample {kept['sample']!r}"
    elif cluster is not None and not isinstance(cluster, str):
        wanted, given = "a text or null", f"the cluster {cluster!r}"
    else:
        return kept
    raise ValueError(f"Line {number} of {path} has {given}, where {wanted} is needed: evaluate anew, or mend it.")


def _check_scored(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    unscored = [
        str(line["index"])
        for line in lines
        if line["score"] is None and line["gold"] is not None and line["status"] == "ok"
    ]
    if unscored:
        raise ValueError(
            f"{path} has no score for {len(unscored):,} of the samples with an answer and a gold answer: items "
            f"{first_few(unscored)}. Their judge has not judged them: give the evaluation command again."
        )


def _is_unjudged(line: Mapping[str, Any]) -> bool:
    return line["judged_by"] == "none" and line["gold"] is not None and line["status"] in ("ok", "no_answer")


def _to_answers(path: Path, index: str, group: Sequence[Mapping[str, Any]], most: int) -> Answers:
    clusters = {line["cluster"] for line in group}
    if len(clusters) > 1:
        raise ValueError(
            f"The samples of item {index} in {path} name different clusters, {first_few(map(str, clusters))}: one "
            "item has one source. Evaluate anew."
        )
    ordered = sorted(group, key=lambda line: line["sample"])
    scores = tuple(float(line["score"] or 0.0) if line["status"] == "ok" else 0.0 for line in ordered)
    first = ordered[0]
    return Answers(scores, first["gold"], first["cluster"], str(first["prompt_sha"]), len(group) >= most)


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): give the evaluation command again to write it.") from error
    if not isinstance(settings, dict):
        raise ValueError(
            f"{path} holds no settings, but a {type(settings).__name__}: give the evaluation command again."
        )
    return settings
