# SPDX-License-Identifier: Apache-2.0
"""A reasoner as a reader of captions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from open_r1_vision.reasoners.captions import Reading, parse_reply, reader_messages
from open_r1_vision.reasoners.interface import Failure, Outcome, Pending, Reasoner, Reply


class TextReader:
    """Reads captions with any reasoner: see :class:`open_r1_vision.reasoners.captions.CaptionReader`.

    Args:
        reasoner: whoever reads. Where it gives several replies to a chat, the first that did not fail is the reading,
            and the others are `further` ones.
        system_prompt: what the reader is told to do.
        messages: makes a chat of caption, problem and system prompt.
        parse: reads a reply.
        cut_replies_count: whether a reply that the limit of tokens cut may hold an answer. One that was still
            thinking may hold a box that is no answer.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        system_prompt: str,
        *,
        messages: Callable[[str, str, str], list[dict]] = reader_messages,
        parse: Callable[[str], Reading] = parse_reply,
        cut_replies_count: bool = True,
    ) -> None:
        self.reasoner = reasoner
        self.system_prompt = system_prompt
        self.messages = messages
        self.parse = parse
        self.cut_replies_count = cut_replies_count

    def start(
        self,
        captions: Sequence[str | None],
        problems: Sequence[str],
        tags: Sequence[Mapping[str, Any]] | None = None,
    ) -> "PendingReadings":
        """Begin to read; returns at once, and a server is asked from now on.

        Args:
            captions: as for `read`.
            problems: as for `read`.
            tags: something JSON-able for each caption, such as its row's id, for the log.
        """
        pairs = list(zip(captions, problems, strict=True))
        # together with other processes, one without caption is asked for too: all must generate equally often
        asked = [index for index, (caption, _) in enumerate(pairs) if self.reasoner.in_step or caption is not None]
        chats = [self.messages(pairs[index][0] or "", pairs[index][1], self.system_prompt) for index in asked]
        pending = self.reasoner.submit(
            chats, read=self._verdict, tags=[tags[index] for index in asked] if tags else None
        )
        places = [position if pairs[index][0] is not None else None for position, index in enumerate(asked)]
        return PendingReadings(pending, dict(zip(asked, places, strict=True)), len(pairs), self._read)

    def read(self, captions: Sequence[str | None], problems: Sequence[str]) -> list[Reading]:
        """See :class:`open_r1_vision.reasoners.captions.CaptionReader`."""
        return self.start(captions, problems).result()

    def _read(self, reply: Reply) -> Reading:
        if reply.finish_reason == "length" and not self.cut_replies_count:
            return Reading(reply.text, None)
        return self.parse(reply.text)

    def _verdict(self, text: str) -> str | None:
        """What stands in the log beside the reply."""
        reading = self.parse(text)
        return reading.answer if reading.is_description else "(not a description)"


class PendingReadings:
    """Readings on their way."""

    def __init__(
        self, pending: Pending, places: Mapping[int, int | None], count: int, read: Callable[[Reply], Reading]
    ) -> None:
        self._pending = pending
        self._places = places
        self._count = count
        self._read = read

    @property
    def seconds(self) -> float:
        """See :class:`open_r1_vision.reasoners.interface.Pending`."""
        return self._pending.seconds

    def result(self) -> list[Reading]:
        """One reading for each caption, in order; waits for the last of them."""
        outcomes = self._pending.result()
        readings = []
        for index in range(self._count):
            place = self._places.get(index)
            readings.append(Reading("", None) if place is None else self._merge(outcomes[place]))
        return readings

    def _merge(self, outcomes: Sequence[Outcome]) -> Reading:
        """One reading of all replies about a caption; those that failed are left out unless all did."""
        readings = [self._read(outcome) for outcome in outcomes if isinstance(outcome, Reply)]
        if not readings:
            failure = next(outcome for outcome in outcomes if isinstance(outcome, Failure))
            return Reading(failure.reply or "", None, failure=str(failure))
        return replace(readings[0], further=tuple(readings[1:]))
