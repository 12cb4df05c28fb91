# SPDX-License-Identifier: Apache-2.0
"""Samples by vLLM in this process."""

from collections.abc import Callable, Sequence, Set
from contextlib import ExitStack
from typing import Any

from transformers import AutoConfig

from open_r1_vision.distributed import num_processes
from open_r1_vision.models import collapse_runs, vision_token_ids
from open_r1_vision.sampling.draws import Draw, Prompt, seed_of
from open_r1_vision.sampling.options import DrawArguments
from open_r1_vision.vllm_support.installation import check_installation
from open_r1_vision.vllm_support.plugin import register
from open_r1_vision.vllm_support.processors import complete_folder


class VllmSampler:
    """vLLM's offline engine; under torchrun each process has its own.

    Args:
        options: of the run.
        folder: of the model.
        processor: its processor.
        most_images: of a row.

    Raises:
        ValueError: vLLM is not installed, or not with what it was built for.
    """

    num_ahead = 0

    def __init__(self, options: DrawArguments, folder: str, processor: Any, most_images: int) -> None:
        check_installation("backend is vllm", "set backend to transformers")
        import vllm

        self._options = options
        self._processor = processor
        config = AutoConfig.from_pretrained(folder, revision=options.model_revision)
        self._image_token = getattr(config, "image_token_id", None)
        pixels = {"min_pixels": options.min_pixels, "max_pixels": options.max_pixels}
        pixels = {name: value for name, value in pixels.items() if value is not None}
        # each process of torchrun has an engine of its own, in the process, as TRL's colocated ones
        spread = {"distributed_executor_backend": "external_launcher"} if num_processes() > 1 else {}
        register()
        self._keep = ExitStack()
        self._engine: Any = vllm.LLM(
            model=complete_folder(folder, self._keep),
            revision=options.model_revision,
            dtype=options.dtype or "auto",
            seed=options.seed,
            gpu_memory_utilization=options.vllm_gpu_memory_utilization,
            tensor_parallel_size=options.vllm_tensor_parallel_size,
            max_model_len=options.vllm_max_model_length,
            limit_mm_per_prompt={"image": most_images},
            **({"mm_processor_kwargs": pixels} if pixels else {}),
            **spread,
        )
        tokenizer = processor.tokenizer
        stops = options.stop_ids(tokenizer)
        self._params: dict[str, Any] = {
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_tokens": options.max_completion_length,
            "logit_bias": dict.fromkeys(vision_token_ids(config), -100.0),
            "stop_token_ids": stops or None,
        }
        self._make_params = vllm.SamplingParams

    def start(self, prompts: Sequence[Prompt], wanted: Set[tuple[str, int]]) -> Callable[[], list[Draw]]:
        """See :class:`open_r1_vision.sampling.draws.Sampler`. The work is done when it is waited for."""
        return lambda: self._draw(prompts, wanted)

    def close(self) -> None:
        """See :class:`open_r1_vision.sampling.draws.Sampler`."""
        self._keep.close()

    def _draw(self, prompts: Sequence[Prompt], wanted: Set[tuple[str, int]]) -> list[Draw]:
        keys, requests, params = [], [], []
        for prompt in prompts:
            request = self._request(prompt)
            for sample in range(self._options.num_generations):
                if (prompt.id, sample) in wanted:
                    keys.append((prompt.id, sample))
                    requests.append(request)
                    seed = seed_of(self._options.seed, prompt.id, sample)
                    params.append(self._make_params(seed=seed, **self._params))
        answers = self._engine.generate(requests, params, use_tqdm=False)
        outputs = [answer.outputs[0] for answer in answers]
        texts = self._processor.tokenizer.batch_decode(
            [list(output.token_ids) for output in outputs], skip_special_tokens=True
        )
        return [
            Draw(*key, text, len(output.token_ids), "length" if output.finish_reason == "length" else "stop")
            for key, text, output in zip(keys, texts, outputs, strict=True)
        ]

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        encoded = self._processor.apply_chat_template(
            [prompt.chat], add_generation_prompt=True, tokenize=True, return_dict=True
        )
        # vLLM expands placeholders itself: an expanded prompt would be expanded twice
        ids = collapse_runs(list(encoded["input_ids"][0]), self._image_token)
        images = {"multi_modal_data": {"image": prompt.images}} if prompt.images else {}
        return {"prompt_token_ids": ids, **images}
