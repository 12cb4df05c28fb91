# SPDX-License-Identifier: Apache-2.0
"""One chat asked of an OpenAI-compatible server: limits, retries, and what came of it."""

import asyncio
import importlib.util
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import openai

from open_r1_vision.reasoners.breaker import Breaker
from open_r1_vision.reasoners.config import ReasonerConfig
from open_r1_vision.reasoners.interface import Failure, Outcome, Reply, clean_text
from open_r1_vision.reasoners.keys import Redactor

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 30.0
_CONNECT_SECONDS = 10.0
_MESSAGE_CHARS = 300
#: What openai would tell a server about this machine, in each request.
_MACHINE_HEADERS = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
_TIMEOUT, _TOO_MANY, _CONFLICT = 408, 429, 409
#: Fields that some servers don't have; they are left out once a server has refused them. No others: what would
#: change the sampling or the prompt is for the user to change.
_OPTIONAL_FIELDS = ("response_format", "seed")


def _transport_errors() -> tuple[type[Exception], ...]:
    """What a request may raise that is the server's or the network's doing: openai lets some of aiohttp's through."""
    errors: tuple[type[Exception], ...] = (openai.OpenAIError, OSError, ValueError, RecursionError)
    if importlib.util.find_spec("aiohttp"):
        from aiohttp import ClientError

        errors = (*errors, ClientError)
    return errors


