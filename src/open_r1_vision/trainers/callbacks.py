# SPDX-License-Identifier: Apache-2.0
"""Callbacks that the trainers bring along."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer

from open_r1_vision.distributed import require_deepspeed_engine
from open_r1_vision.trainers.schedules import kl_weight


class KLScheduleCallback(TrainerCallback):
    """Set the trainer's KL weight from the step, before each step."""

    def __init__(self, trainer: GRPOTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        options: Any = args
        self.trainer.beta = kl_weight(
            state.global_step, state.max_steps, options.beta, options.beta_floor, options.beta_schedule
        )


class RequireDeepSpeedCallback(TrainerCallback):
    """Stop before the first step when the model is not a DeepSpeed engine."""

    def __init__(self, trainer: GRPOTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        require_deepspeed_engine(self.trainer.model_wrapped)
