# SPDX-License-Identifier: Apache-2.0
"""Samples by transformers' `generate` whose random numbers are their own.

`generate` draws for a whole batch from one generator, so that a sample depends on what it is batched with. Here each
sample has its own uniform numbers, and its token is where they fall in the cumulated probabilities: exact sampling,
with one number for each token, and the same token in whatever batch, but for rounding of the logits. At temperature 0
the likeliest token is taken. The samples of a prompt share one pass over it, where the model can.
"""

import os
from collections.abc import Callable, Sequence, Set
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, GenerationConfig, LogitsProcessor

from open_r1_vision.decoding.groups import GroupDecoding, find_obstacle
from open_r1_vision.generation import encode_chats
from open_r1_vision.models import vision_token_ids
from open_r1_vision.sampling.draws import Draw, Prompt, uniforms
from open_r1_vision.sampling.options import DrawArguments


class SeededChoice(LogitsProcessor):
    """Chooses each row's next token by that row's uniform numbers, and leaves only this token possible.

    Args:
        numbers: of shape (rows, tokens), float64, in [0, 1).
        temperature: above 0.
        top_p: nucleus, in (0, 1].
        num_before: tokens of the padded prompts; by default those of the first call.
    """

    def __init__(self, numbers: torch.Tensor, temperature: float, top_p: float, num_before: int | None = None) -> None:
        self._numbers_BT = numbers
        self._temperature = temperature
        self._top_p = top_p
        self._num_before = num_before

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores of which all but one are minus infinity."""
        if self._num_before is None:
            self._num_before = input_ids.shape[1]
        probabilities_BV = torch.softmax(scores.double() / self._temperature, dim=-1)
        if self._top_p < 1:
            sorted_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True, stable=True)
            # a token stays when those before it don't make up the nucleus yet
            outside_BV = sorted_BV.cumsum(-1) - sorted_BV >= self._top_p
            probabilities_BV = probabilities_BV.masked_fill(
                torch.zeros_like(outside_BV).scatter(-1, order_BV, outside_BV), 0.0
            )
        # in the order of the vocabulary, where nearly equal tokens can't change places
        cumulated_BV = probabilities_BV.cumsum(-1)
        total_B1 = cumulated_BV[:, -1:]
        number_B1 = self._numbers_BT[:, input_ids.shape[1] - self._num_before].unsqueeze(-1) * total_B1
        number_B1 = torch.minimum(number_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
        token_B1 = torch.searchsorted(cumulated_BV, number_B1, right=True)
        chosen: Any = torch.full_like(scores, -torch.inf).scatter(-1, token_B1, 0.0)
        return chosen


class TransformersSampler:
    """A model in this process.

    Args:
        options: of the run.
        folder: of the model.
        processor: its processor, padding on the left.
    """

    num_ahead = 0

    def __init__(self, options: DrawArguments, folder: str, processor: Any) -> None:
        self._options = options
        self._processor = processor
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
        default = torch.bfloat16 if device.startswith("cuda") else torch.float32
        dtype = getattr(torch, options.dtype) if options.dtype else default
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            revision=options.model_revision,
            dtype=dtype,
            attn_implementation=options.attn_implementation,
        )
        self.model = loaded.to(device).eval().requires_grad_(False)
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        tokenizer = processor.tokenizer
        self._ends = {token for token in (*ends, tokenizer.eos_token_id) if token is not None}
        self._ends.update(options.stop_ids(tokenizer))
        # generate fills what a config leaves open from the model's own, such as its repetition penalty
        self.model.generation_config = GenerationConfig()
        sampling: dict[str, Any] = {"do_sample": False}
        if options.temperature > 0:
            # the choice is made before: what is left to sample from is one token
            sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        self._settings: dict[str, Any] = {
            **sampling,
            "suppress_tokens": sorted(vision_token_ids(self.model.config)) or None,
            "eos_token_id": sorted(self._ends),
            "pad_token_id": tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        }

    def start(self, prompts: Sequence[Prompt], wanted: Set[tuple[str, int]]) -> Callable[[], list[Draw]]:
        """See :class:`open_r1_vision.sampling.draws.Sampler`. The work is done when it is waited for.

        All samples are drawn: in a smaller batch the logits would be rounded in another way.
        """
        return lambda: self._draw(prompts)

    def close(self) -> None:
        """See :class:`open_r1_vision.sampling.draws.Sampler`."""

    def _draw(self, prompts: Sequence[Prompt]) -> list[Draw]:
        options = self._options
        keys = [(prompt.id, sample) for prompt in prompts for sample in range(options.num_generations)]
        choices: list[LogitsProcessor] = []
        if options.temperature > 0:
            numbers = np.stack([uniforms(options.seed, *key, options.max_completion_length) for key in keys])
            on_device = torch.from_numpy(numbers).to(self.model.device)
            choices = [SeededChoice(on_device, options.temperature, options.top_p)]
        output = self._generate(prompts, choices)
        draws = []
        for key, ids in zip(keys, output.tolist(), strict=True):
            end = next((place for place, token in enumerate(ids) if token in self._ends), None)
            own = ids if end is None else ids[: end + 1]
            text = self._processor.tokenizer.decode(own, skip_special_tokens=True)
            draws.append(Draw(*key, text, len(own), "length" if end is None else "stop"))
        return draws

    def _generate(self, prompts: Sequence[Prompt], choices: list[LogitsProcessor]) -> torch.Tensor:
        """The tokens of all samples, of shape (prompts x samples, tokens of the longest)."""
        count = self._options.num_generations
        config = GenerationConfig(
            **self._settings,
            max_new_tokens=self._options.max_completion_length,
            disable_compile=True,  # the choice counts the steps
        )
        inputs = encode_chats(self._processor, [prompt.chat for prompt in prompts], self.model.device)
        how: dict[str, Any] = {"logits_processor": choices}
        if find_obstacle(self.model, config) is None:
            rows = [place for place in range(len(prompts)) for _ in range(count)]
            how["custom_generate"] = GroupDecoding(rows, [len(prompt.images) for prompt in prompts])
        else:
            config.num_return_sequences = count
        with torch.inference_mode():
            output = self.model.generate(**inputs, generation_config=config, **how)
        return output[:, inputs["input_ids"].shape[1] :]
