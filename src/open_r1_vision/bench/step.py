# SPDX-License-Identifier: Apache-2.0
"""A whole step of training: VisionGRPOTrainer against stock TRL's GRPOTrainer, without vLLM.

Both have a model with the same random weights, the same rows with images and the same reward, and take a step in turn,
in one process, by `train()`: rows are read, completions sampled, scored and trained on, and the optimizer steps. Stock
TRL runs as its users run it, in micro-batches of a group as ours; it has a clock more, so that both can say where the
seconds went. Ours has all its options at their defaults.

Contending threads make such numbers many times worse: run on an idle machine, and give `--threads`.
"""

import argparse
import tempfile
from typing import Any

import torch
from trl import GRPOConfig

from open_r1_vision.bench.measuring import compare, equal_share, take_turns
from open_r1_vision.bench.models import build_model, build_processor_for, build_rows
from open_r1_vision.bench.stepping import (
    NotingReward,
    TimedGRPOTrainer,
    add_step_arguments,
    breakdown,
    step_options,
    take_step,
)
from open_r1_vision.trainers import VisionGRPOConfig, VisionGRPOTrainer

PARTS = ("generation", "scoring", "rewards", "update")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of the run."""
    add_step_arguments(parser)


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure.

    Returns:
        A row for each trainer: the columns of :func:`open_r1_vision.bench.measuring.compare`, with sampled tokens; the
        median seconds of generation, scoring (the rest of a batch's preparation), rewards and update (loss and
        gradients); and of the first step, which both take from the same weights, the share of completions that are
        equal to stock TRL's, the difference of the losses, and that of the gradients' norms, relative to theirs.
    """
    torch.set_num_threads(args.threads)
    rewards = {name: NotingReward() for name in ("stock", "ours")}
    logs: dict[str, list[dict[str, float]]] = {name: [] for name in rewards}
    with tempfile.TemporaryDirectory() as folder:
        trainers = _build_trainers(args, folder, rewards)

        def work(name: str, number: int) -> int:
            logs[name].append(take_step(trainers[name], seed=number))
            return sum(map(len, rewards[name].completion_ids[-1]))

        turns = take_turns(list(trainers), work, repeats=args.repeats, device=args.device)
    stock, seconds = logs["stock"][0], breakdown(logs, PARTS)
    return [
        {
            "trainer": name,
            **columns,
            **seconds(name),
            "equal": equal_share(rewards[name].completion_ids[0], rewards["stock"].completion_ids[0]),
            "loss gap": abs(logs[name][0]["loss"] - stock["loss"]),
            "gradient norm gap": abs(logs[name][0]["grad_norm"] / stock["grad_norm"] - 1),
        }
        for name, columns in compare(turns, "stock").items()
    ]


def _build_trainers(args: argparse.Namespace, folder: str, rewards: dict[str, NotingReward]) -> dict[str, Any]:
    options, processor = step_options(args, folder), build_processor_for(args)
    classes: dict[str, tuple[Any, Any]] = {
        "stock": (TimedGRPOTrainer, GRPOConfig),
        "ours": (VisionGRPOTrainer, VisionGRPOConfig),
    }
    return {
        name: trainer_class(
            build_model(args),
            rewards[name],
            config_class(**options),
            train_dataset=build_rows(args),
            processing_class=processor,
        )
        for name, (trainer_class, config_class) in classes.items()
    }
