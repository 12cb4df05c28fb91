# SPDX-License-Identifier: Apache-2.0
"""Trainers that take one step of training at a time, ours and stock TRL's, and tell where its seconds went."""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PrinterCallback
from trl import GRPOTrainer

from open_r1_vision.bench.models import (
    add_checkpointing_argument,
    add_model_arguments,
    running_on,
    trainer_options,
)
from open_r1_vision.trainers.timing import TimedSteps

#: What counts as scoring too: the rest of a batch's preparation, wherever it is done.
_SCORING = ("scoring", "preparing", "logprobs")


class TimedGRPOTrainer(TimedSteps, GRPOTrainer):
    """Stock GRPOTrainer with VisionGRPOTrainer's clock, and nothing else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.time_steps()


class NotingReward:
    """A reward that random completions earn to different degrees. Keeps the tokens that it was given."""

    __name__ = "noting_reward"

    def __init__(self) -> None:
        self.completion_ids: list[list[list[int]]] = []

    def __call__(self, completions: list, completion_ids: list[list[int]], **columns: Any) -> list[float]:
        """See `trl.GRPOTrainer`; a list of tokens for each call is kept."""
        self.completion_ids.append(completion_ids)
        return [sum(ids) % 7 / 7 for ids in completion_ids]


def add_step_arguments(parser: argparse.ArgumentParser) -> None:
    """What benchmarks of whole steps say of their sizes."""
    add_model_arguments(parser)
    add_checkpointing_argument(parser)
    parser.add_argument("--optimizer", default="adamw_torch", help="`optim` of transformers' TrainingArguments")


def step_options(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """What the configs of all trainers have in common: a step of all prompts, in micro-batches of one group each."""
    return {
        **trainer_options(args, folder),
        "generation_kwargs": running_on(),
        "gradient_accumulation_steps": args.prompts,
        "gradient_checkpointing": args.gradient_checkpointing,
        "optim": args.optimizer,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "max_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "shuffle_dataset": False,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
    }


def take_step(trainer: Any, seed: int) -> dict[str, float]:
    """One step by `train()`, from the rows to the optimizer; what it logged, with `seconds/*`."""
    trainer.remove_callback(PrinterCallback)
    torch.manual_seed(seed)
    trainer.train()
    return {name: value for entry in trainer.state.log_history for name, value in entry.items()}


def breakdown(logs: Mapping[str, Sequence[Mapping[str, float]]], parts: Sequence[str]) -> Callable[[str], dict]:
    """The columns that say where the seconds went: medians over the steps that count, all but the first.

    Args:
        logs: of the steps of each trainer, see :func:`take_step`.
        parts: names of timings.
    """

    def of_trainer(name: str) -> dict[str, float | None]:
        counting = logs[name][1:]
        return {
            part: statistics.median(
                sum(log.get(f"seconds/{timing}", 0.0) for timing in (_SCORING if part == "scoring" else [part]))
                for log in counting
            )
            if all(f"seconds/{part}" in log for log in counting)
            else None
            for part in parts
        }

    return of_trainer
