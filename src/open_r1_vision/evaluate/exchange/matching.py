# SPDX-License-Identifier: Apache-2.0
"""What imports have in common: predictions that belong to the items, and records made of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from open_r1_vision.evaluate.items import Benchmark, Item, Record

#: No kit keeps a prompt that could be hashed.
UNKNOWN_PROMPT = ""
#: Where the kits, and our rows, have the gold answer.
GOLD_COLUMNS = ("answer", "solution")


def refuse_missing(
    benchmark: Benchmark, items: Sequence[Item], found: Mapping[str, Any], path: Any, hint: str
) -> None:
    """Refuse predictions that leave items out.

    Raises:
        ValueError: they do.
    """
    missing = [item.index for item in items if item.index not in found]
    if missing:
        raise ValueError(
            f"{str(path)!r} has no prediction for {len(missing)} of the {len(items)} items of {benchmark.name!r}, the "
            f"first is {missing[0]!r}. {hint}"
        )


def same_gold(benchmark: Benchmark, item: Item, text: str) -> bool:
    """Whether a text that a kit has for the gold answer is the item's, as its column has it or in other words."""
    known = (item.answer, *(item.fields.get(name) for name in GOLD_COLUMNS))
    own = {" ".join(str(value).split()) for value in known if value is not None}
    return " ".join(text.split()) in own or benchmark.score(item, text) == 1


def make_record(
    benchmark: Benchmark,
    item: Item,
    raw: str,
    *,
    sample: int = 0,
    answer: str | None = None,
    extractor: str = "",
    score: float | None = None,
    judged_by: str = "rule",
    status: str = "",
    tokens: int | None = None,
) -> Record:
    """A record of an imported prediction.

    Args:
        answer: with `extractor`, what was found in the text, None for nothing; without it our own rule looks for it.
        score: a verdict that came with the prediction; by default our own rule gives it. 0 for all but `ok`.
        judged_by: who gave it; nobody where the request failed.
        status: one of `items.STATUSES`; by default `ok` or `no_answer`.
        tokens: None where the kit does not say.
    """
    if not extractor:
        answer, extractor = benchmark.extract(item, raw)
    status = status or ("no_answer" if answer is None else "ok")
    if item.answer is None or status == "failed":
        judged_by = "none"
    if item.answer is None:
        score = None
    elif status != "ok":
        score = 0.0
    elif score is None:
        score = benchmark.score(item, answer)
    return Record(
        dataset=benchmark.name,
        index=item.index,
        sample=sample,
        prompt_sha=UNKNOWN_PROMPT,
        prompt_style="benchmark",
        raw=raw,
        answer=answer,
        extractor=extractor,
        gold=item.answer,
        score=score,
        judged_by=judged_by,
        status=status,
        tokens=tokens,
        seed=None,
        cluster=item.cluster,
    )
