# SPDX-License-Identifier: Apache-2.0
"""A reasoner behind an OpenAI-compatible server: vLLM's, `transformers serve`, or a hosted one."""

import asyncio
import logging
import time
import traceback
import weakref
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import openai

from open_r1_vision.reasoners.client import TRANSPORT_ERRORS, Client
from open_r1_vision.reasoners.config import ReasonerConfig
from open_r1_vision.reasoners.interface import Chat, Failure, Finished, Outcome, Pending, Read, Reply
from open_r1_vision.reasoners.keys import read_key
from open_r1_vision.reasoners.loop import LoopThread, cancel_others
from open_r1_vision.reasoners.records import Question, Records, by_chat, shared

logger = logging.getLogger(__name__)

#: A batch ends by its own limit; this much later it has lost its thread.
_GRACE_SECONDS = 30.0
_PROBE_TOKENS = 16
#: How long they may take, at least.
_PROBE_SECONDS = 30.0
#: A batch's first requests leave in so many portions, with a pause between them. Those that leave together come back
#: together, and then wait for each other again and again: with 64 at once and a server of 50 ms, that took a tenth of
#: the time.
_RAMP_STEPS = 16
_RAMP_PAUSE_SECONDS = 0.001


class EndpointReasoner:
    """Asks a server, many chats at a time, in the background.

    May be made before a fork and used after it, and pickled: connections, thread and key belong to the process that
    asks, and are made there.

    Args:
        config: of kind `endpoint`.

    Raises:
        ValueError: no key in the environment variable that the config names; a cache or a log that can't be written.
    """

    in_step = False

    def __init__(self, config: ReasonerConfig) -> None:
        self.config = config
        read_key(config.api_key_env)  # now rather than in the middle of a step
        self.records = Records(config)
        self._connection: _Connection | None = None

    def __repr__(self) -> str:
        return f"EndpointReasoner({self.config.model!r} at {self.config.base_url})"

    def __reduce__(self) -> tuple:
        return EndpointReasoner, (self.config,)

    def submit(
        self, chats: Sequence[Chat], *, read: Read | None = None, tags: Sequence[Mapping[str, Any]] | None = None
    ) -> Pending:
        """See :class:`open_r1_vision.reasoners.interface.Reasoner`. The requests start now."""
        questions = self.records.questions(chats, tags)
        found = self.records.find(questions, read)
        if len(found) == len(questions):
            self.records.flush()
            return Finished(by_chat([found[index] for index in range(len(questions))], self.config.n))
        open_questions = [question for index, question in enumerate(questions) if index not in found]
        deadline = time.monotonic() + self.config.batch_seconds
        future = self._current_connection().start(open_questions, read, deadline)
        return _EndpointBatch(future, found, len(questions), self.config, deadline)

    def check(self) -> None:
        """See :class:`open_r1_vision.reasoners.interface.Reasoner`. Lists the models, and asks one short question."""
        connection = self._current_connection()
        fault = connection.thread.start(connection.check()).result()
        if fault:
            raise ValueError(fault)

    def pop_stats(self) -> dict[str, float]:
        """See :class:`open_r1_vision.reasoners.interface.Reasoner`."""
        return self.records.pop_stats()

    def close(self) -> None:
        """See :class:`open_r1_vision.reasoners.interface.Reasoner`."""
        if self._connection is not None:
            self._connection.end()
            self._connection = None
        self.records.close()

    def _current_connection(self) -> "_Connection":
        if self._connection is None or not self._connection.thread.is_mine:
            self._connection = _Connection(self.config, self.records)
            weakref.finalize(self, self._connection.end)
        return self._connection


