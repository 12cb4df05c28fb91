# SPDX-License-Identifier: Apache-2.0
"""VisionGRPOTrainer: TRL's GRPOTrainer, right for images."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from accelerate.utils import gather_object
from torch import nn
from transformers import PreTrainedModel
from trl import GRPOTrainer

from open_r1_vision.models import load_processor, vision_token_ids
from open_r1_vision.prompts import load_prompt
from open_r1_vision.reasoners import Reasoner, ReasonerConfig, build_reasoner
from open_r1_vision.reasoners.facts import FactJudge, judge_config
from open_r1_vision.rewards.answers import completion_text
from open_r1_vision.rewards.loading import checked
from open_r1_vision.trainers.callbacks import KLScheduleCallback, RequireDeepSpeedCallback
from open_r1_vision.trainers.colocated_vllm import ColocatedVLLM, swapped
from open_r1_vision.trainers.config import VisionGRPOConfig
from open_r1_vision.trainers.consulting import Verdicts, setting
from open_r1_vision.trainers.fetching_once import FetchingOnce
from open_r1_vision.trainers.group_generation import GroupGeneration
from open_r1_vision.trainers.judging import FactJudging
from open_r1_vision.trainers.missing_images import MissingImages
from open_r1_vision.trainers.processing_once import ProcessingOnce
from open_r1_vision.trainers.rollout_log import LogFile, RolloutLog, empty_logs, log_rollouts, table_of_evaluation
from open_r1_vision.trainers.sampling import EpochSampler
from open_r1_vision.trainers.shared_prefix import SharedPrefix
from open_r1_vision.trainers.timing import TimedSteps
from open_r1_vision.trainers.tracker_tables import IMAGE_TRACKERS, readable_tables
from open_r1_vision.trainers.whole_checkpoints import WholeCheckpoints
from open_r1_vision.trainers.without_signal import WithoutSignal


class VisionGRPOTrainer(
    TimedSteps,
    WholeCheckpoints,
    MissingImages,
    WithoutSignal,
    SharedPrefix,
    GroupGeneration,
    ProcessingOnce,
    FetchingOnce,
    ColocatedVLLM,
    GRPOTrainer,
):
    """GRPO (arXiv 2402.03300) for vision-language models.

    Takes the arguments of `trl.GRPOTrainer`. Rows may hold any number of images, none included, in `images` (or one in
    `image`). With its options left at their defaults the losses of the same completions are those of GRPOTrainer at
    the same seed: exactly with `shared_prefix` and `skip_without_signal` false and micro-batches that hold a whole
    sampling, else up to rounding, but for settings that depend on which rows make a micro-batch, see SharedPrefix. It
    differs in these points:

    - a prompt that several completions of a micro-batch share is encoded once, see SharedPrefix;
    - completions without signal stay out of the update, and groups with equal rewards have advantages of zero, not of
      rounding noise, see WithoutSignal;
    - rows without images may stand beside rows with images, in a batch, in a micro-batch, and across processes under
      DeepSpeed ZeRO, where a process without an image would leave the others waiting;
    - a processor that pads on the right is set to the left, where GRPO needs it;
    - tokens that stand for images or videos are never sampled, also under vLLM;
    - a `stop_token` ends a completion as the end of text does;
    - text models may be consulted about each completion while the step goes on (`fact_judge`, and what subclasses add
      to `verdicts`); where one gives no verdict, the rewards that depend on it follow its failure policy;
    - colocated vLLM reads the trainer's prompts and images, and is compared with the trainer at the start, see
      ColocatedVLLM;
    - a prompt longer than `max_prompt_tokens` stops the run with its row id;
    - the KL weight follows `beta_schedule`;
    - checkpoints are marked when they are whole, and a resumed run gets all their weights, see WholeCheckpoints;
    - a run that resumes after its first epoch goes on with the prompts that it would have seen;
    - where transformers samples, each distinct prompt is read once and completions that have ended leave the batch
      (`group_generation`), see GroupGeneration;
    - each distinct row is read from the data set once a sampling, see FetchingOnce, and each distinct image and prompt
      goes through template, tokenizer and processor once a step, see ProcessingOnce;
    - the seconds of a step are logged, part by part, see TimedSteps;
    - the completions of an evaluation go to tables of their own, not among those of training and over their file;
    - trackers get tables that they all take, with chats as texts, see tracker_tables.py.

    Overrides `_get_train_sampler`, `_generate_and_score_completions`, `_generate`, `_tokenize_prompts`,
    `_calculate_rewards` and `log`; each calls GRPOTrainer's.
    """

    _tag_names = ["trl", "grpo", "open_r1_vision"]
    _name = "VisionGRPO"

    #: Dataclass of the trainer's options; recipes may use its keys.
    config_class: ClassVar[type[VisionGRPOConfig]] = VisionGRPOConfig
    #: Columns that the trainer itself reads from a row, beside the prompt.
    required_columns: ClassVar[tuple[str, ...]] = ("images",)

    args: VisionGRPOConfig
    # optional to GRPOTrainer's eyes
    model: Any
    processing_class: Any
    _logs: dict[str, Any]
    # what an evaluation under way has for its tables
    _evaluation_logs: dict[str, Any] | None = None

    def __init__(
        self,
        model: str | PreTrainedModel,
        reward_funcs: Any = None,
        args: VisionGRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        if args is None:
            args = self.config_class(output_dir="runs/vision_grpo")
        if processing_class is None:
            processing_class = load_processor(model if isinstance(model, str) else model.config._name_or_path)
        super().__init__(
            model,
            _checked(reward_funcs),
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        self._tokenizer.padding_side = "left"
        # TRL gathers images for trackers only on processes that have some; here all of them do
        self._wants_images = self.log_multimodal and not set(IMAGE_TRACKERS).isdisjoint(args.report_to or ())
        self.log_multimodal = False
        self._batch_rows: list[dict] = []
        self.time_steps()
        if not self.use_vllm:
            self._suppress_vision_tokens()
        if args.stop_token is not None:
            self._stop_at(args.stop_token)
        policies = [policy for policy in (self.model, self.ref_model) if policy is not None]
        for policy in policies:
            self.accept_batches_without_images(self.accelerator.unwrap_model(policy))
        self.share_prefixes(*policies)
        self.choose_skipping()
        self.drop_unused_weight_renames()
        #: Text models that are consulted about completions.
        self.verdicts = Verdicts(self.reward_funcs)
        leave_out = all(setting(reward, "leave_out_question", True) for reward in self.reward_funcs)
        self.fact_judging: FactJudging | None = None
        judge_block = args.reasoners.get("fact_judge")
        if judge_block is not None:
            judge = FactJudge(self.build_reasoner(judge_config(judge_block)), load_prompt(args.fact_judge_prompt))
            self.fact_judging = FactJudging(judge, leave_out)
            self.verdicts.add(self.fact_judging, "fact_judge")
        self.rollout_log: RolloutLog | None = None
        if args.log_completions:
            self.rollout_log = RolloutLog(str(args.output_dir), args.log_image_size, leave_out)
        self.add_callback(LogFile())
        self.add_callback(KLScheduleCallback(self))
        if args.deepspeed:
            self.add_callback(RequireDeepSpeedCallback(self))

    # ---- text models

    def build_reasoner(self, config: ReasonerConfig) -> Reasoner:
        """A reasoner for this run: it answers within seconds now, and never waits longer than other processes do.

        Raises:
            ValueError: see :func:`open_r1_vision.reasoners.build_reasoner`.
        """
        return build_reasoner(config, generate=self.generate_greedy, ddp_timeout=self.args.ddp_timeout)

    # ---- greedy text from the live policy

    def generate_greedy(self, prompts: list[list[dict]], max_new_tokens: int) -> list[str]:
        """Let the live policy reply to chats, greedily. Under several processes all must call it, each with its own.

        Args:
            prompts: chats, one per reply; images lie in the messages' content.
            max_new_tokens: most tokens of a reply.

        Returns:
            One reply for each chat, without special tokens.
        """
        prompt_ids, images, fields = self._encode(prompts)
        with self._greedy(max_new_tokens):
            completion_ids, _ = self._generate_single_turn(prompt_ids, images, fields, num_generations=1)
        return self._tokenizer.batch_decode(completion_ids, skip_special_tokens=True)

    def _encode(self, chats: list) -> tuple:
        """Token ids, images and multimodal fields of any chats, not of the batch's rows alone."""
        return super()._tokenize_prompts(chats)

    @contextmanager
    def _greedy(self, max_new_tokens: int) -> Iterator[None]:
        """Replace the sampling settings of whichever backend generates."""
        if self.use_vllm:
            with self.sampling_wholly(temperature=0.0, max_completion_length=max_new_tokens):
                yield
            return
        greedy = {
            "do_sample": False,
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 50,
            "min_p": None,
            "repetition_penalty": 1.0,
            "max_new_tokens": max_new_tokens,
        }
        config = type(self.generation_config)(**{**self.generation_config.to_dict(), **greedy})
        config.disable_compile = True
        kwargs = {**self.generation_kwargs, **greedy}
        with swapped(self, {"generation_config": config, "generation_kwargs": kwargs}):
            yield

    # ---- one generation batch

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        stock: Any = super()._get_train_sampler(dataset)
        return EpochSampler(stock, lambda: int(self.state.epoch or 0))

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._batch_rows = [_with_image_list(row) for row in inputs]
        with self._logging_apart():
            output = super()._generate_and_score_completions(self._batch_rows)
            if self._wants_images:
                self._logs["images"].extend(gather_object([row["images"] for row in self._batch_rows]))
        return output

    def _generate(self, prompts: list) -> tuple:
        *outputs, images, tool_images = super()._generate(prompts)
        if images is not None:
            # the processor takes [] for a row without images, not None
            images = [row_images or [] for row_images in images]
        if len(self.verdicts):
            self.verdicts.start(self._batch_rows, self._starts(), [completion_text(text) for text in outputs[3]])
        return (*outputs, images, tool_images)

    def _starts(self) -> list[str]:
        """The text that each response was given to start with."""
        return [""] * len(self._batch_rows)

    def _tokenize_prompts(self, prompts: list) -> tuple:
        prompt_ids, images, fields = super()._tokenize_prompts(prompts)
        limit = self.args.max_prompt_tokens
        if limit is not None:
            for row, ids in zip(self._batch_rows, prompt_ids, strict=True):
                if len(ids) > limit:
                    raise ValueError(
                        f"The prompt of row {row.get('id')!r} has {len(ids)} tokens with its {len(row['images'])} "
                        f"image(s), but max_prompt_tokens is {limit}, and prompts are never truncated. Raise "
                        "max_prompt_tokens, lower max_pixels, or drop the row: `python -m open_r1_vision.check_data "
                        "--config RECIPE --write-clean PATH` finds all such rows beforehand."
                    )
        return prompt_ids, images, fields

    def _calculate_rewards(
        self, inputs: list[dict], prompts: list, completions: list, completion_ids_list: list
    ) -> torch.Tensor:
        self._log_completion_extra("id", [row.get("id") for row in inputs])
        findings = self.verdicts.finish(inputs, self.timed, self._log_metric, self._log_completion_extra)
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        group_size: Any = self.num_generations if self.model.training else self.num_generations_eval
        if self.rollout_log is not None:
            rank, taken = self.accelerator.process_index, self._pending_extra_logs
            log_rollouts(self.rollout_log, inputs, rank, group_size, taken, self._log_completion_extra)
        if not findings:
            return rewards
        return self.verdicts.settle_findings(rewards, findings, group_size, self.accelerator.gather, self._log_metric)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the KL weight to TRL's metrics."""
        if self.model.training and self._metrics["train"]:
            self._metrics["train"]["kl_weight"] = [self.beta]
        if self._evaluation_logs is None:
            # the last log of a training may come after an evaluation, with the model as that left it
            with readable_tables():
                super().log(logs, start_time)
            return
        writes = self.args.log_completions and self.accelerator.is_main_process
        with (
            readable_tables(),
            self._logging_apart(),
            table_of_evaluation(str(self.args.output_dir), self.state.global_step) if writes else nullcontext(),
        ):
            super().log(logs, start_time)
        self._evaluation_logs = None

    def log_apart(self, logs: dict[str, float]) -> None:
        """Log numbers as an entry of their own, to the log file and to trackers; all processes must call it.

        TRL's `log` would move the metrics of the step under way into the entry.
        """
        is_due = self.control.should_log
        super(GRPOTrainer, self).log(logs)
        # transformers takes it for the log of the step
        self.control.should_log = is_due

    @contextmanager
    def _logging_apart(self) -> Iterator[None]:
        """Let an evaluation fill tables of its own: in TRL's they stand among training's rows, or don't fit these."""
        if self.model.training:
            yield
            return
        of_training, self._logs = self._logs, self._evaluation_logs or empty_logs(self._logs)
        self._evaluation_logs = self._logs
        try:
            yield
        finally:
            self._logs = of_training

    # ---- repairs at construction

    def _suppress_vision_tokens(self) -> None:
        """Keep the sampler from placeholder tokens: one more of them than images breaks the next forward pass."""
        ids = vision_token_ids(self.accelerator.unwrap_model(self.model).config)
        suppressed = sorted(ids | set(self.generation_config.suppress_tokens or ()))
        self.generation_config.suppress_tokens = suppressed or None
        self.generation_kwargs["suppress_tokens"] = suppressed or None

    def _stop_at(self, token: str) -> None:
        """End completions at a token, which stays their last one."""
        ids = self._tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            raise ValueError(
                f"stop_token is {token!r}, which this model's tokenizer splits into {len(ids)} tokens: set it to one "
                "token, or leave it out and let the completion end by itself."
            )
        self.eos_token_ids = [*ids, *self.eos_token_ids]
        if self.use_vllm:
            generation_kwargs = dict(self.vllm_generation.generation_kwargs or {})
            stops = [*self.eos_token_ids, *(generation_kwargs.get("stop_token_ids") or ())]
            self.vllm_generation.generation_kwargs = {**generation_kwargs, "stop_token_ids": stops}
        else:
            self.generation_config.eos_token_id = self.eos_token_ids
            self.generation_kwargs["eos_token_id"] = self.eos_token_ids


def _checked(rewards: Any) -> list | None:
    """Guard reward functions; reward models, their names and no reward at all are TRL's business."""
    if rewards is None:
        return None
    rewards = rewards if isinstance(rewards, list) else [rewards]
    return [reward if isinstance(reward, (str, nn.Module)) else checked(reward) for reward in rewards]


def _with_image_list(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its images in the list `images`: one `image`, None and a missing column included."""
    image = row.get("image")
    images = row["images"] if row.get("images") is not None else [] if image is None else [image]
    return {**row, "images": images}
