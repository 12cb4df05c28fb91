# SPDX-License-Identifier: Apache-2.0
"""Samples by an OpenAI-compatible server, which gets images as `data:` URLs."""

import asyncio
import base64
import time
from collections.abc import Callable, Sequence, Set
from io import BytesIO
from typing import Any

from PIL import Image
from transformers import AutoConfig

from open_r1_vision.models import vision_token_ids
from open_r1_vision.reasoners.client import Client
from open_r1_vision.reasoners.endpoint import EndpointReasoner
from open_r1_vision.reasoners.interface import Outcome, Reply
from open_r1_vision.reasoners.keys import read_key
from open_r1_vision.reasoners.loop import LoopThread, cancel_others
from open_r1_vision.sampling.draws import Draw, Prompt, seed_of
from open_r1_vision.sampling.options import DrawArguments


class EndpointSampler:
    """A server: retries, limits and keys are those of reasoners, see :mod:`open_r1_vision.reasoners.client`.

    Images are reduced or enlarged to `max_pixels` and `min_pixels` here, since servers have limits of their own.

    Args:
        options: of the run.
        model: the folder or hub id of the model that the server has, if it is known: its image tokens are then ruled
            out.

    Raises:
        ValueError: the server does not answer, or has no such model.
    """

    #: So that the server has requests while the last ones of a batch are waited for.
    num_ahead = 4

    def __init__(self, options: DrawArguments, model: str | None) -> None:
        self._options = options
        config = options.endpoint_config()
        probe = EndpointReasoner(config)
        try:
            probe.check()
        finally:
            probe.close()
        if model is not None:
            tokens = vision_token_ids(AutoConfig.from_pretrained(model, revision=options.model_revision))
            bias = {str(token): -100 for token in sorted(tokens)}
            config.extra_body = {"logit_bias": bias, **(config.extra_body or {})} if bias else config.extra_body
        self._config = config
        self._thread = LoopThread()
        self._client: Client | None = None

    def start(self, prompts: Sequence[Prompt], wanted: Set[tuple[str, int]]) -> Callable[[], list[Draw]]:
        """See :class:`open_r1_vision.sampling.draws.Sampler`. The requests start now."""
        return self._thread.start(self._ask_all(prompts, wanted)).result

    def close(self) -> None:
        """See :class:`open_r1_vision.sampling.draws.Sampler`."""
        if self._client is not None:
            self._thread.start(self._shut_down()).result(5)
        self._thread.stop()

    async def _shut_down(self) -> None:
        await cancel_others()
        if self._client is not None:
            await self._client.close()

    async def _ask_all(self, prompts: Sequence[Prompt], wanted: Set[tuple[str, int]]) -> list[Draw]:
        if self._client is None:  # here and not before: it belongs to the loop
            self._client = Client(self._config, read_key(self._config.api_key_env))
        deadline = time.monotonic() + self._config.batch_seconds
        tasks = []
        for prompt in prompts:
            samples = [sample for sample in range(self._options.num_generations) if (prompt.id, sample) in wanted]
            messages = await asyncio.to_thread(self._messages, prompt) if samples else []
            tasks += [asyncio.create_task(self._ask(prompt.id, sample, messages, deadline)) for sample in samples]
        return list(await asyncio.gather(*tasks))

    async def _ask(self, row_id: str, sample: int, messages: list[dict[str, Any]], deadline: float) -> Draw:
        assert self._client is not None
        seed = seed_of(self._options.seed, row_id, sample)
        outcome = await self._client.ask(messages, seed, deadline, _as_it_is)
        if not isinstance(outcome, Reply):
            return Draw(row_id, sample, None, failure=str(outcome))
        ended = "length" if outcome.finish_reason == "length" else "stop"
        return Draw(row_id, sample, outcome.text, outcome.num_tokens, ended)

    def _messages(self, prompt: Prompt) -> list[dict[str, Any]]:
        return [{"role": message["role"], "content": self._content(message["content"])} for message in prompt.chat]

    def _content(self, content: Any) -> Any:
        if isinstance(content, str):
            return content
        if all(part["type"] == "text" for part in content):
            # as every server takes it
            return "".join(part["text"] for part in content)
        return [
            {"type": "image_url", "image_url": {"url": self._data_url(part["image"])}}
            if part["type"] == "image"
            else {"type": "text", "text": part["text"]}
            for part in content
        ]

    def _data_url(self, image: Image.Image) -> str:
        size = fit_pixels(*image.size, self._options.min_pixels, self._options.max_pixels)
        image = image.convert("RGB")
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        buffer = BytesIO()
        image.save(buffer, format="PNG")
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def fit_pixels(width: int, height: int, min_pixels: int | None, max_pixels: int | None) -> tuple[int, int]:
    """The size of an image within limits of its pixels, its shape kept: 200 x 100 within 5000 is 100 x 50."""
    scale = 1.0
    if max_pixels is not None and width * height > max_pixels:
        scale = (max_pixels / (width * height)) ** 0.5
    elif min_pixels is not None and width * height < min_pixels:
        scale = (min_pixels / (width * height)) ** 0.5
    return max(1, round(width * scale)), max(1, round(height * scale))


def _as_it_is(reply: Reply) -> Outcome:
    return reply
