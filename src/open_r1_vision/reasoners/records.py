# SPDX-License-Identifier: Apache-2.0
"""What every reasoner does around its model: cache, log, verdicts and counts."""

import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

from open_r1_vision.reasoners.cache import ReplyCache
from open_r1_vision.reasoners.config import ReasonerConfig
from open_r1_vision.reasoners.interface import Chat, Failure, Outcome, Read, Reply, plain_chat
from open_r1_vision.reasoners.log import RequestLog
from open_r1_vision.reasoners.structured import schema_reader

#: Records that are written together. A process that is killed loses fewer than these.
_BUFFERED = 64
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Question:
    """One chat, asked once.

    Attributes:
        messages: the chat, each content one string.
        sample: which of the `n` replies to the chat this is, from 0.
        key: what decides the reply, hashed: model, messages, sampling, sample.
        tag: what the caller wants to find in the log.
    """

    messages: list[dict[str, str]]
    sample: int
    key: bytes
    tag: Mapping[str, Any] | None


class Records:
    """Cache, log and counts of one reasoner.

    Args:
        config: the reasoner's.
    """

    def __init__(self, config: ReasonerConfig) -> None:
        self.config = config
        self._cache = ReplyCache(config.cache) if config.cache and config.caches else None
        self._log = RequestLog(config.log) if config.log else None
        self._read = schema_reader(config.response_schema) if config.response_schema else None
        sampling = (config.temperature, config.top_p, config.max_tokens, config.seed)
        fields = (config.response_schema, config.chat_template_kwargs, config.extra_body)
        self._prefix = hashlib.blake2b(json.dumps([config.model, sampling, fields]).encode(), digest_size=16)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._new_replies: list[tuple[bytes, str, str, str]] = []
        self._new_lines: list[dict[str, Any]] = []

    def questions(self, chats: Sequence[Chat], tags: Sequence[Mapping[str, Any]] | None) -> list[Question]:
        """`n` questions for each chat, in order.

        Raises:
            ValueError: as `Reasoner.submit`.
        """
        if tags is not None and len(tags) != len(chats):
            raise ValueError(f"There are {len(tags)} tags for {len(chats)} chats: give one for each, or none.")
        questions = []
        for index, chat in enumerate(chats):
            messages = plain_chat(chat)
            text = self._prefix.copy()
            text.update(_encode(messages).encode())
            for sample in range(self.config.n):
                digest = text.copy()
                digest.update(b"%d" % sample)
                questions.append(Question(messages, sample, digest.digest(), tags[index] if tags else None))
        return questions

    def find(self, questions: Sequence[Question], read: Read | None) -> dict[int, Outcome]:
        """Replies from the cache, by position. One that `read` finds no verdict in is left out, and asked anew."""
        if self._cache is None:
            return {}
        texts = self._cache.get([question.key for question in questions])
        read = read or self._read
        found: dict[int, Outcome] = {}
        for index, question in enumerate(questions):
            if question.key in texts:
                text, finish_reason = texts[question.key]
                outcome = judge(Reply(text, finish_reason, cached=True, attempts=0), read)
                if isinstance(outcome, Reply):
                    found[index] = outcome
                    self._note(question, outcome)
        self.count(asked=len(found), cached=len(found))
        return found

    def judge(self, reply: Reply, read: Read | None) -> Outcome:
        """The reply with its verdict, or a failure if it holds none."""
        return judge(reply, read or self._read)

    def groups(self, questions: Sequence[Question]) -> list[list[int]]:
        """Places of questions that are asked together: equal ones where equal questions have equal replies."""
        shares = self.config.temperature == 0 or self.config.caches
        groups: dict[Any, list[int]] = {}
        for place, question in enumerate(questions):
            groups.setdefault(question.key if shares else place, []).append(place)
        return list(groups.values())

    def settle(self, question: Question, outcome: Outcome) -> None:
        """Count, log and keep an outcome. `flush` writes it, at the latest."""
        is_cached = isinstance(outcome, Reply) and outcome.cached
        self.count(asked=1, cached=int(is_cached), retries=max(outcome.attempts - 1, 0), seconds=outcome.seconds)
        if isinstance(outcome, Failure):
            self.count(**{"failed": 1, f"failed/{outcome.reason}": 1})
        elif self._cache is not None and not is_cached:
            with self._lock:
                self._new_replies.append((question.key, str(self.config.model), outcome.text, outcome.finish_reason))
        self._note(question, outcome)

    @property
    def wants_flush(self) -> bool:
        """Whether enough has gathered to be written."""
        return max(len(self._new_replies), len(self._new_lines)) >= _BUFFERED

    def flush(self) -> None:
        """Write what has gathered."""
        with self._lock:
            replies, self._new_replies = self._new_replies, []
            lines, self._new_lines = self._new_lines, []
        if replies and self._cache is not None:
            self._cache.put(replies)
        if lines and self._log is not None:
            self._log.write(lines)

    def count(self, **counts: float) -> None:
        """Add to the counts."""
        with self._lock:
            for name, value in counts.items():
                self._counts[name] += value  # type: ignore[assignment]

    def pop_stats(self) -> dict[str, float]:
        """See :meth:`open_r1_vision.reasoners.interface.Reasoner.pop_stats`."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return dict.fromkeys(("asked", "cached", "failed", "retries", "seconds"), 0.0) | dict(counts)

    def close(self) -> None:
        """Write what has gathered, and close the cache."""
        self.flush()
        if self._cache is not None:
            self._cache.close()

    def _note(self, question: Question, outcome: Outcome) -> None:
        if self._log is None:
            return
        config = self.config
        line: dict[str, Any] = {
            "id": f"{question.key.hex()}-{question.sample}",
            "time": round(time.time(), 3),
            "rank": int(os.environ.get("RANK", "0")),
            "kind": config.kind,
            "model": config.model,
            "sampling": {name: getattr(config, name) for name in ("temperature", "top_p", "max_tokens", "seed")},
            "tag": question.tag,
            "messages": question.messages,
        }
        if isinstance(outcome, Reply):
            verdict = asdict(outcome.verdict) if is_dataclass(outcome.verdict) else outcome.verdict  # type: ignore
            line |= {"reply": outcome.text, "finish_reason": outcome.finish_reason, "verdict": verdict}
            line |= {"failure": None, "cached": outcome.cached}
        else:
            line |= {"reply": outcome.reply, "finish_reason": None, "verdict": None}
            line |= {"failure": {"reason": outcome.reason, "message": outcome.message}, "cached": False}
        line |= {"attempts": outcome.attempts, "seconds": round(outcome.seconds, 4)}
        with self._lock:
            self._new_lines.append(line)


def judge(reply: Reply, read: Read | None) -> Outcome:
    """The reply with the verdict that `read` finds in it, or a failure `unreadable`."""
    if read is None:
        return reply
    try:
        verdict = read(reply.text)
    except ValueError as error:
        return Failure("unreadable", str(error), reply.text, reply.attempts, reply.seconds)
    return replace(reply, verdict=verdict)


def shared(outcome: Outcome) -> Outcome:
    """The outcome for a further question that was answered by the same request."""
    if isinstance(outcome, Reply):
        return replace(outcome, cached=True, attempts=0, seconds=0.0)
    return replace(outcome, attempts=0, seconds=0.0)


def by_chat(outcomes: Sequence[Outcome], n: int) -> list[list[Outcome]]:
    """Outcomes of consecutive questions, grouped by chat."""
    return [list(outcomes[start : start + n]) for start in range(0, len(outcomes), n)]