class _Connection:
    """Thread and connections of one process."""

    def __init__(self, config: ReasonerConfig, records: Records) -> None:
        self.thread = LoopThread()
        self._config = config
        self._records = records
        self._key = read_key(config.api_key_env)
        self._client: Client | None = None

    def start(self, questions: Sequence[Question], read: Read | None, deadline: float) -> Future:
        return self.thread.start(self._ask_all(questions, read, deadline))

    def end(self) -> None:
        """Give up what is under way, close the connections and end the thread."""
        if self.thread.is_mine:
            closing = self.thread.start(self._shut_down())
            try:
                closing.result(2)
            except FutureTimeoutError:
                logger.info("Connections to %s were still busy.", self._config.base_url)
            self.thread.stop()

    async def _shut_down(self) -> None:
        await cancel_others()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def check(self) -> str:
        """What keeps the server from replying; empty when nothing does."""
        config, client = self._config, self._own_client()
        deadline = time.monotonic() + config.start_seconds
        where = f"The reasoner at {config.base_url}"
        models: list[str] = []
        while True:
            left = deadline - time.monotonic()
            try:
                models = await asyncio.wait_for(client.list_models(), max(left, 0.01))
                break
            except openai.APIStatusError as error:
                if error.status_code in (401, 403):
                    return f"{where} refuses the key: {client.explain(error)}. {self._key_advice()}"
                break  # not every server lists its models
            except (openai.APIConnectionError, TimeoutError, asyncio.TimeoutError) as error:
                if time.monotonic() + 0.5 >= deadline:
                    return (
                        f"{where} does not answer within start_seconds {config.start_seconds:g} "
                        f"({client.explain(error)}). Start the server before the run, for instance with `vllm serve "
                        f"{config.model}`, correct base_url, or raise start_seconds if it is still loading."
                    )
                await asyncio.sleep(0.5)
            except TRANSPORT_ERRORS as error:
                return f"{where} does not speak the OpenAI protocol ({client.explain(error)}). Correct base_url."
        return await self._try_question(client, models, deadline)

    async def _try_question(self, client: Client, models: list[str], deadline: float) -> str:
        config = self._config
        messages = [{"role": "user", "content": "Reply with one word."}]
        tokens = min(config.max_tokens, _PROBE_TOKENS)
        # a server whose engine is dead lists its models and never replies
        limit = min(config.request_seconds, max(config.start_seconds, _PROBE_SECONDS))
        while True:
            outcome = await client.try_once(messages, tokens, time.monotonic() + limit)
            if isinstance(outcome, Reply) or outcome.reason == "rate_limit":
                return ""
            # servers close connections now and then, and some after an error
            if outcome.reason not in ("connection", "server_error") or time.monotonic() + 0.5 >= deadline:
                break
            await asyncio.sleep(0.5)
        known = f" It has the models: {', '.join(models[:20])}." if models and config.model not in models else ""
        advice = "Correct `model` or `base_url`, which mostly ends in /v1."
        if any(f"status {status}" in outcome.message for status in (401, 403)):
            advice = self._key_advice()
        fault = str(outcome).rstrip(".")
        return f"The reasoner at {config.base_url} can't use the model {config.model!r}: {fault}.{known} {advice}"

    def _key_advice(self) -> str:
        if self._config.api_key_env is None:
            return "Set api_key_env to the name of the environment variable that holds the key."
        return f"Correct the key in the environment variable {self._config.api_key_env}."

    async def _ask_all(self, questions: Sequence[Question], read: Read | None, deadline: float) -> list[Outcome]:
        outcomes: list[Outcome] = [Failure("deadline", "the batch's time was up")] * len(questions)
        waiting = set(range(len(questions)))

        def settle(place: int) -> None:
            waiting.discard(place)
            self._records.settle(questions[place], outcomes[place])

        async def ask(places: list[int]) -> None:
            question = questions[places[0]]
            outcome = await self._own_client().ask(
                question.messages, question.sample, deadline, lambda reply: self._records.judge(reply, read)
            )
            for place in places:
                outcomes[place] = outcome if place == places[0] else shared(outcome)
                settle(place)
            if self._records.wants_flush:
                await asyncio.to_thread(self._records.flush)

        tasks = []
        step = max(self._config.concurrency // _RAMP_STEPS, 1)
        for number, places in enumerate(self._records.groups(questions)):
            tasks.append(asyncio.create_task(ask(places)))
            if number < self._config.concurrency and number % step == step - 1:
                await asyncio.sleep(_RAMP_PAUSE_SECONDS)
        _, late = await asyncio.wait(tasks, timeout=max(deadline - time.monotonic(), 0.0) + 0.05)
        for task in late:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise RuntimeError(self._describe(result)) from None
        for place in sorted(waiting):
            settle(place)
        await asyncio.to_thread(self._records.flush)
        return outcomes

    def _describe(self, error: Exception) -> str:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return (
            f"Asking {self._config.base_url}, or reading its replies, ended in a {type(error).__name__} in "
            f"{last.name} ({last.filename}:{last.lineno}): {self._own_client().explain(error)}. A function that reads "
            "replies must raise ValueError on one that holds no verdict."
        )

    def _own_client(self) -> Client:
        # here and not before: it belongs to the loop
        if self._client is None:
            self._client = Client(self._config, self._key)
        return self._client


class _EndpointBatch:
    """Chats that a server is asked."""

    def __init__(
        self, future: Future, found: Mapping[int, Outcome], count: int, config: ReasonerConfig, deadline: float
    ) -> None:
        self._future = future
        self._found = found
        self._count = count
        self._config = config
        self._deadline = deadline
        self._start = time.monotonic()
        self._end: float | None = None
        future.add_done_callback(self._note_end)

    @property
    def seconds(self) -> float:
        """See :class:`open_r1_vision.reasoners.interface.Pending`."""
        return (self._end or time.monotonic()) - self._start

    def _note_end(self, future: Future) -> None:
        self._end = time.monotonic()

    def result(self) -> list[list[Outcome]]:
        """See :class:`open_r1_vision.reasoners.interface.Pending`."""
        limit = max(self._deadline - time.monotonic(), 0.0) + _GRACE_SECONDS
        try:
            return self._merge(self._future.result(limit))
        except CancelledError:
            raise RuntimeError(
                f"{self._config.base_url} was still being asked when its reasoner was closed."
            ) from None
        except FutureTimeoutError:
            raise RuntimeError(
                f"The batch sent to {self._config.base_url} did not end within batch_seconds "
                f"{self._config.batch_seconds:g} and {_GRACE_SECONDS:g} s more: its thread was blocked or ended."
            ) from None

    def __await__(self) -> Generator[Any, None, list[list[Outcome]]]:
        return self._wait().__await__()

    async def _wait(self) -> list[list[Outcome]]:
        return self._merge(await asyncio.wrap_future(self._future))

    def _merge(self, outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
        asked = iter(outcomes)
        merged = [self._found[index] if index in self._found else next(asked) for index in range(self._count)]
        return by_chat(merged, self._config.n)
