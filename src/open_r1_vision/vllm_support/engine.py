# SPDX-License-Identifier: Apache-2.0
"""TRL's vLLM backend, right for images and for weights that change, where the engine is in the trainer's process."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from trl.generation import vllm_generation

from open_r1_vision.models import collapse_runs, vision_token_ids
from open_r1_vision.vllm_support.plugin import prepare_engine
from open_r1_vision.vllm_support.processors import complete_folder, processor_settings

if TYPE_CHECKING:
    from trl.generation.vllm_generation import VLLMGeneration as Base
else:
    Base = object

#: Taken off the logits of tokens that must not be sampled; vLLM takes no less than -100.
_BAN = -100.0


class ColocatedEngine(Base):
    """Stands before `trl.generation.vllm_generation.VLLMGeneration` among the bases of a backend in colocate mode.

    - The engine computes in the trainer's precision, with the trainer's pixel limits.
    - Each image's placeholder goes in once, as vLLM expands it itself (trl#6294). What it made of a prompt must be the
      trainer's prompt, token for token.
    - New weights bring the image features of the old ones to an end (trl#7198).
    - Tokens that stand for images or videos are never sampled. vLLM's log-probabilities are then those among the other
      tokens, larger by -log(1 - p) than the trainer's where the banned ones have probability p. It is asked for their
      log-probabilities too, and gives back those of the whole vocabulary: importance ratios don't see the ban. With
      top_k, top_p or min_p it says nothing about tokens outside the nucleus, and its values stay as they are.
    - With sleep, TRL throws the weights away after each pass and pushes them again before the next. Once a second pass
      wants the weights that the first one had, they lie in the host's memory between passes (sleep of level 1).

    Raises:
        ValueError: a processor that differs from the trainer's, see
            :func:`open_r1_vision.vllm_support.processors.processor_settings`.
    """

    model: Any
    enable_sleep_mode: bool
    #: Tokens that are never sampled.
    banned: tuple[int, ...] = ()
    #: Whether sleep leaves the weights in the host's memory; TRL's would be pushed again for each pass.
    keeps_weights = False
    _weights_in_host = False

    def _init_vllm(self) -> None:
        prepare_engine()
        config = self.model.config
        self._image_token_id = getattr(config, "image_token_id", None)
        name = self.model.name_or_path
        options: dict[str, Any] = {"dtype": self._dtype()}
        if settings := processor_settings(self.processing_class, name):
            options["mm_processor_kwargs"] = settings
        if getattr(config, "video_token_id", None) is not None:
            # no memory for videos, which nothing here trains on
            options["limit_mm_per_prompt"] = {"video": 0}
        self._is_cpu = self.accelerator.device.type == "cpu"
        if self._is_cpu:
            options["enforce_eager"] = True
        with ExitStack() as keep, _engine_options(model=complete_folder(name, keep), **options):
            super()._init_vllm()
        self._ban(vision_token_ids(config))

    def _dtype(self) -> torch.dtype:
        """What the trainer computes in; vLLM would make half precision of a float32 checkpoint."""
        mixed = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return mixed.get(self.accelerator.mixed_precision, self.model.dtype)

    def _ban(self, ids: set[int]) -> None:
        kwargs = dict(self.generation_kwargs or {})
        wanted = kwargs.get("logit_bias") or {}
        self.banned = tuple(sorted(ids - wanted.keys()))
        if self.banned:
            bias = {**dict.fromkeys(self.banned, _BAN), **wanted}
            asked = {"logprobs": len(self.banned), "logprob_token_ids": list(self.banned)}
            kwargs = {**kwargs, "logit_bias": bias, **asked}
        self.generation_kwargs = kwargs

    def sync_weights(self) -> None:
        super().sync_weights()
        self._weights_in_host = False
        self.llm.llm_engine.reset_encoder_cache()

    def generate(self, prompts: list, images: list | None, num_generations: int, profiler: Any = None) -> tuple:
        single = prompts
        if images is not None:
            # TRL takes None for a row without images, not []
            images = [of_row or None for of_row in images]
            single = [collapse_runs(ids, self._image_token_id) for ids in prompts]
        # on a CPU, compiling what the sampler would compile takes longer than all that it does
        with torch.compiler.set_stance("force_eager" if self._is_cpu else "default"), self._awake():
            seen, completions, logprobs, token_ids = super().generate(single, images, num_generations, profiler)
        check_prompts(prompts, seen)
        if logprobs is not None and token_ids is not None and self.banned:
            logprobs = [
                [
                    [self._without_ban(dict(zip(names, values, strict=True)), token)]
                    for token, names, values in zip(*of_row, strict=True)
                ]
                for of_row in zip(completions, token_ids, logprobs, strict=True)
            ]
            token_ids = [[[token] for token in ids] for ids in completions]
        return seen, completions, logprobs, token_ids

    @contextmanager
    def _awake(self) -> Iterator[None]:
        """A pass of the engine, between sleep and sleep."""
        if not self.enable_sleep_mode:
            yield
            return
        if self._weights_in_host:
            vllm_generation.empty_cache()
            self.llm.wake_up(tags=["weights"])
            self._weights_in_host = False
        elif self._llm_weights_sleeping:
            # they were not pushed since the pass before: this is another one with the same weights
            self.keeps_weights = True
        if not self.keeps_weights:
            yield
            return
        stock = self.llm.sleep
        self.llm.sleep = lambda level: stock(level=1)
        try:
            yield
        finally:
            self.llm.sleep = stock
        self._llm_weights_sleeping = False
        self._weights_in_host = True

    def _without_ban(self, logprobs: dict[int, float | None], token: int) -> float | None:
        """The log-probability that a sampled token would have had without the ban."""
        value = logprobs[token]
        if value is None or self.temperature == 0:
            return value
        banned = [logprobs[other] for other in self.banned]
        odds = sum(
            math.exp(min(of_banned - _BAN / self.temperature, 80.0)) for of_banned in banned if of_banned is not None
        )
        return value - math.log1p(odds)


def check_prompts(given: Sequence[Sequence[int]], seen: Sequence[Sequence[int]]) -> None:
    """Compare prompts with what vLLM made of them.

    Args:
        given: the trainer's token ids of each prompt, each image's tokens included.
        seen: vLLM's.

    Raises:
        ValueError: two differ; the message shows both.
    """
    for row, (ours, theirs) in enumerate(zip(given, seen, strict=True)):
        if list(ours) != list(theirs):
            place = next(
                (k for k, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]),
                min(len(ours), len(theirs)),
            )
            raise ValueError(
                f"vLLM reads another prompt than the trainer, in row {row} of the batch: {len(theirs)} tokens, not "
                f"{len(ours)}, and from token {place} on {list(theirs[place : place + 12])}, not "
                f"{list(ours[place : place + 12])}. Image tokens that were expanded twice, or other pixel limits than "
                "the trainer's, do that. If the model writes more than a run of one token for an image, vLLM can't be "
                "used with it here: set use_vllm to false."
            )


@contextmanager
def _engine_options(**options: Any) -> Iterator[None]:
    """Give options to the engine that TRL makes; it passes on neither precision nor anything about images."""
    stock: Any = vllm_generation.LLM
    module: Any = vllm_generation
    module.LLM = lambda **given: stock(**{**given, **options})
    try:
        yield
    finally:
        module.LLM = stock
