# SPDX-License-Identifier: Apache-2.0
"""Options of the trainers, on top of TRL's GRPOConfig."""

import json
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from trl import GRPOConfig

from open_r1_vision.batching import BatchPlan, plan_batch
from open_r1_vision.distributed import boot_deepspeed_on_cpu, num_processes
from open_r1_vision.prompts import load_prompt
from open_r1_vision.reasoners.config import ReasonerConfig
from open_r1_vision.trainers.schedules import kl_weight
from open_r1_vision.vllm_support.distribution import WHOLE, bending_settings


@dataclass
class VisionGRPOConfig(GRPOConfig):
    """GRPOConfig with the batch given in prompts, a schedule for the KL weight and a limit on prompts.

    On a machine without a GPU it chooses CPU, gloo and float32 unless told otherwise, and starts the process group
    that DeepSpeed needs there.

    Raises:
        ValueError: options that can't work together; the message says what to set.
    """

    # a mapping may come from the command line as JSON
    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, "fact_judge"]
    _REASONERS: ClassVar[tuple[str, ...]] = ("fact_judge",)

    prompts_per_step: int | None = field(
        default=None,
        metadata={
            "help": "Prompts of one optimizer step over all processes; each gets num_generations completions. Device "
            "batch and accumulation follow from it. If unset, TRL's per_device_train_batch_size and "
            "gradient_accumulation_steps count."
        },
    )
    max_completions_per_device: int = field(
        default=8,
        metadata={"help": "Most completions in one device's micro-batch, with prompts_per_step: the memory knob."},
    )
    updates_per_sampling: int = field(
        default=1,
        metadata={
            "help": "Optimizer steps that are made of one sampling, with prompts_per_step: so many times as many "
            "prompts are sampled at once. From the second step on the policy is not the one that sampled, and "
            "clipping acts."
        },
    )
    max_prompt_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Longest prompt in tokens, image tokens included. A longer one stops the run with its row id: "
            "prompts are never truncated, that would cut images in two."
        },
    )
    shared_prefix: bool | None = field(
        default=None,
        metadata={
            "help": "Whether an update encodes the prompt and the images of a group once, not once for each "
            "completion. By default where the model's architecture can; true stops the run where it can't."
        },
    )
    skip_without_signal: bool | None = field(
        default=None,
        metadata={
            "help": "Whether an update leaves completions out whose advantage is zero, such as those of a group with "
            "equal rewards. By default where that changes neither loss nor gradients: without a KL term (beta 0), an "
            "entropy bonus or top_entropy_quantile. True stops the run where it would change them."
        },
    )
    beta_schedule: str = field(
        default="constant",
        metadata={"help": "How the KL weight falls from beta to beta_floor: constant, linear or cosine."},
    )
    beta_floor: float = field(default=0.0, metadata={"help": "KL weight that the schedule ends at."})
    group_generation: bool = field(
        default=True,
        metadata={
            "help": "Where transformers samples: read each distinct prompt and its images once, and drop completions "
            "from the batch soon after they end. The completions are the same but for rounding. Models and settings "
            "that it can't do are sampled as TRL does, which is said once. vLLM does as much by itself."
        },
    )
    vllm_max_logprob_gap: float | None = field(
        default=None,
        metadata={
            "help": "Colocated vLLM: most that its log-probabilities may differ from the trainer's in the mean, "
            "before the first step and after it; beyond it the run stops. By default 1e-4 in float32 and 3e-2 in half "
            "precision."
        },
    )
    stop_token: str | None = field(
        default=None,
        metadata={
            "help": "A token that ends a completion as the end of text does, such as </info> where only a caption is "
            "wanted. It must be one token of the model's tokenizer."
        },
    )
    fact_judge: dict | str | None = field(
        default=None,
        metadata={
            "help": "Who judges which visual facts a response states: a block as `reasoner` of CaptionGRPOTrainer. By "
            "default a rule, which visual_facts_reward applies by itself, for facts that are plain strings."
        },
    )
    fact_judge_prompt: str = field(
        default="fact_judge",
        metadata={"help": "System prompt of the fact judge: a packaged prompt's name or a text file's path."},
    )

    log_image_size: int = field(
        default=512,
        metadata={
            "help": "Longest side, in pixels, of the images that a run with log_completions keeps for the gallery, "
            "each once; 0 keeps none."
        },
    )

    def __post_init__(self) -> None:
        if self.log_image_size < 0:
            raise ValueError(
                f"log_image_size is {self.log_image_size}, which no image can have: set pixels, or 0 to keep none."
            )
        # HfArgumentParser hands numbers over as YAML read them, and YAML reads 1e-4 as a string
        self.beta = float(self.beta)
        self.beta_floor = float(self.beta_floor)
        if self.vllm_max_logprob_gap is not None:
            self.vllm_max_logprob_gap = float(self.vllm_max_logprob_gap)
            if not self.vllm_max_logprob_gap > 0:
                raise ValueError(
                    f"vllm_max_logprob_gap is {self.vllm_max_logprob_gap:g}, but rounding alone makes a gap: set it "
                    "above 0, or leave it out."
                )
        kl_weight(0, 1, self.beta, self.beta_floor, self.beta_schedule)  # raises on a bad schedule
        if self.beta == 0 and self.beta_schedule != "constant":
            raise ValueError(
                f"beta_schedule is {self.beta_schedule!r} but beta is 0, so there is no KL term to anneal: set beta "
                "above 0 or beta_schedule to constant."
            )
        self._check_reasoners()
        self.batch_plan = self._plan_batch()
        if self.use_cpu or not torch.cuda.is_available():
            self._prepare_for_cpu()
        super().__post_init__()
        self._check_sampling()

    @property
    def named_columns(self) -> tuple[str, ...]:
        """Columns that options name. The rows must have them; a row may leave them empty."""
        return ()

    @property
    def reasoners(self) -> dict[str, ReasonerConfig]:
        """The text models that are consulted about completions, by the option that names them.

        Raises:
            ValueError: a block that can't work.
        """
        blocks = {name: read_reasoner(name, getattr(self, name)) for name in self._REASONERS}
        return {name: config for name, config in blocks.items() if config is not None}

    def _check_reasoners(self) -> None:
        """Find out before anything is loaded whether blocks and prompts can work, and how long they may wait."""
        configs = list(self.reasoners.values())
        servers = [config.batch_seconds for config in configs if config.kind == "endpoint"]
        local = [config.batch_seconds for config in configs if config.kind == "local"]
        # servers are asked at the same time, models in this process one after the other
        longest = max(servers, default=0.0) + sum(local)
        if longest >= self.ddp_timeout and (servers or local):
            raise ValueError(
                f"The reasoners may take {longest:g} s together (batch_seconds), but ddp_timeout is "
                f"{self.ddp_timeout}: a process that waits for them would be given up by the others. Lower "
                "batch_seconds or raise ddp_timeout."
            )
        if self.fact_judge is not None:
            load_prompt(self.fact_judge_prompt)

    def _check_sampling(self) -> None:
        if not (self.use_vllm and self.vllm_importance_sampling_correction):
            return
        settings = {name: getattr(self, name) for name in WHOLE.keys() & vars(self).keys()}
        settings["structured_outputs_regex"] = self.vllm_structured_outputs_regex
        request: Any = self.generation_kwargs  # read from JSON by now
        # a bias is mostly a ban of tokens that hardly ever come, which the correction hardly sees
        bent = [name for name in bending_settings(settings, request) if name != "logit_bias"]
        if bent:
            raise ValueError(
                f"use_vllm is true and {', '.join(bent)} bend what is sampled, while "
                "vllm_importance_sampling_correction weights each completion with the policy's probability over that "
                "of the bent distribution: with top_p, the product of its tokens' nucleus masses, which leaves almost "
                "nothing of the loss of a long completion. Set vllm_importance_sampling_correction to false, or "
                f"leave {', '.join(bent)} out."
            )

    def _plan_batch(self) -> BatchPlan | None:
        if self.updates_per_sampling < 1 or (self.updates_per_sampling > 1 and self.prompts_per_step is None):
            raise ValueError(
                f"updates_per_sampling is {self.updates_per_sampling} and prompts_per_step {self.prompts_per_step}: "
                "set the first to at least 1, and the second too, or use TRL's steps_per_generation instead of both."
            )
        if self.prompts_per_step is None:
            return None
        default = GRPOConfig.__dataclass_fields__
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "generation_batch_size"):
            if getattr(self, name) != default[name].default:
                raise ValueError(
                    f"prompts_per_step and {name} are both set, but the first decides the second: remove {name}, and "
                    "use max_completions_per_device to fit the memory."
                )
        plan = plan_batch(
            self.prompts_per_step, self.num_generations or 0, num_processes(), self.max_completions_per_device
        )
        self.per_device_train_batch_size = plan.per_device
        self.gradient_accumulation_steps = plan.accumulation
        if self.updates_per_sampling > 1:
            self.steps_per_generation = plan.accumulation * self.updates_per_sampling
        return plan

    def _prepare_for_cpu(self) -> None:
        self.use_cpu = True
        self.dataloader_pin_memory = False
        if self.bf16 is None:
            self.bf16 = False
        if self.deepspeed:
            boot_deepspeed_on_cpu(self.ddp_timeout)
            self.accelerator_config = {"use_configured_state": True}
        elif num_processes() > 1:
            self.ddp_backend = "gloo"
            # accelerate would choose cpu:0, to which torch.load can't move the optimizer's state on a resume
            os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"


def read_reasoner(name: str, block: dict | str | None) -> ReasonerConfig | None:
    """The config of a reasoner's block, None without one.

    Raises:
        ValueError: see :class:`open_r1_vision.reasoners.ReasonerConfig`; the message names the key.
    """
    if block is None:
        return None
    # the block itself is not repeated: a key may stand in it
    try:
        block = json.loads(block) if isinstance(block, str) else block
    except ValueError as error:
        raise ValueError(f"`{name}` is no JSON: give a block such as {{kind: local, model: FOLDER}}.") from error
    if not isinstance(block, dict):
        raise ValueError(f"`{name}` is a {type(block).__name__}: give a block such as {{kind: local, model: FOLDER}}.")
    try:
        return ReasonerConfig.from_mapping(block)
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from error
