# SPDX-License-Identifier: Apache-2.0
"""What an evaluation came to: metrics with their intervals, what became of each sample, who judged, what it took."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.items import JUDGES, STATUSES, Metric, Record
from open_r1_vision.evaluate.judge import judge_failed
from open_r1_vision.evaluate.records import SUMMARY_FILE, SUMMARY_TABLE
from open_r1_vision.files import write_whole

#: Metrics that the terminal shows; the files have all.
_SHOWN_METRICS = 12
_STATUS_NOTES = {
    "truncated": "the limit of tokens cut them; wrong in every metric",
    "failed": "no reply; wrong in every metric; the same command asks again",
    "no_answer": "no answer found; wrong in every metric",
}


@dataclass(frozen=True)
class Summary:
    """A finished run in figures.

    Attributes:
        benchmark: its name.
        model: as it was given.
        num_items: items.
        num_samples: of each item.
        metrics: the official one first.
        status: samples by status.
        judged_by: samples by who judged them.
        judge: None without a judge, else how many it was asked about, how many of them it found right, for how many
            it failed, and the metrics by the rule alone.
        failures: samples without reply by reason.
        tokens: generated, of samples whose number is known.
        num_counted: those samples.
        seconds: that all starts have worked.
        prompt_style: how items were put; None where that is not known, as of imported runs.
    """

    benchmark: str
    model: str | None
    num_items: int
    num_samples: int
    metrics: tuple[Metric, ...]
    status: Mapping[str, int]
    judged_by: Mapping[str, int]
    judge: Mapping[str, Any] | None
    failures: Mapping[str, int]
    tokens: int
    num_counted: int
    seconds: float
    prompt_style: str | None = "benchmark"

    @property
    def num_records(self) -> int:
        """Samples altogether."""
        return sum(self.status.values())

    @property
    def num_unfinished(self) -> int:
        """Samples without reply, and verdicts that are missing: the same command asks for them again."""
        return self.status["failed"] + (self.judge["failed"] if self.judge else 0)

    def __str__(self) -> str:
        return format_summary(self)


def summarise(
    settings: Mapping[str, Any],
    metrics: Sequence[Metric],
    records: Sequence[Record],
    *,
    seconds: float,
    by_rule: Sequence[Metric] | None = None,
    failures: Mapping[str, int] | None = None,
    judge_failures: Mapping[str, int] | None = None,
) -> Summary:
    """Count.

    Args:
        settings: what run.json says.
        metrics: of the benchmark.
        records: all of them.
        seconds: that all starts have worked.
        by_rule: metrics without the judge's verdicts; None without a judge.
        failures: samples without reply by reason.
        judge_failures: verdicts that are missing by reason.
    """
    status = Counter(record.status for record in records)
    judged_by = Counter(record.judged_by for record in records)
    judge = None
    if by_rule is not None:
        failed = sum(map(judge_failed, records))
        judge = {
            "asked": judged_by["llm"] + failed,
            "found_right": sum(record.judged_by == "llm" and record.score == 1 for record in records),
            "failed": failed,
            "failures": dict(judge_failures or {}),
            "metrics_by_rule": {metric.name: metric.value for metric in by_rule},
        }
    counted = [record.tokens for record in records if record.tokens is not None]
    return Summary(
        benchmark=str(settings["benchmark"]),
        model=settings.get("model"),
        num_items=len({record.index for record in records}),
        num_samples=int(settings.get("num_samples") or 1),
        metrics=tuple(metrics),
        status={name: status[name] for name in STATUSES},
        judged_by={name: judged_by[name] for name in JUDGES},
        judge=judge,
        failures=dict(failures or {}),
        tokens=sum(counted),
        num_counted=len(counted),
        seconds=round(seconds, 1),
        prompt_style=settings.get("prompt_style"),
    )


def write_summary(folder: Path, summary: Summary) -> None:
    """Write summary.json and summary.csv, each whole or not at all."""
    values = asdict(summary)
    values["metrics"] = [_metric_entry(metric) for metric in summary.metrics]
    values["judged_by_share"] = _shares(summary.judged_by)
    write_whole(folder / SUMMARY_TABLE, _to_csv(summary))
    write_whole(folder / SUMMARY_FILE, json.dumps(values, indent=1) + "\n")


def format_summary(summary: Summary) -> str:
    """The summary for a terminal."""
    samples = "" if summary.num_samples == 1 else f" x {summary.num_samples} samples"
    style = f"{summary.prompt_style} prompts" if summary.prompt_style else "prompts not known"
    lines = [f"{summary.model} on {summary.benchmark}: {summary.num_items} items{samples}, {style}"]
    shown = summary.metrics[:_SHOWN_METRICS]
    width = max((len(metric.name) for metric in shown), default=0)
    for metric in shown:
        interval = ""
        if metric.interval is not None:
            interval = f"  [{100 * metric.interval[0]:5.1f}, {100 * metric.interval[1]:5.1f}]"
        lines.append(f"  {metric.name:<{width}}  {100 * metric.value:5.1f} %{interval}  n {metric.n}")
    if len(summary.metrics) > len(shown):
        lines.append(f"  and {len(summary.metrics) - len(shown)} more in {SUMMARY_TABLE}")
    if not summary.metrics:
        lines.append("  no metric: the items have no gold answers; `export` writes what their keepers take")
    lines += [f"  {text}" for text in _status_lines(summary)]
    return "\n".join(lines)


def _status_lines(summary: Summary) -> list[str]:
    count = summary.num_records
    lines = [f"ok {summary.status['ok']} of {count} samples"]
    lines += [f"{name} {summary.status[name]}: {note}" for name, note in _STATUS_NOTES.items() if summary.status[name]]
    commonest = sorted(summary.failures.items(), key=lambda pair: -pair[1])[:3]
    lines += [f"  {number} x {reason}" for reason, number in commonest]
    by = ", ".join(f"{name} {100 * share:.1f} %" for name, share in _shares(summary.judged_by).items() if share)
    lines.append(f"judged by {by}")
    if summary.judge is not None:
        judge = summary.judge
        lines.append(f"judge: asked {judge['asked']}, found right {judge['found_right']}, failed {judge['failed']}")
        if summary.metrics:
            name = summary.metrics[0].name
            lines.append(f"{name} by the rule alone {100 * judge['metrics_by_rule'][name]:.1f} %")
        if judge["failed"]:
            reasons = ", ".join(f"{number} x {reason}" for reason, number in judge["failures"].items())
            lines.append(f"answers without verdict keep the rule's score ({reasons}); the same command asks again")
    tokens = f"{summary.tokens} tokens" if summary.num_counted else "tokens not known"
    if 0 < summary.num_counted < count:
        tokens += f" in the {summary.num_counted} samples whose number is known"
    lines.append(f"{tokens}, {summary.seconds:.{0 if summary.seconds >= 10 else 1}f} s")
    return lines


def _to_csv(summary: Summary) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["benchmark", "model", "name", "value", "low", "high", "n"])

    def write(name: str, value: Any, low: Any = "", high: Any = "", n: Any = "") -> None:
        writer.writerow([summary.benchmark, summary.model, name, value, low, high, n])

    for metric in summary.metrics:
        low, high = metric.interval or ("", "")
        write(metric.name, metric.value, low, high, metric.n)
    for name, value in (summary.judge or {}).get("metrics_by_rule", {}).items():
        write(f"{name}_by_rule", value)
    for name, count in summary.status.items():
        write(f"status_{name}", count, n=summary.num_records)
    for name, share in _shares(summary.judged_by).items():
        write(f"judged_by_{name}", share, n=summary.num_records)
    for name in ("asked", "found_right", "failed"):
        if summary.judge is not None:
            write(f"judge_{name}", summary.judge[name])
    write("tokens", summary.tokens, n=summary.num_counted)
    write("seconds", summary.seconds)
    return text.getvalue()


def _metric_entry(metric: Metric) -> dict[str, Any]:
    low, high = metric.interval or (None, None)
    return {"name": metric.name, "value": metric.value, "low": low, "high": high, "n": metric.n}


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values())
    return {name: count / total if total else 0.0 for name, count in counts.items()}
