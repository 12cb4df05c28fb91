# SPDX-License-Identifier: Apache-2.0
"""A reasoner as a judge of facts: which of a row's facts does a response state?

Perception-R1 (arXiv 2506.07218) pays for facts that a text model finds in a response. What it judges was written by a
policy that is paid for verdicts of 1, so nothing in it is trusted: it stands in a fence, see `fencing.py`, and the
instruction is said once more behind it. Of the reply only the exact verdicts are taken: all of them, in order, 0 or 1,
and nothing else. Anything else is a failure, which is not a score: see `failures.py`.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from open_r1_vision.reasoners.config import ReasonerConfig
from open_r1_vision.reasoners.fencing import MAX_CHARS, fence, harmless
from open_r1_vision.reasoners.interface import Failure, Pending, Reasoner
from open_r1_vision.reasoners.structured import check_schema, parse_json


def verdict_schema(count: int | None = None) -> dict[str, Any]:
    """The JSON schema of a reply with verdicts on `count` facts, or on any number of them."""
    entry = {
        "type": "object",
        "properties": {"fact": {"type": "integer"}, "stated": {"type": "integer", "enum": [0, 1]}},
        "required": ["fact", "stated"],
        "additionalProperties": False,
    }
    limits = {} if count is None else {"minItems": count, "maxItems": count}
    return {
        "type": "object",
        "properties": {"verdicts": {"type": "array", "items": entry, **limits}},
        "required": ["verdicts"],
        "additionalProperties": False,
    }


#: For `response_schema`, which is one for all chats of a reasoner.
FACT_SCHEMA = verdict_schema()


def judge_config(config: ReasonerConfig) -> ReasonerConfig:
    """The config with `FACT_SCHEMA` where it has no schema, so that servers and vLLM write nothing else."""
    return replace(config, response_schema=FACT_SCHEMA) if config.response_schema is None else config


@dataclass(frozen=True, slots=True)
class FactVerdicts:
    """What a judge said of one response.

    Attributes:
        verdicts: 1 for each fact that the response states, else 0; empty without facts, None after a failure.
        failure: why there are none although there are facts. Such a response is not a bad one, see `failures.py`.
        reply: what the judge wrote; empty when it was not asked.
    """

    verdicts: tuple[int, ...] | None
    failure: str | None = None
    reply: str = ""


def read_verdicts(text: str, count: int | None = None) -> tuple[int, ...]:
    """The verdicts of a reply that is `{"verdicts": [{"fact": 1, "stated": 0}, ...]}`.

    Thinking up to the last `</think>`, and one code fence around the whole, are left out.

    Args:
        text: the reply.
        count: how many facts there are; None for any number.

    Raises:
        ValueError: it is anything else: not one verdict for each fact, in order, 0 or 1, or something beside them.
            Of two objects, or of a key given twice, either could be the response's own, repeated.
    """
    reply = text.rpartition("</think>")[2].strip()
    reply = reply.removeprefix("```").removeprefix("json").removesuffix("```").strip()
    value = parse_json(reply)
    check_schema(value, verdict_schema(count))
    numbers = [entry["fact"] for entry in value["verdicts"]]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError(f"the reply numbers its verdicts {numbers!r:.60}, not from 1 on and in order")
    # nothing spells these values shorter, so that a longer reply holds more than them
    if len("".join(reply.split())) != len(json.dumps(value, separators=(",", ":"))):
        raise ValueError(f"the reply holds more than one object with the verdicts: {reply!r:.80}")
    return tuple(entry["stated"] for entry in value["verdicts"])


def judge_messages(
    response: str, facts: Sequence[str], system_prompt: str, max_response_chars: int = MAX_CHARS
) -> list[dict]:
    """The chat that asks which of the facts the response states.

    The system prompt and the facts come first, so that a server keeps them for all responses to a question.

    Args:
        response: what the policy wrote; whatever it holds.
        facts: one or more; each becomes one numbered line.
        system_prompt: what the judge is told to do.
        max_response_chars: of a longer response the first and the last half of so many characters are shown.
    """
    lines = "\n".join(f"{number}. {harmless(' '.join(fact.split()))}" for number, fact in enumerate(facts, 1))
    count = len(facts)
    fenced = fence(response, "response", beside=lines, max_chars=max_response_chars)
    text = (
        f"Facts:\n{lines}\n\n{fenced} Say of each of the facts above, "
        f"{f'1 to {count}' if count > 1 else 'here only fact 1'}, whether the response states it. Reply only "
        'with {"verdicts": [{"fact": 1, "stated": 0 or 1}, ...]}, '
        f"with {count} {'entries' if count != 1 else 'entry'} in the order of the facts."
    )
    return [
        {"role": "system", "content": [{"type": "text", "text": system_prompt}]},
        {"role": "user", "content": [{"type": "text", "text": text}]},
    ]


class FactJudge:
    """Has any reasoner say which facts a response states.

    Args:
        reasoner: whoever judges; it must give one reply to a chat. Build it with :func:`judge_config`.
        system_prompt: what the judge is told to do, such as the prompt `fact_judge`.
        max_response_chars: of a longer response the judge sees the beginning and the end, half of it each, so that
            no response fills the judge's context. What stands in between is not stated for it.

    Raises:
        ValueError: the reasoner gives several replies, or the limit leaves nothing of a response.
    """

    def __init__(self, reasoner: Reasoner, system_prompt: str, *, max_response_chars: int = MAX_CHARS) -> None:
        if reasoner.config.n != 1:
            raise ValueError(
                f"n is {reasoner.config.n}, but a judge gives one verdict on a fact: set the reasoner's n to 1."
            )
        if max_response_chars < 2:
            raise ValueError(
                f"max_response_chars is {max_response_chars}, which leaves nothing to judge: set it to some thousands."
            )
        self.reasoner = reasoner
        self.system_prompt = system_prompt
        self.max_response_chars = max_response_chars

    def start(
        self,
        responses: Sequence[str],
        facts: Sequence[Sequence[str]],
        tags: Sequence[Mapping[str, Any]] | None = None,
    ) -> "PendingVerdicts":
        """Begin to judge; returns at once, and a server is asked from now on.

        Args:
            responses: one for each completion of this process. Entries stay at their place.
            facts: the facts of each response's row; empty where there are none.
            tags: something JSON-able for each response, such as its row's id, for the log.

        Raises:
            ValueError: as many facts or tags as responses are not there.
        """
        pairs = list(zip(responses, facts, strict=True))
        if tags is not None and len(tags) != len(pairs):
            raise ValueError(f"There are {len(tags)} tags for {len(pairs)} responses: give one for each, or none.")
        counts = [len(row) for row in facts]
        batches = []
        for count, places in self._batches(counts):
            # whatever is said of an empty response is ignored
            asked = [pairs[place] if counts[place] else ("", ["-"]) for place in places]
            chats = [judge_messages(*pair, self.system_prompt, self.max_response_chars) for pair in asked]
            pending = self.reasoner.submit(
                chats,
                read=functools.partial(read_verdicts, count=count),
                tags=[tags[place] for place in places] if tags is not None else None,
            )
            batches.append((pending, places))
        return PendingVerdicts(batches, counts)

    def judge(self, responses: Sequence[str], facts: Sequence[Sequence[str]]) -> list[FactVerdicts]:
        """`start`, and wait."""
        return self.start(responses, facts).result()

    def _batches(self, counts: Sequence[int]) -> list[tuple[int | None, list[int]]]:
        """Places that are asked together, and how many facts they have; None where the numbers differ."""
        # together with other processes, one without facts is asked for too: all must generate equally often
        if self.reasoner.in_step:
            return [(None, list(range(len(counts))))]
        asked = [place for place, count in enumerate(counts) if count]
        if self.reasoner.config.kind != "endpoint":
            return [(None, asked)] if asked else []  # one batch is faster than several, and has one time limit
        # by number of facts, so that a server's reply of another length is neither cached nor counted as one
        by_count: dict[int | None, list[int]] = {}
        for place in asked:
            by_count.setdefault(counts[place], []).append(place)
        return list(by_count.items())


class PendingVerdicts:
    """Verdicts on their way."""

    def __init__(self, batches: Sequence[tuple[Pending, Sequence[int]]], counts: Sequence[int]) -> None:
        self._batches = batches
        self._counts = counts

    @property
    def seconds(self) -> float:
        """See :class:`open_r1_vision.reasoners.interface.Pending`; several batches are asked at the same time."""
        return max((pending.seconds for pending, _ in self._batches), default=0.0)

    def result(self) -> list[FactVerdicts]:
        """The verdicts on each response, in order; waits for the last of them."""
        verdicts = [FactVerdicts(())] * len(self._counts)
        for pending, places in self._batches:
            for place, (outcome,) in zip(places, pending.result(), strict=True):
                if self._counts[place]:
                    verdicts[place] = _settle(outcome, self._counts[place])
        return verdicts


def _settle(outcome: Any, count: int) -> FactVerdicts:
    if isinstance(outcome, Failure):
        return FactVerdicts(None, str(outcome), outcome.reply or "")
    try:
        return FactVerdicts(read_verdicts(outcome.text, count), None, outcome.text)
    except ValueError as error:
        return FactVerdicts(None, f"unreadable: {error}", outcome.text)
