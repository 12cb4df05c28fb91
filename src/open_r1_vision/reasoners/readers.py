# SPDX-License-Identifier: Apache-2.0
"""A reasoner as a reader of captions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from open_r1_vision.reasoners.captions import Reading, parse_reply, reader_messages
from open_r1_vision.reasoners.interface import Failure, Pending, Reasoner


class TextReader:
    """Reads captions with any reasoner: see :class:`open_r1_vision.reasoners.captions.CaptionReader`.

    Args:
        reasoner: whoever reads; it must give one reply to a chat.
        system_prompt: what the reader is told to do.
        messages: makes a chat of caption, problem and system prompt.
        parse: reads a reply.

    Raises:
        ValueError: the reasoner gives several replies.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        system_prompt: str,
        *,
        messages: Callable[[str, str, str], list[dict]] = reader_messages,
        parse: Callable[[str], Reading] = parse_reply,
    ) -> None:
        if reasoner.config.n != 1:
            raise ValueError(
                f"n is {reasoner.config.n}, but a reader gives one reading of a caption: set the reasoner's n to 1."
            )
        self.reasoner = reasoner
        self.system_prompt = system_prompt
        self.messages = messages
        self.parse = parse

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
        return PendingReadings(pending, dict(zip(asked, places, strict=True)), len(pairs), self.parse)

    def read(self, captions: Sequence[str | None], problems: Sequence[str]) -> list[Reading]:
        """See :class:`open_r1_vision.reasoners.captions.CaptionReader`."""
        return self.start(captions, problems).result()

    def _verdict(self, text: str) -> str | None:
        """What stands in the log beside the reply."""
        reading = self.parse(text)
        return reading.answer if reading.is_description else "(not a description)"


class PendingReadings:
    """Readings on their way."""

    def __init__(
        self, pending: Pending, places: Mapping[int, int | None], count: int, parse: Callable[[str], Reading]
    ) -> None:
        self._pending = pending
        self._places = places
        self._count = count
        self._parse = parse

    def result(self) -> list[Reading]:
        """One reading for each caption, in order; waits for the last of them."""
        outcomes = [replies[0] for replies in self._pending.result()]
        readings = []
        for index in range(self._count):
            place = self._places.get(index)
            outcome = outcomes[place] if place is not None else None
            if outcome is None:
                readings.append(Reading("", None))
            elif isinstance(outcome, Failure):
                readings.append(Reading(outcome.reply or "", None, failure=str(outcome)))
            else:
                readings.append(self._parse(outcome.text))
        return readings