TRANSPORT_ERRORS = _transport_errors()


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What one request came to.

    Attributes:
        again: whether another attempt may come out better.
        alive: whether the server gave a sign of life; None when its time was cut short.
        after: seconds that the server asks to wait.
    """

    outcome: Outcome
    again: bool = False
    alive: bool | None = True
    after: float = 0.0


class Client:
    """Asks one server. Belongs to the event loop that it is first used in.

    Args:
        config: of kind `endpoint`.
        key: sent as the bearer token, and taken out of whatever comes back.
    """

    def __init__(self, config: ReasonerConfig, key: str) -> None:
        self.config = config
        self.redact = Redactor(key)
        self.breaker = Breaker(config.breaker_failures, config.outage_seconds, config.backoff_seconds)
        self._places = asyncio.Semaphore(config.concurrency)
        self._refused: set[str] = set()
        self._url = f"{config.base_url}/chat/completions"
        headers: Any = {f"X-Stainless-{name}": openai.omit for name in _MACHINE_HEADERS}
        connect = min(_CONNECT_SECONDS, config.request_seconds)
        self._api = openai.AsyncOpenAI(
            base_url=config.base_url,
            api_key=key,
            max_retries=0,  # ours know the batch's time limit and the breaker
            timeout=openai.Timeout(config.request_seconds, connect=connect),
            default_headers=headers,
            http_client=_fast_transport(),
        )

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        sample: int,
        deadline: float,
        judge: Callable[[Reply], Outcome],
    ) -> Outcome:
        """Ask until there is a verdict, no hope, or no time.

        Args:
            messages: the chat.
            sample: which draw it is, for the seed.
            deadline: when to give up, on the clock of `time.monotonic`.
            judge: reads the verdict.
        """
        start = None
        num_attempts = 0
        while True:
            async with self._places:
                start = start or time.monotonic()
                is_probe = await self._admit(deadline)
                if is_probe is None:
                    outage = Failure("outage", f"{self.config.base_url} has not answered for too long")
                    return _timed(outage, num_attempts, start)
                num_attempts += 1
                attempt = await self._attempt(messages, sample, deadline, is_probe)
            outcome = attempt.outcome
            if isinstance(outcome, Reply):
                outcome = judge(outcome)
                attempt = replace(attempt, again=isinstance(outcome, Failure) and self.config.temperature > 0)
            # a server that is down is waited for, however many attempts it takes
            no_more = num_attempts > self.config.retries and not self.breaker.is_open
            pause = max(_backoff(num_attempts, self.config.backoff_seconds), attempt.after)
            if not attempt.again or no_more or time.monotonic() + pause >= deadline:
                return _timed(outcome, num_attempts, start)
            await asyncio.sleep(pause)

    async def try_once(self, messages: Sequence[Mapping[str, str]], max_tokens: int, deadline: float) -> Outcome:
        """Ask once, without retries, whatever the breaker says."""
        return (await self._send(messages, 0, deadline, max_tokens)).outcome

    async def list_models(self) -> list[str]:
        """Names of the models that the server says it has; empty where it does not say.

        Raises:
            Exception: one of TRANSPORT_ERRORS; it can't be asked.
        """
        answer: Any = await self._api.get("/models", cast_to=object)
        models = answer.get("data") if isinstance(answer, Mapping) else None
        return [
            self.redact(str(model["id"]))
            for model in (models if isinstance(models, list) else [])
            if isinstance(model, Mapping) and "id" in model
        ]

    def explain(self, error: BaseException) -> str:
        """An error of the client's libraries in a line, without the key."""
        if isinstance(error, openai.APIStatusError):
            return self.redact(f"status {error.status_code}: {_complaint(error)}")[:_MESSAGE_CHARS]
        chain = [error]
        while chain[-1].__cause__ is not None:
            chain.append(chain[-1].__cause__)
        # of a connection error, the client itself says no more than that it was one
        own = chain[1:] if isinstance(error, openai.APIConnectionError) else chain
        text = next((str(part) for part in own if str(part)), type(chain[-1]).__name__)
        return self.redact(text)[:_MESSAGE_CHARS]

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def _admit(self, deadline: float) -> bool | None:
        """Wait for the breaker. Whether the request is a probe; None when it must not be sent."""
        while True:
            permission = self.breaker.ask()
            if permission.action in ("go", "probe"):
                return permission.action == "probe"
            if permission.action == "refuse" or time.monotonic() >= deadline:
                return None
            await asyncio.sleep(permission.seconds)

    async def _attempt(
        self, messages: Sequence[Mapping[str, str]], sample: int, deadline: float, is_probe: bool
    ) -> _Attempt:
        attempt = None
        try:
            attempt = await self._send(messages, sample, deadline, self.config.max_tokens)
        finally:
            # also when the batch was cancelled: a probe that is never reported would keep the breaker open
            alive = attempt.alive if attempt is not None else None
            if alive:
                if self.breaker.succeeded():
                    logger.warning("%s answers again.", self.config.base_url)
            elif (alive is False or is_probe) and self.breaker.failed(is_probe):
                logger.warning(
                    "%s failed %s times in a row; one request at a time goes on trying. Last: %s",
                    self.config.base_url,
                    self.config.breaker_failures,
                    attempt.outcome if attempt is not None else "cancelled",
                )
        return attempt

    async def _send(
        self, messages: Sequence[Mapping[str, str]], sample: int, deadline: float, max_tokens: int
    ) -> _Attempt:
        seconds = min(self.config.request_seconds, deadline - time.monotonic())
        is_last = seconds < self.config.request_seconds
        body = self._body(messages, sample, max_tokens)
        try:
            # a limit for the whole: the library's own starts anew with each byte
            answer = await asyncio.wait_for(self._api.post(self._url, cast_to=object, body=body), max(seconds, 0.0))
            return _Attempt(read_answer(answer, self.redact))
        except (TimeoutError, asyncio.TimeoutError):
            failure = Failure("deadline" if is_last else "timeout", f"no answer within {max(seconds, 0):.3g} s")
            return _Attempt(failure, again=True, alive=None if is_last else False)
        except openai.APIStatusError as error:
            if self._give_in(error, body):
                return await self._send(messages, sample, deadline, max_tokens)
            return self._by_status(error)
        except openai.APIConnectionError as error:
            reason = "timeout" if _is_timeout(error) else "connection"
            return _Attempt(Failure(reason, self.explain(error)), again=True, alive=False)
        except ValueError as error:
            return _Attempt(Failure("malformed", self.explain(error)), again=True)
        except RecursionError:
            return _Attempt(Failure("malformed", "the answer nests too deeply"), again=True)
        except TRANSPORT_ERRORS as error:
            return _Attempt(Failure("connection", self.explain(error)), again=True, alive=False)

    def _body(self, messages: Sequence[Mapping[str, str]], sample: int, max_tokens: int) -> dict[str, Any]:
        config = self.config
        limit = "max_completion_tokens" if "max_tokens" in self._refused else "max_tokens"
        body: dict[str, Any] = {"model": config.model, "messages": messages, limit: max_tokens}
        body |= {"temperature": config.temperature, "top_p": config.top_p}
        if config.seed is not None:
            body["seed"] = config.seed + sample
        if config.response_schema is not None:
            schema = {"name": "reply", "schema": config.response_schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if config.chat_template_kwargs:
            body["chat_template_kwargs"] = config.chat_template_kwargs
        body |= config.extra_body or {}
        return {name: value for name, value in body.items() if name not in self._refused}

    def _give_in(self, error: openai.APIStatusError, body: Mapping[str, Any]) -> bool:
        """Leave out a field that the server does not have; whether there was one."""
        if error.status_code not in (400, 422):
            return False
        text = _complaint(error)
        if "max_tokens" in body and "max_completion_tokens" in text and "instead" in text:
            field = "max_tokens"
        else:
            field = next((name for name in _OPTIONAL_FIELDS if name in body and name in text), "")
        if field and field not in self._refused:
            self._refused.add(field)
            logger.warning(
                "%s does not take the field %s and is asked without it from now on: %s",
                self.config.base_url,
                field,
                self.explain(error),
            )
        return bool(field)

    def _by_status(self, error: openai.APIStatusError) -> _Attempt:
        status, message = error.status_code, self.explain(error)
        if status == _TOO_MANY:
            return _Attempt(Failure("rate_limit", message), again=True, after=_retry_after(error))
        if status in (_TIMEOUT, _CONFLICT) or status >= 500:
            failure = Failure("server_error", message)
            return _Attempt(failure, again=True, alive=status < 500, after=_retry_after(error))
        return _Attempt(Failure("refused", message))


def read_answer(answer: Any, redact: Callable[[str], str] = str) -> Outcome:
    """The reply in a server's answer to a chat; a failure `malformed` or `refused` where there is none.

    A server that sends anything else than the protocol asks for is not believed in part: there is no verdict then.

    Args:
        answer: the JSON value.
        redact: takes keys out of texts.
    """

    def show(value: Any) -> str:
        # before the cut, which could leave a part of a key
        return redact(repr(value))[:_MESSAGE_CHARS]

    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        return Failure("malformed", f"the server's answer is no chat completion: {show(answer)}")
    finish_reason = choice.get("finish_reason") or "stop"
    if finish_reason == "content_filter" or message.get("refusal"):
        return Failure("refused", f"the server's filter refused: {show(message.get('refusal'))}")
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        texts = [part.get("text") for part in content if part.get("type") == "text"]
        content = "".join(texts) if all(isinstance(text, str) for text in texts) else None
    if content is None and finish_reason == "length":
        content = ""  # the whole limit went into thinking, which some servers keep apart
    if not isinstance(content, str) or not isinstance(finish_reason, str):
        return Failure("malformed", f"the server's answer has no text: {show(answer)}")
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    num_tokens = tokens if isinstance(tokens, int) and tokens >= 0 else None
    return Reply(redact(clean_text(content)), redact(finish_reason), num_tokens=num_tokens)


def _fast_transport() -> Any:
    """openai's transport by aiohttp, which takes half the processor time; None where it is not installed."""
    try:
        return openai.DefaultAioHttpClient()
    except RuntimeError:
        return None


def _complaint(error: openai.APIStatusError) -> str:
    """What the server found wrong, without the request that some servers repeat."""
    body = error.body
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
        body = body["error"]
    if isinstance(body, Mapping):
        for name in ("message", "detail", "error"):
            if isinstance(body.get(name), str):
                return body[name]
        details = body.get("detail")
        if isinstance(details, list):
            parts = [part for part in details if isinstance(part, Mapping)]
            return "; ".join(f"{part.get('loc')}: {part.get('msg')}" for part in parts)
    return error.response.text.strip()


def _timed(outcome: Outcome, num_attempts: int, start: float) -> Outcome:
    return replace(outcome, attempts=num_attempts, seconds=time.monotonic() - start)


def _backoff(num_attempts: int, first: float) -> float:
    """Seconds to wait after so many attempts; without chance all requests of a batch would come back at once."""
    return min(first * 2 ** (num_attempts - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1.0)


def _retry_after(error: openai.APIStatusError) -> float:
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return 0.0  # none, or a date
    return seconds if 0 <= seconds < 3600 else 0.0


def _is_timeout(error: BaseException) -> bool:
    """Whether it comes down to a timeout. openai also calls a connection that was closed one, with aiohttp."""
    while error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, (TimeoutError, asyncio.TimeoutError))
