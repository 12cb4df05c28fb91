# SPDX-License-Identifier: Apache-2.0
"""From a training recipe to the numbers that its memory depends on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1_vision.arguments import Recipe, ScriptArguments, parse_recipe
from open_r1_vision.batching import BatchPlan, plan_batch
from open_r1_vision.memory.estimate import GIB, Estimate, Setup, estimate
from open_r1_vision.memory.shapes import ModelShape, count_adapter, read_shape

#: Tokens of the largest image where a recipe sets no `max_pixels`: what the processors of Qwen's models allow.
_DEFAULT_IMAGE_TOKENS = 16384
#: Of a prompt's text, where a recipe does not limit prompts.
_TEXT_TOKENS = 1024
_DEFAULT_BUCKET = 500_000_000


@dataclass(frozen=True)
class Plan:
    """A recipe on some GPUs.

    Attributes:
        model: folder or hub id.
        shape: its shape.
        setup: how it is trained.
        batch: None where the recipe gives TRL's own batch sizes.
        longest: tokens of the longest sequence, which vLLM's cache has to hold.
        output_dir: of the run.
        checkpoints_kept: how many checkpoints there are at most, None without limit.
    """

    model: str
    shape: ModelShape
    setup: Setup
    batch: BatchPlan | None
    longest: int
    output_dir: Path
    checkpoints_kept: int | None

    def estimate(self) -> Estimate:
        """What it needs."""
        return estimate(self.shape, self.setup)


def parse_training(recipe: Recipe) -> tuple[ScriptArguments, Any, Any]:
    """The recipe's arguments on this machine, which need not be the one that it is for.

    Returns:
        Those of the script, of the trainer and of the model, read without DeepSpeed.

    Raises:
        ValueError: an unknown key, or values that can't work.
    """
    from trl import ModelConfig

    from open_r1_vision.train import find_trainer

    kinds = (ScriptArguments, find_trainer(recipe).config_class, ModelConfig)
    # DeepSpeed would want its processes, and its packages may be missing here
    return parse_recipe(recipe.without("deepspeed"), kinds)


def read_plan(recipe: Recipe, gpus: int, gpu_bytes: int = 80 * GIB) -> Plan:
    """Read what memory depends on.

    Args:
        recipe: of a training.
        gpus: processes, each with a GPU.
        gpu_bytes: memory of each.

    Raises:
        ValueError: a recipe that can't work, on so many GPUs or at all, or a model whose shape is not known.
    """
    return plan_of(recipe, *parse_training(recipe), gpus, gpu_bytes)


def plan_of(recipe: Recipe, script: Any, training: Any, model: Any, gpus: int, gpu_bytes: int) -> Plan:
    """As :func:`read_plan`, for a recipe whose arguments have been parsed."""
    shape = read_shape(model.model_name_or_path)
    batch = None
    completions, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    if training.prompts_per_step is not None:
        batch = plan_batch(
            training.prompts_per_step, training.num_generations or 0, gpus, training.max_completions_per_device
        )
        completions, accumulation = batch.per_device, batch.accumulation
    plain = recipe.as_plain()
    parts = plain.get("steps_per_generation") or accumulation * training.updates_per_sampling
    levels = training.hint_levels if getattr(training, "hint_mode", None) == "parallel" else 1
    image_tokens = script.max_pixels // shape.pixels_per_token if script.max_pixels else _DEFAULT_IMAGE_TOKENS
    prompt_tokens = training.max_prompt_tokens or image_tokens + _TEXT_TOKENS
    zero = read_deepspeed(plain.get("deepspeed"))
    trained = shape.parameters
    if model.use_peft:
        targets = model.lora_target_modules
        trained = count_adapter(
            model.model_name_or_path, model.lora_r, tuple(targets) if isinstance(targets, list) else targets
        )
    colocated = training.use_vllm and training.vllm_mode == "colocate"
    setup = Setup(
        trained=trained,
        gpus=gpus,
        **zero,
        weight_bytes=2 if model.dtype in ("bfloat16", "float16", "auto") else 4,
        has_reference=training.beta != 0 and not model.use_peft,
        completions=completions,
        num_generations=training.num_generations or 1,
        prompt_tokens=prompt_tokens,
        image_tokens=min(image_tokens, prompt_tokens),
        completion_tokens=training.max_completion_length or 0,
        shares_prompts=training.shared_prefix is not False,
        has_checkpoints=bool(plain.get("gradient_checkpointing", training.gradient_checkpointing)),
        sampled=completions * parts * levels if not training.use_vllm else 0,
        with_vllm=colocated,
        vllm_share=training.vllm_gpu_memory_utilization,
        vllm_sleeps=bool(training.vllm_enable_sleep_mode),
        gpu_bytes=gpu_bytes,
    )
    return Plan(
        model=model.model_name_or_path,
        shape=shape,
        setup=setup,
        batch=batch,
        longest=prompt_tokens + setup.completion_tokens,
        output_dir=Path(training.output_dir),
        checkpoints_kept=training.save_total_limit,
    )


def read_deepspeed(value: Any) -> dict[str, Any]:
    """What of a DeepSpeed configuration memory depends on, as arguments of :class:`Setup`; empty without one.

    Args:
        value: a path, the configuration as JSON, or a mapping.

    Raises:
        ValueError: no such file, or no JSON.
    """
    if not value:
        return {}
    if isinstance(value, str):
        try:
            text = value if value.lstrip().startswith("{") else Path(value).read_text(encoding="utf-8")
            value = json.loads(text)
        except OSError as error:
            raise ValueError(
                f"deepspeed is {value!r}, but there is no such file (looked at {str(Path(value).absolute())!r}): set "
                "it to the path of a DeepSpeed configuration in JSON, from the folder that you start in."
            ) from error
        except ValueError as error:
            raise ValueError(f"deepspeed is {value!r:.80}, which is not JSON ({error}).") from error
    zero = value.get("zero_optimization") or {}
    stage = int(zero.get("stage", 0))
    offloaded = [(zero.get(name) or {}).get("device", "none") != "none" for name in _OFFLOADS]
    bucket = zero.get("reduce_bucket_size", _DEFAULT_BUCKET)
    return {
        "zero_stage": stage,
        "offload_optimizer": offloaded[0],
        "offload_parameters": offloaded[1] and stage == 3,
        "reduce_bucket": bucket if isinstance(bucket, int) else _DEFAULT_BUCKET,
    }


_OFFLOADS = ("offload_optimizer", "offload_param")
