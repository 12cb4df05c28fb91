# SPDX-License-Identifier: Apache-2.0
"""How far a reasoner's verdicts can be trusted: a sample side by side, agreement and kappa against labels.

    python -m open_r1_vision.reasoners.audit runs/judge.jsonl --sample 5
    python -m open_r1_vision.reasoners.audit runs/judge.jsonl --write-labels labels.csv --sample 50
    python -m open_r1_vision.reasoners.audit runs/judge.jsonl --labels labels.csv

The first shows what was asked beside what was replied. The second writes a file to fill in, which does not say what
the reasoner thought. The third compares: labels are a CSV or JSONL file with `id` and `label`. A verdict of several
parts, such as [1, 0, 1], is compared part by part.
"""

import argparse
import csv
import io
import json
import random
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from open_r1_vision.statistics import Proportion, wilson_interval


@dataclass(frozen=True)
class Agreement:
    """Verdicts against labels.

    Attributes:
        share: of equal ones, with its 95 % interval.
        kappa: Cohen's (1960): 0 for the agreement that chance gives, 1 for all. None where one and the same value is
            all that occurs, and chance alone agrees always.
        table: how often each verdict met each label.
    """

    share: Proportion
    kappa: float | None
    table: Counter[tuple[str, str]]


def measure_agreement(verdicts: Sequence[str], labels: Sequence[str]) -> Agreement:
    """Compare verdicts with labels of the same things, in the same order.

    Raises:
        ValueError: not equally many, or none.
    """
    if len(verdicts) != len(labels) or not verdicts:
        raise ValueError(
            f"{len(verdicts)} verdicts can't be compared with {len(labels)} labels: give a label for each, and at "
            "least one."
        )
    table = Counter(zip(verdicts, labels, strict=True))
    count = len(verdicts)
    equal = sum(number for (verdict, label), number in table.items() if verdict == label)
    by_verdict, by_label = Counter(verdicts), Counter(labels)
    # whole numbers up to the division, so that complete agreement is exactly 1
    chance = sum(by_verdict[value] * by_label[value] for value in by_verdict)
    kappa = (equal * count - chance) / (count * count - chance) if chance != count * count else None
    share = wilson_interval([float(verdict == label) for verdict, label in zip(verdicts, labels, strict=True)])
    return Agreement(share, kappa, table)


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The records of a reasoner's log; of several with one id the last.

    Raises:
        ValueError: no such file, or a line that is no record.
    """
    records: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        try:
            record = json.loads(line)
            records[record["id"]] = record
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"Line {number} of {str(path)!r} is no record of a reasoner ({error!r}): give the file that the "
                "reasoner's `log` names."
            ) from error
    return list(records.values())


def read_labels(path: str | Path) -> dict[str, Any]:
    """Labels by id, from a CSV or JSONL file with `id` and `label`; empty labels are left out.

    Raises:
        ValueError: no such file, or rows without these fields.
    """
    text = _read_text(path)
    try:
        if Path(path).suffix == ".csv":
            rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text, newline="")))
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        labels = {row["id"]: row["label"] for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The labels {str(path)!r} can't be read ({error!r}): give a CSV or JSONL file with `id` and `label` in "
            "each row."
        ) from error
    return {key: label for key, label in labels.items() if label not in (None, "")}


def pair_up(records: Sequence[dict[str, Any]], labels: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Verdicts and labels of the records that have both, part by part.

    Raises:
        ValueError: a verdict of another number of parts than its label.
    """
    verdicts: list[str] = []
    expected: list[str] = []
    for record in records:
        if record["id"] in labels and record.get("verdict") is not None:
            ours, theirs = _parts(record["verdict"]), _parts(labels[record["id"]])
            if len(ours) != len(theirs):
                raise ValueError(
                    f"The verdict of {record['id']} has {len(ours)} parts and its label {len(theirs)}: {ours} and "
                    f"{theirs}. Correct the label."
                )
            verdicts += ours
            expected += theirs
    return verdicts, expected


