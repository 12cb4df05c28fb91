# SPDX-License-Identifier: Apache-2.0
"""Samples by transformers with text-bias calibrated decoding (Hint-GRPO), greedy or seeded."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from open_r1_vision.decoding import CalibratedGenerator, Calibration
from open_r1_vision.sampling.draws import Prompt
from open_r1_vision.sampling.options import DrawArguments
from open_r1_vision.sampling.seeded import TransformersSampler


class CalibratedSampler(TransformersSampler):
    """A model in this process whose logits are calibrated before a token is chosen.

    Args:
        options: of the run.
        folder: of the model.
        processor: its processor, padding on the left.
        calibration: how to calibrate.

    Raises:
        ValueError: a model that can't be calibrated.
    """

    def __init__(self, options: DrawArguments, folder: str, processor: Any, calibration: Calibration) -> None:
        super().__init__(options, folder, processor)
        self._calibration = calibration
        self._make_generator([])

    def _make_generator(self, choices: list[LogitsProcessor]) -> CalibratedGenerator:
        settings = {**self._settings, "num_return_sequences": self._options.num_generations}
        return CalibratedGenerator(
            self.model, self._processor, self._calibration, logits_processor=choices, **settings
        )

    def _generate(self, prompts: Sequence[Prompt], choices: list[LogitsProcessor]) -> torch.Tensor:
        chats = [prompt.chat for prompt in prompts]
        return self._make_generator(choices).generate_ids(chats, self._options.max_completion_length)
