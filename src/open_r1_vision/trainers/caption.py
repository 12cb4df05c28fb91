# SPDX-License-Identifier: Apache-2.0
"""CaptionGRPOTrainer: captions that are worth reading (Visionary-R1)."""

from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from open_r1_vision.prompts import load_prompt
from open_r1_vision.reasoners.captions import CaptionReader
from open_r1_vision.reasoners.policy import PolicyReader
from open_r1_vision.rewards.answers import completion_text, score_answers
from open_r1_vision.rewards.tags import extract_caption
from open_r1_vision.trainers.base import VisionGRPOTrainer
from open_r1_vision.trainers.config import CaptionGRPOConfig


class CaptionGRPOTrainer(VisionGRPOTrainer):
    """Caption-GRPO, the method of Visionary-R1 (arXiv 2505.14677).

    A completion describes the image in `<info>` tags, reasons and answers. A reader then answers the question from the
    description alone; `open_r1_vision.rewards.caption_reward` pays for the description by that answer, so that the
    policy can't profit from leaving the image out. With the rewards accuracy, format and caption,
    `reward_weights=[1.0, 1.0, 0.1]` is the paper's equation 1.

    Args:
        reader: whoever reads the captions, see :class:`open_r1_vision.reasoners.captions.CaptionReader`; by default
            the live policy. All other arguments are VisionGRPOTrainer's. Rows need `problem`, `solution` and
            `problem_type` beside `prompt`.

    Every row that reaches a reward function also has `caption` (None where the completion has none) and
    `caption_answer` (None where there is no answer, or the reader found that the caption is not a description).

    Overrides `_calculate_rewards`, which calls VisionGRPOTrainer's.
    """

    _tag_names = ["trl", "grpo", "caption-grpo", "open_r1_vision"]
    _name = "CaptionGRPO"
    _paper = {
        "title": "Visionary-R1: Mitigating Shortcuts in Visual Reasoning with Reinforcement Learning",
        "id": "2505.14677",
    }

    config_class: ClassVar[type[CaptionGRPOConfig]] = CaptionGRPOConfig
    required_columns = ("images", "problem", "solution", "problem_type")

    def __init__(
        self,
        model: str | PreTrainedModel,
        reward_funcs: Any = None,
        args: CaptionGRPOConfig | None = None,
        *rest: Any,
        reader: CaptionReader | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or self.config_class(output_dir="runs/caption_grpo")
        super().__init__(model, reward_funcs, args, *rest, **kwargs)
        self.reader = reader or PolicyReader(
            self.generate_greedy, load_prompt(args.reader_prompt), args.reader_max_tokens
        )

    def _calculate_rewards(
        self, inputs: list[dict], prompts: list, completions: list, completion_ids_list: list
    ) -> torch.Tensor:
        # a hint may begin the caption, see HintCaptionGRPOTrainer
        texts = [
            row.get("response_start", "") + completion_text(text)
            for row, text in zip(inputs, completions, strict=True)
        ]
        captions = [extract_caption(text) for text in texts]
        with self.timed("reading"):
            readings = self.reader.read(captions, [row["problem"] for row in inputs])
        if len(readings) != len(captions):
            raise ValueError(
                f"{type(self.reader).__name__}.read returned {len(readings)} readings for {len(captions)} captions: "
                "it must return one for each, in the same order."
            )
        scores = score_answers(
            [reading.answer for reading in readings],
            *([row[name] for row in inputs] for name in ("solution", "problem_type", "problem")),
        )
        for row, caption, reading, score in zip(inputs, captions, readings, scores, strict=True):
            row.update(caption=caption, caption_answer=reading.answer)
            if score is not None:
                self._log_metric("reader/accuracy", score)
            self._log_metric("reader/not_a_description", float(not reading.is_description))
            self._log_metric("captions/missing", float(caption is None))
        self._log_completion_extra("caption", captions)
        self._log_completion_extra("reader_reply", [reading.reply for reading in readings])
        self._log_completion_extra("caption_answer", [reading.answer for reading in readings])
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
