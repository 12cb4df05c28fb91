# SPDX-License-Identifier: Apache-2.0
"""A text model that judges the answers which the rule finds wrong: 0 or 1, at temperature 0, from a cache on disk.

The rule comes first. Where it gives full marks it is sure, and nobody else is asked. What it finds wrong may be right
in words that it can't read, and a reply in which it finds no answer may hold one all the same: these are what the
judge is shown. So it can only raise a score, and the summary says by how much.

What it is shown stands in a fence, see :mod:`open_r1_vision.reasoners.fencing`. A judge that fails gives no verdict:
the score stays the rule's, `judged_by` becomes `none`, and the next start of the run asks again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.items import Item, Record
from open_r1_vision.prompts import load_prompt
from open_r1_vision.reasoners import Failure, Reasoner, ReasonerConfig, build_reasoner
from open_r1_vision.reasoners.config import DECIDING, read_block
from open_r1_vision.reasoners.fencing import fence

SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"type": "integer", "enum": [0, 1]}},
    "required": ["verdict"],
    "additionalProperties": False,
}
PROMPT = "answer_judge"
#: Extractor of an answer that only the judge found.
FOUND_BY_JUDGE = "judge"
#: Of a reply without answer the last so many characters are shown: an answer stands at the end.
_SHOWN_CHARS = 4_000
#: Asked together; verdicts go to the cache as they come.
_AT_ONCE = 256


def judge_config(block: str, folder: Path) -> ReasonerConfig:
    """The judge's settings: temperature 0, one reply, a schema, and a cache in the run's folder if none is named.

    Args:
        block: as JSON, or a file, see :func:`open_r1_vision.reasoners.config.read_block`.
        folder: of the run.

    Raises:
        ValueError: settings that can't work, or that a judge does not have.
    """
    given = read_block(block, "judge")
    fixed = {"temperature": 0, "n": 1}
    odd = [f"{name}: {given[name]}" for name, value in fixed.items() if given.get(name, value) != value]
    if odd or "response_schema" in given:
        raise ValueError(
            f"The judge's block has {', '.join(odd) or 'a response_schema'}, but a verdict is one reply at "
            "temperature 0, of 0 or 1: leave that out."
        )
    if given.get("kind", "policy") == "policy":
        raise ValueError(
            "The judge's kind is policy, which is the model that is judged: set kind to endpoint or local, and model."
        )
    defaults = {"max_tokens": 512, "cache": str(folder / "judge.sqlite")}
    return ReasonerConfig.from_mapping({**defaults, **given, "response_schema": SCHEMA})


def judge_settings(config: ReasonerConfig | None) -> dict[str, Any] | None:
    """What of a judge decides its verdicts."""
    return None if config is None else {**{name: getattr(config, name) for name in DECIDING}, "prompt": PROMPT}


def needs_judge(record: Record) -> bool:
    """Whether the rule leaves something open: an answer that it finds wrong, or none found; not what was cut off."""
    return (
        record.gold is not None
        and record.status in ("ok", "no_answer")
        and record.judged_by != "llm"
        and (record.score or 0.0) < 1
    )


def judge_failed(record: Record) -> bool:
    """Whether a judge was asked and gave no verdict."""
    return record.judged_by == "none" and record.gold is not None and record.status in ("ok", "no_answer")


class Judge:
    """Asks a reasoner, see the module.

    Args:
        config: from :func:`judge_config`.
        reasoner: who is asked; by default that of the config, when it is first needed.
    """

    def __init__(self, config: ReasonerConfig, reasoner: Reasoner | None = None) -> None:
        self.config = config
        self._reasoner = reasoner
        self._prompt = load_prompt(PROMPT)
        #: Why verdicts are missing, with how many there are of each.
        self.failures: dict[str, int] = {}

    def check(self) -> None:
        """Find out whether a server answers, before anything else is done; a local model is loaded when it is needed.

        Raises:
            ValueError: it does not.
        """
        if self.config.kind == "endpoint":
            _ = self._ready()

    def judge(
        self, items: Mapping[str, Item], records: Sequence[Record], done: Callable[[int], object]
    ) -> list[Record]:
        """The records with verdicts, in their order.

        Args:
            items: by index.
            records: for which :func:`needs_judge` is true.
            done: gets the number of those that are done, from time to time.
        """
        judged: list[Record] = []
        for start in range(0, len(records), _AT_ONCE):
            part = records[start : start + _AT_ONCE]
            chats = [self._chat(items[record.index], record) for record in part]
            tags = [{"index": record.index, "sample": record.sample} for record in part]
            outcomes = self._ready().submit(chats, tags=tags).result()
            judged += [self._settle(record, outcome) for record, (outcome,) in zip(part, outcomes, strict=True)]
            done(len(part))
        return judged

    def close(self) -> None:
        """Give back what it holds."""
        if self._reasoner is not None:
            self._reasoner.close()

    def _ready(self) -> Reasoner:
        if self._reasoner is None:
            self._reasoner = build_reasoner(self.config)
        return self._reasoner

    def _chat(self, item: Item, record: Record) -> list[dict[str, str]]:
        options = "".join(f"\n{letter}. {text}" for letter, text in item.options.items())
        question = fence(item.question + options, "question")
        gold = fence(record.gold or "", "reference", beside=question)
        if record.answer is not None:
            answer = fence(record.answer[-_SHOWN_CHARS:], "answer", beside=question + gold)
        else:
            answer = fence(record.raw[-_SHOWN_CHARS:], "response", beside=question + gold)
        request = 'Is the answer right? Reply with {"verdict": 1} or {"verdict": 0}.'
        text = "\n\n".join([question, gold, answer, request])
        return [{"role": "system", "content": self._prompt}, {"role": "user", "content": text}]

    def _settle(self, record: Record, outcome: Any) -> Record:
        if isinstance(outcome, Failure):
            self.failures[outcome.reason] = self.failures.get(outcome.reason, 0) + 1
            return replace(record, judged_by="none")
        if outcome.verdict["verdict"] == 0:
            return replace(record, judged_by="llm")
        found = record.extractor if record.answer is not None else FOUND_BY_JUDGE
        return replace(record, judged_by="llm", score=1.0, status="ok", extractor=found)
