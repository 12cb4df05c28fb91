# SPDX-License-Identifier: Apache-2.0
"""What a reasoner is asked, what it gives back, and the interface that all of them have.

A reasoner is a text model that answers from captions or judges what a text says: the live policy, a frozen model in
this process, or a server. It gets chats and gives back, for each of them, `n` outcomes: a reply, or a failure that
says why there is none. A failure is data and never an exception: `failures.py` decides what it does to a reward.
"""

import asyncio
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from open_r1_vision.reasoners.config import ReasonerConfig

#: Messages with `role` and `content`; a content is a string or a list of `{"type": "text"}` parts.
Chat = Sequence[Mapping[str, Any]]
#: Turns a reply into a verdict, or raises ValueError when it holds none. Pure: it may be called twice on one reply.
Read = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a reasoner wrote.

    Attributes:
        text: the reply, without special tokens.
        finish_reason: `stop`, or `length` when the limit of tokens cut it.
        verdict: what `read` made of the text, None without `read`.
        cached: whether it came from the cache, or was asked for once for several equal chats.
        attempts: requests that were sent for it, 0 when it is cached.
        seconds: from its turn to the reply, pauses between attempts included.
        num_tokens: of the completion, as the server counts them; None where it does not say.
    """

    text: str
    finish_reason: str = "stop"
    verdict: Any = None
    cached: bool = False
    attempts: int = 1
    seconds: float = 0.0
    num_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no reply.

    Attributes:
        reason: one word for counting: `timeout`, `connection`, `server_error` (5xx), `rate_limit` (429), `refused`
            (another 4xx, or a content filter), `malformed` (not the protocol), `unreadable` (`read` found no verdict),
            `outage` (not sent, the server is down), `deadline` (the batch's time was up), `too_long` (the prompt).
        message: what happened, for a person; never holds a key.
        reply: what the reasoner wrote, where it wrote something that is no verdict.
        attempts: requests that were sent.
        seconds: from its turn to giving up.
    """

    reason: str
    message: str
    reply: str | None = None
    attempts: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


Outcome = Reply | Failure


class Pending(Protocol):
    """Chats on their way. `pending.result()` waits in a thread, `await pending` in a coroutine.

    Attributes:
        seconds: how long the reasoner worked on them, known once there is a result. Less the time that was waited for
            the result it is what was hidden behind other work.
    """

    @property
    def seconds(self) -> float: ...

    def result(self) -> list[list[Outcome]]:
        """For each chat its `n` outcomes, in the order of the chats."""
        ...

    def __await__(self) -> Generator[Any, None, list[list[Outcome]]]: ...


class Reasoner(Protocol):
    """A text model that replies to chats.

    Attributes:
        config: how it was set up; holds no key.
        in_step: whether all processes must submit equally many chats and await them in the same order, because they
            generate together.
    """

    config: ReasonerConfig
    in_step: bool

    def submit(
        self, chats: Sequence[Chat], *, read: Read | None = None, tags: Sequence[Mapping[str, Any]] | None = None
    ) -> Pending:
        """Start to reply; returns at once.

        A server is asked from now on. A model in this process replies when the result is wanted, in the thread that
        wants it.

        Args:
            chats: texts only.
            read: makes a verdict of each reply; a reply on which it raises ValueError becomes a failure. By default,
                with a `response_schema`, the JSON value; else none.
            tags: something JSON-able for each chat, such as a row's id, for the log.

        Raises:
            ValueError: a chat that holds more than text, or as many tags as chats are not there.
        """
        ...

    def check(self) -> None:
        """Find out within seconds whether it can reply.

        Raises:
            ValueError: it can't; the message says why and what to set.
        """
        ...

    def pop_stats(self) -> dict[str, float]:
        """Counts since the last call: `asked`, `cached`, `failed`, `failed/<reason>`, `retries`, `seconds`."""
        ...

    def close(self) -> None:
        """Give back what it holds. It may be asked again afterwards."""
        ...


class Finished:
    """Outcomes that are there already."""

    seconds = 0.0

    def __init__(self, outcomes: list[list[Outcome]]) -> None:
        self._outcomes = outcomes

    def result(self) -> list[list[Outcome]]:
        """See :class:`Pending`."""
        return self._outcomes

    def __await__(self) -> Generator[Any, None, list[list[Outcome]]]:
        yield from ()
        return self._outcomes


class Deferred:
    """Outcomes that are worked out, once, when they are wanted."""

    def __init__(self, work: Callable[[], list[list[Outcome]]]) -> None:
        self._work: Callable[[], list[list[Outcome]]] | None = work
        self._outcomes: list[list[Outcome]] = []
        self.seconds = 0.0

    def result(self) -> list[list[Outcome]]:
        """See :class:`Pending`."""
        if self._work is not None:
            start = time.monotonic()
            self._outcomes = self._work()
            self._work = None
            self.seconds = time.monotonic() - start
        return self._outcomes

    def __await__(self) -> Generator[Any, None, list[list[Outcome]]]:
        return asyncio.to_thread(self.result).__await__()


def plain_chat(chat: Chat) -> list[dict[str, str]]:
    """The chat with each content as one string, as every chat template and server takes it.

    Raises:
        ValueError: a content that is more than text.
    """
    return [{"role": message["role"], "content": _plain_content(message["content"])} for message in chat]


def clean_text(text: str) -> str:
    """The text without lone surrogates, which neither UTF-8 nor a database can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _plain_content(content: Any) -> str:
    if isinstance(content, str):
        return clean_text(content)
    if isinstance(content, Sequence) and all(part.get("type") == "text" for part in content):
        return clean_text("\n".join(part["text"] for part in content))
    raise ValueError(
        f"A reasoner can't be given the content {content!r:.100}, because it reads text only. Give a string or parts "
        'of type "text", and leave images to the policy.'
    )
