# SPDX-License-Identifier: Apache-2.0
"""CurriculumGRPOTrainer: the RL stages of a curriculum in one process, for notebooks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.trainer_utils import TrainOutput

from open_r1_vision.models import load_processor, save_final
from open_r1_vision.trainers.base import VisionGRPOTrainer
from open_r1_vision.trainers.config import VisionGRPOConfig


@dataclass
class TrainStage:
    """One RL stage.

    Attributes:
        args: options, with an `output_dir` of its own.
        reward_funcs: its rewards; their weights are in `args`.
        train_dataset: its rows, with prompts.
        trainer_kwargs: further arguments of the trainer.
    """

    args: VisionGRPOConfig
    reward_funcs: list[Callable[..., Any]]
    train_dataset: Any
    trainer_kwargs: dict[str, Any] = field(default_factory=dict)


class CurriculumGRPOTrainer(VisionGRPOTrainer):
    """Stages one after another, each on its own rows and rewards (PeBR-R1, arXiv 2509.13031).

    Each stage begins with the model that the one before it saved, with a new optimizer and schedule, and with that
    model as its KL reference: it does what `python -m open_r1_vision.curriculum` does in processes of their own, and
    in one process with a fixed seed it ends with the same weights. A stage's model is in `final` in its output_dir.

    Args:
        model: folder or hub id that the first stage begins with.
        stages: in their order; `args` of each needs an `output_dir` of its own.
        processing_class: the model's processor; by default that of its folder.

    Raises:
        ValueError: no stages, or two that write to one folder.

    Overrides `train`, which calls VisionGRPOTrainer's once for each stage.
    """

    def __init__(self, model: str, stages: Sequence[TrainStage], processing_class: Any = None) -> None:
        folders = [str(stage.args.output_dir) for stage in stages]
        if not stages:
            raise ValueError("There are no stages: give at least one TrainStage.")
        if len(set(folders)) < len(folders):
            raise ValueError(
                f"The stages write to {', '.join(folders)}: set an output_dir of its own in the args of each stage."
            )
        self.stages = list(stages)
        self.stage_index = 0
        self._processor = processing_class or load_processor(model)
        self._begin(model)

    def train(self, *args: Any, **kwargs: Any) -> list[TrainOutput]:  # type: ignore[override]
        """Walk through the stages; the arguments go to the first stage's training, such as `resume_from_checkpoint`.

        Returns:
            What the trainer returns for each stage.
        """
        outputs = [self._train_and_save(*args, **kwargs)]
        while self.stage_index + 1 < len(self.stages):
            final = str(self.final_folder)
            self.stage_index += 1
            self._begin(final)
            outputs.append(self._train_and_save())
        return outputs

    @property
    def final_folder(self) -> Path:
        """Where the current stage's model goes."""
        return Path(str(self.stages[self.stage_index].args.output_dir)) / "final"

    def _begin(self, model: str) -> None:
        stage = self.stages[self.stage_index]
        self._source = model
        super().__init__(
            model,
            stage.reward_funcs,
            stage.args,
            train_dataset=stage.train_dataset,
            processing_class=self._processor,
            **stage.trainer_kwargs,
        )

    def _train_and_save(self, *args: Any, **kwargs: Any) -> TrainOutput:
        output = super().train(*args, **kwargs)
        save_final(self, self._source, self.final_folder)
        return output
