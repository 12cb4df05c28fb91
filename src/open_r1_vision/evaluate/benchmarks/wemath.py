# SPDX-License-Identifier: Apache-2.0
"""WeMath testmini (Qiao et al., arXiv 2407.01284): 525 problems of two or three steps, asked step by step and whole.

With all steps right or not, and the whole right or not, a problem is
- IK, insufficient knowledge: a step wrong, the whole wrong;
- IG, inadequate generalisation: all steps right, the whole wrong;
- RM, rote memorisation: the whole right in spite of wrong steps, `strict` of one, `loose` of all;
- CM, complete mastery: the whole right otherwise.
`wemath_strict` and `wemath_loose` are (CM + IG / 2) / problems, `wemath_micro` is the plain share of right answers.
Published figures differ by which of these they are. Ours: letters are read from any form of reply; VLMEvalKit without
a judge takes the first character after the last word "Answer".
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from open_r1_vision.evaluate.benchmarks.aggregate import (
    accuracy,
    collect_scores,
    groups_of,
    interval,
    mean_metric,
    sources_of,
    whole_groups,
)
from open_r1_vision.evaluate.benchmarks.base import TableBenchmark, field_text, option_lines
from open_r1_vision.evaluate.benchmarks.extraction import infer_option, named_option
from open_r1_vision.evaluate.items import Item, Metric, Record
from open_r1_vision.evaluate.sources import Row

_KEY = re.compile(r"([23])steps_([123]|multi)")
_ANSWER = re.compile(r"<Answer>[ ]?:?[ ]?(?:<<)?(?P<answer>[^<>]*)")


@dataclass(frozen=True)
class WeMath(TableBenchmark):
    """Steps and whole of a problem are one cluster."""

    cot: bool = False

    def build(self, row: Row) -> Item:
        key = _KEY.fullmatch(row.text("key"))
        if key is None or not row.text("ID") or (key[1], key[2]) == ("2", "3"):
            raise ValueError(
                f"{row.place}: 'key' is {row.text('key')!r} and 'ID' is {row.text('ID')!r}. WeMath needs the "
                "problem's ID, and its step as 2steps_1 or 3steps_multi. Give WeMath's own data."
            )
        item = super().build(row)
        return replace(item, cluster=_problem(item))

    def prompt(self, item: Item) -> str:
        hint = field_text(item, "hint")
        lines = [f"Hint: {hint}"] if hint else []
        lines += [f"Question: {item.question}", "Options:", option_lines(item)]
        if self.cot:
            lines.append(_requirement(item))
        return "\n".join(lines)

    def extract(self, item: Item, text: str) -> tuple[str | None, str]:
        # the answer mark of `requirement`, which no reward asks for: <Answer>: <<B>>
        marks = _ANSWER.findall(text)
        if marks:
            letter = named_option(marks[-1], item.options) or infer_option(marks[-1], item.options)[0]
            if letter:
                return letter, "wemath_answer"
        return super().extract(item, text)

    def metrics(self, items: Sequence[Item], records: Sequence[Record]) -> list[Metric]:
        scores = collect_scores(self.name, items, records)
        problems = whole_groups("wemath_strict", groups_of(items, scores, _problem), _num_rows)
        sources = sources_of(problems.values())
        kinds = [_kinds(group, scores) for group in problems.values()]
        metrics = []
        for rule in ("strict", "loose") if kinds else ():
            values = [fmean(_value(kind, rule) for kind in samples) for samples in kinds]
            metrics.append(mean_metric(f"wemath_{rule}", values, sources))
        metrics += accuracy("wemath_micro", items, scores)
        return metrics + _four_dimensions(kinds, sources) + _step_accuracies(items, scores)


def _problem(item: Item) -> str:
    return f"{field_text(item, 'key').partition('_')[0]} {field_text(item, 'ID')}"


def _requirement(item: Item) -> str:
    requirement = field_text(item, "requirement")
    if not requirement:
        raise ValueError(
            f"wemath_cot, item {item.index}: 'requirement' is empty or missing. Use data that has it, or wemath."
        )
    return requirement


def _num_rows(item: Item) -> int:
    return int(str(item.fields["key"])[0]) + 1


def _kinds(group: Sequence[Item], scores: dict[str, list[float]]) -> list[str]:
    """What a problem is, for each sample: IK, IG, CM, or RM with the rules that call it so."""
    whole = next(item for item in group if str(item.fields["key"]).endswith("multi"))
    steps = [item for item in group if item is not whole]
    kinds = []
    for sample, right in enumerate(scores[whole.index]):
        known = [scores[step.index][sample] >= 1 for step in steps]
        if right < 1:
            kinds.append("IG" if all(known) else "IK")
        else:
            kinds.append("CM" if all(known) else "RM strict" if any(known) else "RM strict loose")
    return kinds


def _value(kind: str, rule: str) -> float:
    return 0.5 if kind == "IG" else float(kind != "IK" and rule not in kind)


def _four_dimensions(kinds: Sequence[Sequence[str]], sources: Sequence[str | None]) -> list[Metric]:
    if not kinds:
        return []

    def share(name: str, found: Sequence[Sequence[bool]]) -> Metric:
        return mean_metric(f"wemath_{name}", [fmean(map(float, samples)) for samples in found], sources)

    metrics = [
        share("insufficient_knowledge", [[kind == "IK" for kind in samples] for samples in kinds]),
        share("inadequate_generalization", [[kind == "IG" for kind in samples] for samples in kinds]),
    ]
    for rule in ("strict", "loose"):
        mastered = [[_value(kind, rule) == 1 for kind in samples] for samples in kinds]
        metrics.append(share(f"complete_mastery_{rule}", mastered))
        rote = [float(rule in kind) for samples in kinds for kind in samples if kind not in ("IK", "IG")]
        clusters: list[Hashable | None] = [
            sources[place] or place
            for place, samples in enumerate(kinds)
            for kind in samples
            if kind not in ("IK", "IG")
        ]
        if rote:
            name = f"wemath_rote_memorization_rate_{rule}"
            metrics.append(Metric(name, fmean(rote), len(rote), interval(rote, clusters)))
    return metrics


def _step_accuracies(items: Sequence[Item], scores: dict[str, list[float]]) -> list[Metric]:
    parts = {
        "one_step": [item for item in items if not str(item.fields["key"]).endswith("multi")],
        "two_step": [item for item in items if item.fields["key"] == "2steps_multi"],
        "three_step": [item for item in items if item.fields["key"] == "3steps_multi"],
    }
    return [metric for name, part in parts.items() for metric in accuracy(f"wemath_{name}", part, scores)]


BENCHMARKS = (
    WeMath("wemath", kit_names=("WeMath",), splits=("testmini",), choices_only=True),
    WeMath(
        "wemath_cot", family="wemath", kit_names=("WeMath_COT",), splits=("testmini",), choices_only=True, cot=True
    ),
)
