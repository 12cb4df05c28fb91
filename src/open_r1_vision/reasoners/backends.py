# SPDX-License-Identifier: Apache-2.0
"""What generates for a reasoner in this process: transformers, or vLLM beside the policy."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from open_r1_vision.distributed import num_processes
from open_r1_vision.models import without_zero3
from open_r1_vision.reasoners.config import ReasonerConfig
from open_r1_vision.vllm_support.installation import check_installation

#: A reply and its finish reason; None where the time was up.
Text = tuple[str, str] | None


class Backend(Protocol):
    """Generates replies to prompts of token ids."""

    def generate(self, prompts: Sequence[list[int]], deadline: float) -> list[Text]:
        """One reply for each prompt, in order; None for one that was not begun by `deadline` (time.monotonic)."""
        ...


class TransformersBackend:
    """transformers' `generate`, in batches of prompts of similar length.

    Args:
        config: the reasoner's.
        folder: of the model.
        tokenizer: padding on the left.
        context: most tokens of prompt and reply together.
    """

    def __init__(self, config: ReasonerConfig, folder: str, tokenizer: Any, context: int) -> None:
        self.config = config
        self._tokenizer = tokenizer
        self._device = config.device or _own_device()
        on_gpu = self._device.startswith("cuda")
        dtype = getattr(torch, config.dtype) if config.dtype else torch.bfloat16 if on_gpu else torch.float32
        kind = AutoConfig.from_pretrained(folder).model_type
        loader: Any = AutoModelForCausalLM
        if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            loader = AutoModelForImageTextToText
        with without_zero3():
            self.model = loader.from_pretrained(folder, dtype=dtype).to(self._device).eval().requires_grad_(False)
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._ends = {token for token in (*ends, tokenizer.eos_token_id) if token is not None}
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        # generate fills what a config leaves open from the model's own, such as its repetition penalty
        self.model.generation_config = GenerationConfig()
        self._num_draws = 0

    def generate(self, prompts: Sequence[list[int]], deadline: float) -> list[Text]:
        """See :class:`Backend`."""
        texts: list[Text] = [None] * len(prompts)
        by_length = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        size = self.config.batch_size
        with self._own_random_numbers():
            for places in (by_length[start : start + size] for start in range(0, len(by_length), size)):
                if monotonic() < deadline:
                    batch = self._generate_batch([prompts[place] for place in places])
                    for place, text in zip(places, batch, strict=True):
                        texts[place] = text
        return texts

    def _generate_batch(self, prompts: list[list[int]]) -> list[Text]:
        config = self.config
        inputs = self._tokenizer.pad({"input_ids": prompts}, padding=True, return_tensors="pt").to(self._device)
        sampling: dict[str, Any] = {"do_sample": False}
        if config.temperature > 0:
            sampling = {"do_sample": True, "temperature": config.temperature, "top_p": config.top_p, "top_k": 0}
        generation_config = GenerationConfig(
            max_new_tokens=config.max_tokens,
            eos_token_id=sorted(self._ends),
            pad_token_id=self._tokenizer.pad_token_id,
            **sampling,
        )
        with torch.inference_mode():
            # synced_gpus: under ZeRO-3 the default waits for the other processes, which may have nothing to ask
            output = self.model.generate(**inputs, generation_config=generation_config, synced_gpus=False)
        replies = output[:, inputs["input_ids"].shape[1] :].tolist()
        texts = self._tokenizer.batch_decode(replies, skip_special_tokens=True)
        return [
            (text, "stop" if self._ends.intersection(ids) else "length")
            for text, ids in zip(texts, replies, strict=True)
        ]

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Sampling must not draw from the numbers that training draws from, or a run would depend on its reasoner."""
        if self.config.temperature == 0:
            yield
            return
        with torch.random.fork_rng([self._device] if self._device.startswith("cuda") else []):
            torch.manual_seed((self.config.seed or 0) + self._num_draws)
            self._num_draws += 1
            yield


class VllmBackend:
    """vLLM's engine in this process, beside the policy. Arguments as :class:`TransformersBackend`.

    Raises:
        ValueError: vLLM is not installed, or not with what it was built for.
    """

    def __init__(self, config: ReasonerConfig, folder: str, tokenizer: Any, context: int) -> None:
        check_installation("backend is vllm", "set backend to transformers")
        import vllm

        self.config = config
        # each process of torchrun has an engine of its own, in the process, as TRL's colocated ones
        distributed = {"distributed_executor_backend": "external_launcher"} if num_processes() > 1 else {}
        self._engine: Any = vllm.LLM(
            model=folder,
            dtype=config.dtype or "auto",
            max_model_len=context,
            gpu_memory_utilization=config.gpu_memory,
            seed=config.seed or 0,
            **distributed,
        )
        options: dict[str, Any] = {}
        if config.response_schema is not None:
            from vllm.sampling_params import StructuredOutputsParams

            options["structured_outputs"] = StructuredOutputsParams(json=json.dumps(config.response_schema))
        self._params = vllm.SamplingParams(
            temperature=config.temperature, top_p=config.top_p, max_tokens=config.max_tokens, **options
        )

    def generate(self, prompts: Sequence[list[int]], deadline: float) -> list[Text]:
        """See :class:`Backend`. vLLM takes all at once, so that the deadline counts at the beginning only."""
        if monotonic() >= deadline or not prompts:
            return [None] * len(prompts)
        requests = [{"prompt_token_ids": ids} for ids in prompts]
        answers = self._engine.generate(requests, self._params, use_tqdm=False)
        outputs = [answer.outputs[0] for answer in answers]
        return [(output.text, output.finish_reason or "stop") for output in outputs]


def _own_device() -> str:
    """This process's GPU, or the CPU."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