def side_by_side(record: dict[str, Any], label: Any = None, width: int = 120) -> str:
    """A record as text: what was asked on the left, what was replied on the right."""
    half = (width - 3) // 2
    asked = "\n".join(message["content"] for message in record["messages"] if message["role"] == "user")
    failure = record.get("failure")
    replied = record.get("reply") or ""
    if failure:
        replied = f"[{failure['reason']}: {failure['message']}]\n{replied}"
    verdict = f"verdict {json.dumps(record.get('verdict'), ensure_ascii=False)}"
    head = f"{record['id']}   {verdict}" + (f"   label {label}" if label is not None else "")
    columns = zip_longest(_wrap(asked, half), _wrap(replied, half), fillvalue="")
    return "\n".join([head, "-" * width, *(f"{left:<{half}} | {right}".rstrip() for left, right in columns), ""])


def summary(records: Sequence[dict[str, Any]]) -> str:
    """How many requests there are, and what became of them."""
    failures = Counter(record["failure"]["reason"] for record in records if record.get("failure"))
    num_failed = sum(failures.values())
    reasons = ", ".join(f"{reason} {number}" for reason, number in failures.most_common())
    models = ", ".join(sorted({str(record.get("model")) for record in records}))
    share = f"{100 * num_failed / max(len(records), 1):.1f} %"
    return f"{len(records)} requests to {models}; failed {num_failed} ({share})" + (f": {reasons}" if reasons else "")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m open_r1_vision.reasoners.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log", type=Path, help="JSONL file that a reasoner's `log` names")
    parser.add_argument("--labels", type=Path, help="CSV or JSONL file with id and label")
    parser.add_argument("--write-labels", type=Path, help="write a CSV file to fill in, instead of showing anything")
    parser.add_argument("--sample", type=int, default=10, help="records that are shown or written (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--width", type=int, default=120, help="characters of a line")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that --write-labels names")
    args = parser.parse_args(argv)
    try:
        records = read_log(args.log)
        labels = read_labels(args.labels) if args.labels else {}
        shown = _draw(records, labels, args.sample, args.seed)
        if args.write_labels:
            _write_labels(args.write_labels, shown, args.overwrite)
            lines = [f"{args.write_labels}: {len(shown)} rows to label"]
        else:
            texts = [side_by_side(record, labels.get(record["id"]), args.width) for record in shown]
            lines = [*texts, summary(records)]
        if args.labels:
            lines.append(_report(measure_agreement(*pair_up(records, labels))))
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from error
    sys.stdout.write("\n".join(lines) + "\n")


def _draw(records: list[dict[str, Any]], labels: dict[str, Any], count: int, seed: int) -> list[dict[str, Any]]:
    """A random sample; with labels, of the labelled ones, those first that the reasoner sees differently."""
    shuffled = random.Random(seed).sample(records, len(records))
    if labels:
        shuffled = [record for record in shuffled if record["id"] in labels]
        shuffled.sort(key=lambda record: _parts(record.get("verdict")) == _parts(labels[record["id"]]))
    return shuffled[: max(count, 0)]


def _write_labels(path: Path, records: Sequence[dict[str, Any]], overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: give another --write-labels, or --overwrite to replace it.")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "request", "label"])
        for record in records:
            asked = [message["content"] for message in record["messages"] if message["role"] == "user"]
            writer.writerow([record["id"], "\n".join(asked), ""])


def _report(agreement: Agreement) -> str:
    kappa = "not defined, all verdicts and labels are the same" if agreement.kappa is None else agreement.kappa
    lines = [
        f"agreement {agreement.share} of {agreement.share.count} verdicts",
        f"Cohen's kappa {kappa if isinstance(kappa, str) else f'{kappa:.3f}'}",
        "verdict -> label",
    ]
    lines += [f"  {verdict} -> {label}: {number}" for (verdict, label), number in agreement.table.most_common()]
    return "\n".join(lines)


def _parts(value: Any) -> list[str]:
    """The parts of a verdict or label, each in one spelling: [True, 0.0] and "[1, 0]" are both ["1", "0"]."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return [value.strip().casefold()]
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    if isinstance(value, list):
        return [part for item in value for part in _parts(item)]
    if isinstance(value, (bool, int, float)):
        return [str(int(value)) if value == int(value) else str(value)]
    return [json.dumps(value, sort_keys=True)]


def _wrap(text: str, width: int) -> list[str]:
    return [part for line in text.splitlines() or [""] for part in textwrap.wrap(line, width) or [""]]


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} can't be read ({error}): give a text file.") from error


if __name__ == "__main__":
    main()
