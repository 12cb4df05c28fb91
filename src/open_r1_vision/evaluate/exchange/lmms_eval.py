# SPDX-License-Identifier: Apache-2.0
"""The samples of lmms-eval: `{time}_samples_{task}.jsonl`, a line for each document.

A line has `doc_id`, the document's place in the task's data set, so that the items must be read from that data set or
be in its order; `target` or `input` show whether they are. `resps` holds the replies, one or several.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.exchange.matching import make_record, refuse_missing, same_gold
from open_r1_vision.evaluate.items import Benchmark, Item, Record

#: How the text of a request that failed starts, which lmms-eval scores as an answer.
FAILED = "[LMMS_EVAL_REQUEST_FAILED"


def import_samples(
    benchmark: Benchmark,
    items: Sequence[Item],
    path: str | Path,
    *,
    metric: str | None = None,
    judged_by: str = "llm",
    partial: bool = False,
) -> list[Record]:
    """Read the samples of a task.

    Args:
        benchmark: of the items.
        items: in the order of the task's data set.
        path: the samples file.
        metric: take the score from this key of the lines, such as `exact_match`; by default our rule gives it.
        judged_by: `rule` or `llm`, who gave that metric.
        partial: items may be left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line that is no sample, one that belongs to another item, an item left out, or a metric that is
            not there.
    """
    from open_r1_vision.data.loading import read_json

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}: give lmms-eval's samples, a JSONL file.")
    found: dict[str, list[Record]] = {}
    for number, line in enumerate(read_json(path), start=1):
        place = f"{str(path)!r}, sample {number}"
        item = _item(benchmark, items, line, place)
        if item.index in found:
            raise ValueError(f"{place}: doc_id {line['doc_id']} stands here twice. Import one run at a time.")
        found[item.index] = _to_records(benchmark, item, line, metric, judged_by, place)
    if not partial:
        hint = "Import a file with every document; or those that it has alone, with --partial."
        refuse_missing(benchmark, items, found, path, hint)
    return [record for item in items for record in found.get(item.index, ())]


def _item(benchmark: Benchmark, items: Sequence[Item], line: Mapping[str, Any], place: str) -> Item:
    number = line.get("doc_id")
    if not isinstance(number, int) or "resps" not in line:
        raise ValueError(
            f"{place}: there is no whole number 'doc_id' or no 'resps' among {', '.join(line)}. Give a samples file "
            "of lmms-eval, which it writes with --log_samples."
        )
    if not 0 <= number < len(items) or not _belongs(benchmark, items[number], line):
        raise ValueError(
            f"{place}: doc_id {number} is not item {number} of {benchmark.name!r}, which has {len(items)} items: the "
            f"target is {line.get('target')!r:.80}. The predictions are of another benchmark, or the items in another "
            "order: read them from the data set of the task."
        )
    return items[number]


def _belongs(benchmark: Benchmark, item: Item, line: Mapping[str, Any]) -> bool:
    """Whether the line shows the item's gold answer or, where it has no target, its question."""
    target = line.get("target")
    targets = [str(one) for one in (target if isinstance(target, list) else [target]) if one is not None and one != ""]
    if targets and item.answer is not None:
        return any(same_gold(benchmark, item, one) for one in targets)
    shown = " ".join(str(line.get("input") or "").split())
    return not shown or " ".join(item.question.split()) in shown


def _to_records(
    benchmark: Benchmark, item: Item, line: Mapping[str, Any], metric: str | None, judged_by: str, place: str
) -> list[Record]:
    replies = [leaf for leaf in _leaves(line["resps"]) if isinstance(leaf, str)]
    if not replies:
        raise ValueError(f"{place}: 'resps' is {line['resps']!r:.80}, which holds no text. Give a run that replied.")
    score = None if metric is None else _score(line, metric, place)
    tokens = [_count(leaf) for leaf in _leaves(line.get("token_counts"))]
    if len(tokens) != len(replies):
        tokens = [None] * len(replies)
    records = []
    for sample, (reply, count) in enumerate(zip(replies, tokens, strict=True)):
        if reply.startswith(FAILED):
            about: dict[str, Any] = {"extractor": "none", "status": "failed"}
        elif metric is None:
            about = {}
        else:
            about = {"score": score, "judged_by": judged_by, "status": "ok" if score else ""}
        records.append(make_record(benchmark, item, reply, sample=sample, tokens=count, **about))
    return records


def _score(line: Mapping[str, Any], metric: str, place: str) -> float:
    value = line.get(metric)
    if not isinstance(value, (bool, int, float)) or not 0 <= value <= 1:
        raise ValueError(
            f"{place}: {metric!r} is {value!r:.80}, but a score must be a number from 0 to 1. The line has "
            f"{', '.join(line)}; leave the metric out to score by rule."
        )
    return float(value)


def _leaves(value: Any) -> Iterator[Any]:
    """What stands in lists within lists, in order."""
    if isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _count(leaf: Any) -> int | None:
    """Tokens of a reply, given as a number or by name."""
    if isinstance(leaf, Mapping):
        leaf = leaf.get("output_tokens", leaf.get("completion_tokens"))
    return leaf if isinstance(leaf, int) else None
