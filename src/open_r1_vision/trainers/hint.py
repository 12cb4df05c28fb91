# SPDX-License-Identifier: Apache-2.0
"""HintGRPOTrainer: a head start for questions that are always answered wrong (Hint-GRPO)."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedModel

from open_r1_vision.importing import import_callable
from open_r1_vision.rewards.loading import checked
from open_r1_vision.trainers.base import VisionGRPOTrainer
from open_r1_vision.trainers.caption import CaptionGRPOTrainer
from open_r1_vision.trainers.gates import score_completions
from open_r1_vision.trainers.group_generation import is_per_token
from open_r1_vision.trainers.hint_config import HintCaptionGRPOConfig, HintGRPOConfig
from open_r1_vision.trainers.hint_levels import Rung, ladder
from open_r1_vision.trainers.hint_rollout import Request, Sampled, measure, roll_out

logger = logging.getLogger(__name__)

#: File in a checkpoint with the level that each row needed last.
MEMORY_FILE = "hint_levels.json"


@dataclass(frozen=True)
class Hint:
    """What a response starts with: its level, the text around and of the steps, and the text's tokens."""

    level: int = 0
    text: str = ""
    ids: tuple[int, ...] = ()


class HintGRPOTrainer(VisionGRPOTrainer):
    """Hint-GRPO (arXiv 2503.23905): groups that are all wrong are sampled again with part of the reference reasoning.

    Level m of M gives the first floor(L * m / M) of a row's L steps as the start of the model's own response. The
    whole group gets one level, the lowest at which a completion is right; where none is, it is trained as it was
    sampled first. So the baseline of a group compares like with like, and only the group that is trained reaches
    log-probabilities, reference and loss.

    The hint's tokens are not in the loss, not in the text and the tokens that rewards get, and not in the length
    metrics. A reward that wants the hint names the column `response_start`, the text that the response was given to
    start with ("" at level 0), or `hint_level`. Evaluation and `generate_greedy` give no hints. `hint_levels=1` is
    plain GRPO with the metrics below.

    Args:
        gate: decides which completions are right. Called as a reward is, with the columns of the rows,
            `response_start` and `hint_level`, but without `log_extra` and `log_metric`, and once for each round of
            sampling that has rows in its process: so it must not generate with the policy or wait for other
            processes. By default the function that `args.hint_gate` names. All other arguments are
            VisionGRPOTrainer's.

    Logged, as shares of the groups of a step: `hints/utilisation_before` and `hints/utilisation` (groups whose scores
    by the gate differ, as first sampled and as trained), `hints/level_0` to `hints/level_M-1` (trained level),
    `hints/unsolved` (no right completion at any level), `hints/all_correct` (of the trained groups); further
    `hints/extra_tokens` (tokens sampled for hints, per token of the first sampling), `hints/level_0_only` (rows with
    too few steps for any hint) and `hints/too_long` (rows that lost a level to the token budget).

    Overrides `_generate`, `_generate_single_turn`, `_calculate_rewards`, `_save_optimizer_and_scheduler`,
    `_load_optimizer_and_scheduler` and, of our own, `_starts`; each other one calls VisionGRPOTrainer's.

    Raises:
        ValueError: tools, rollout functions or environments, which write into the response too; rows without the
            column of the steps, or without `id` where levels are remembered.
    """

    _tag_names = ["trl", "grpo", "hint-grpo", "open_r1_vision"]
    _name = "HintGRPO"
    _paper = {
        "title": "Boosting MLLM Reasoning with Text-Debiased Hint-GRPO",
        "id": "2503.23905",
    }

    config_class: ClassVar[type[HintGRPOConfig]] = HintGRPOConfig
    args: HintGRPOConfig

    def __init__(
        self,
        model: str | PreTrainedModel,
        reward_funcs: Any = None,
        args: HintGRPOConfig | None = None,
        train_dataset: Any = None,
        *rest: Any,
        gate: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or self.config_class(output_dir="runs/hint_grpo")
        for name in ("tools", "rollout_func", "environment_factory"):
            if kwargs.get(name):
                raise ValueError(f"{type(self).__name__} got `{name}`, which would write over hints: leave it out.")
        self.gate = checked(gate or import_callable(args.hint_gate), role="gate")
        _check_columns(train_dataset, args)
        super().__init__(model, reward_funcs, args, train_dataset, *rest, **kwargs)
        config = self.accelerator.unwrap_model(self.model).config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        self._context_length: int | None = (self.args.vllm_max_model_length if self.use_vllm else None) or limit
        # the chats of a batch that may be hinted, until they have been sampled
        self._unsampled: list | None = None
        self._hints: list[Hint] = []
        # tokens of the batch's hints: each is asked for by all completions of its group, several times
        self._ids_by_text: dict[str, tuple[int, ...]] = {}
        self._last_levels: dict[str, int] = {}
        self._warned_too_long = False

    # ---- sampling

    def _generate(self, prompts: list) -> tuple:
        self._hints = [Hint()] * len(prompts)
        self._ids_by_text.clear()
        self._unsampled = prompts if self.model.training else None
        prompt_ids, completion_ids, tool_mask, completions, logprobs, *rest = super()._generate(prompts)
        if any(hint.ids for hint in self._hints):
            # only now: lengths have been logged and texts decoded without hints
            tool_mask = [
                [0] * len(hint.ids) + [1] * len(ids) for hint, ids in zip(self._hints, completion_ids, strict=True)
            ]
            completion_ids = [[*hint.ids, *ids] for hint, ids in zip(self._hints, completion_ids, strict=True)]
            if logprobs is not None:
                logprobs = [[0.0] * len(hint.ids) + values for hint, values in zip(self._hints, logprobs, strict=True)]
        return (prompt_ids, completion_ids, tool_mask, completions, logprobs, *rest)

    def _generate_single_turn(
        self,
        prompt_ids: list,
        images: list | None,
        multimodal_fields: dict,
        num_generations: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple:
        chats, self._unsampled = self._unsampled, None
        if chats is None:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs
            )
        whole_batch = (prompt_ids, images, multimodal_fields, num_generations)
        rollout = roll_out(
            self.args.hint_mode,
            [row.get("id") for row in self._batch_rows],
            [self._ladder(row, ids) for row, ids in zip(self._batch_rows, prompt_ids, strict=True)],
            num_generations=num_generations,
            threshold=self.args.hint_gate_threshold,
            rank=self.accelerator.process_index,
            sample=lambda requests, is_plain: self._sample(requests, chats, whole_batch if is_plain else None),
            judge=self._judge,
        )
        self._hints = [self._hint(row, rung) for row, rung in zip(self._batch_rows, rollout.rungs, strict=True)]
        for name, value in measure(rollout, self.args.hint_levels).items():
            self._log_metric(f"hints/{name}", value)
        if self.args.hint_memory:
            self._last_levels.update(
                {
                    str(group.row_id): group.rungs[group.chosen if any(group.solved) else -1].level
                    for group in rollout.groups
                }
            )
        ids = [output.ids for output in rollout.sampled]
        logprobs = [output.logprobs for output in rollout.sampled]
        return ids, None if any(values is None for values in logprobs) else logprobs

    def _starts(self) -> list[str]:
        return [hint.text for hint in self._hints]

    def _sample(self, requests: list[Request], chats: list, whole_batch: tuple | None) -> list[Sampled]:
        """One completion for each request, by one call of the backend."""
        if whole_batch is not None:
            return _sampled(*super()._generate_single_turn(*whole_batch))
        filled = self._fill_up(requests)
        if not filled:
            return []
        hints = [self._hint(self._batch_rows[request.index], request.rung) for request in filled]
        prompt_ids, images, fields = self._encode([chats[request.index] for request in filled])
        fields = {
            name: [[*of_row, *[0] * len(hint.ids)] for of_row, hint in zip(values, hints, strict=True)]
            if is_per_token(values, prompt_ids)
            else values
            for name, values in fields.items()
        }
        prompt_ids = [[*ids, *hint.ids] for ids, hint in zip(prompt_ids, hints, strict=True)]
        ids, logprobs = super()._generate_single_turn(prompt_ids, images, fields, num_generations=1)
        if self.args.hint_counts_as_completion:
            limits = [(self.max_completion_length or 0) - len(hint.ids) for hint in hints]
            ids = [of_row[:limit] for of_row, limit in zip(ids, limits, strict=True)]
            if logprobs is not None:
                logprobs = [of_row[:limit] for of_row, limit in zip(logprobs, limits, strict=True)]
        return _sampled(ids, logprobs)[: len(requests)]

    def _fill_up(self, requests: list[Request]) -> list[Request]:
        """Requests with repeats, so that no process is left out of a collective call."""
        if self.accelerator.num_processes == 1:
            return requests
        # vLLM with tensor parallelism gathers prompts, as many from each process; ZeRO-3 gathers weights
        size = max(gather_object([len(requests)])) if self.use_vllm else max(1, len(requests))
        filler = requests[0] if requests else Request(0, Rung(0, 0))
        return requests + [filler] * (size - len(requests))

    def _judge(self, requests: list[Request], sampled: list[Sampled]) -> list[float | None]:
        rows = [self._batch_rows[request.index] for request in requests]
        hints = [self._hint(row, request.rung) for row, request in zip(rows, requests, strict=True)]
        return score_completions(
            self.gate,
            rows,
            [output.ids for output in sampled],
            self.processing_class,
            self.state,
            response_start=[hint.text for hint in hints],
            hint_level=[hint.level for hint in hints],
        )

    # ---- hints of a row

    def _ladder(self, row: dict, prompt_ids: list[int]) -> list[Rung]:
        """The levels of a row that fit the token budget, from the one where it starts."""
        rungs = ladder(len(self._steps(row)), self.args.hint_levels, self.args.hint_max_share)
        fitting = [rung for rung in rungs if self._fits(len(self._hint(row, rung).ids), len(prompt_ids))]
        fitting = fitting or rungs[:1]
        if len(fitting) < len(rungs) and not self._warned_too_long:
            self._warned_too_long = True
            logger.warning(
                "Row %r: the hint of level %d leaves no room for a completion and is left out, and so it will be for "
                "others; hints/too_long counts them. Raise max_completion_length or vllm_max_model_length, or set "
                "hint_counts_as_completion to false.",
                row.get("id"),
                rungs[len(fitting)].level,
            )
        self._log_metric("hints/level_0_only", float(len(rungs) == 1))
        self._log_metric("hints/too_long", float(len(fitting) < len(rungs)))
        # one level below the last one, or the next lower one where levels give as many steps
        start = max(0, self._last_levels.get(str(row.get("id")), 0) - 1)
        return fitting[sum(rung.level <= start for rung in fitting) - 1 :]

    def _fits(self, num_hint_tokens: int, num_prompt_tokens: int) -> bool:
        """Whether a completion of full length, or of what the hint leaves of it, still has room."""
        budget = self.max_completion_length or 0
        if self.args.hint_counts_as_completion:
            budget -= num_hint_tokens
        context = self._context_length
        in_context = context is None or num_prompt_tokens + num_hint_tokens + budget <= context
        return not num_hint_tokens or (budget > 0 and in_context)

    def _hint(self, row: dict, rung: Rung) -> Hint:
        if not rung.num_steps:
            return Hint(rung.level)
        steps = " ".join(self._steps(row)[: rung.num_steps])
        text = self.args.hint_template.replace("{hint}", steps)
        if text not in self._ids_by_text:
            # what looks like an end of turn or an image in a reference is text
            ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            self._ids_by_text[text] = tuple(ids)
        return Hint(rung.level, text, self._ids_by_text[text])

    def _steps(self, row: dict) -> list[str]:
        steps = row.get(self.args.hint_column)
        if steps is None:
            return []
        if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
            raise ValueError(
                f"Row {row.get('id')!r}: `{self.args.hint_column}` is {steps!r:.100}, but hints need a list of "
                "strings, one for each step of the reference. Split the text into steps, or leave the row's empty."
            )
        return steps

    # ---- rewards

    def _calculate_rewards(
        self, inputs: list[dict], prompts: list, completions: list, completion_ids_list: list
    ) -> torch.Tensor:
        for row, hint in zip(inputs, self._hints, strict=True):
            row.update(response_start=hint.text, hint_level=hint.level)
        self._log_completion_extra("hint", [hint.text for hint in self._hints])
        self._log_completion_extra("hint_level", [hint.level for hint in self._hints])
        completion_ids_list = [
            ids[len(hint.ids) :] for ids, hint in zip(completion_ids_list, self._hints, strict=True)
        ]
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    # ---- memory

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.hint_memory and self.args.should_save:
            (Path(output_dir) / MEMORY_FILE).write_text(json.dumps(self._last_levels), encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.args.hint_memory and checkpoint and (Path(checkpoint) / MEMORY_FILE).is_file():
            self._last_levels = json.loads((Path(checkpoint) / MEMORY_FILE).read_text(encoding="utf-8"))


class HintCaptionGRPOTrainer(HintGRPOTrainer, CaptionGRPOTrainer):
    """Hint-GRPO and caption-GRPO in one run: hints for groups that are all wrong, a reward for captions.

    A caption that begins in the hint and ends in the completion is read as a whole; one that ends in the hint is read
    too, and pays all of its group alike, so that reader metrics then count the reference as well. Takes the arguments
    and options of both trainers. Overrides nothing.
    """

    _tag_names = ["trl", "grpo", "hint-grpo", "caption-grpo", "open_r1_vision"]
    _name = "HintCaptionGRPO"

    config_class: ClassVar[type[HintCaptionGRPOConfig]] = HintCaptionGRPOConfig
    args: HintCaptionGRPOConfig


def _sampled(ids: list, logprobs: list | None) -> list[Sampled]:
    return [Sampled(*pair) for pair in zip(ids, logprobs or [None] * len(ids), strict=True)]


def _check_columns(dataset: Any, args: HintGRPOConfig) -> None:
    names = getattr(dataset, "column_names", None)
    if names is None or args.hint_levels == 1:
        return
    if args.hint_column not in names:
        raise ValueError(
            f"hint_column is {args.hint_column!r}, but the rows have the columns {', '.join(sorted(names))}: name the "
            "column with the steps of the reference reasoning."
        )
    if args.hint_memory and "id" not in names:
        raise ValueError(
            "hint_memory is true, but the rows have no column `id` to remember levels by: add one, unique for each "
            "row, or set hint_memory to false."
        )
