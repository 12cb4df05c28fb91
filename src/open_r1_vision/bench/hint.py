# SPDX-License-Identifier: Apache-2.0
"""A whole step of Hint-GRPO on groups of which a share is all wrong: what is sampled, and how long the step takes.

"authors" samples as the code of Hint-GRPO does: all groups at all M levels in one call, in which every row reads its
own prompt. Its update is stock TRL's, of the chosen level alone; the authors' own computes log-probabilities of all M
levels, and of the reference, so that it is the faster of the two. "parallel" is HintGRPOTrainer with
`hint_mode="parallel"`, which samples the same, and "ours" is HintGRPOTrainer with its defaults: without hints first,
and one level further only where a group is all wrong.

Models with the same random weights take a step in turn, in one process, by `train()`. A gate says which groups are all
wrong: those of the first prompts are, below the level `--solved-at`. All completions have all tokens that they may
have. Contending threads make such numbers many times worse: run on an idle machine, and give `--threads`.
"""

import argparse
import tempfile
from typing import Any

import torch

from open_r1_vision.bench.measuring import compare, equal_share, take_turns
from open_r1_vision.bench.models import build_model, build_processor_for, build_rows
from open_r1_vision.bench.stepping import (
    NotingReward,
    add_step_arguments,
    breakdown,
    step_options,
    take_step,
)
from open_r1_vision.trainers import HintGRPOConfig, HintGRPOTrainer

PARTS = ("generation", "scoring", "update")
SETTINGS: dict[str, dict[str, Any]] = {
    "authors": {"hint_mode": "parallel", "group_generation": False, "shared_prefix": False},
    "parallel": {"hint_mode": "parallel"},
    "ours": {},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of the run."""
    add_step_arguments(parser)
    parser.set_defaults(prompts=2)
    parser.add_argument("--all-wrong", type=float, default=0.5, help="share of the groups that need a hint")
    parser.add_argument("--levels", type=int, default=3, help="M, the level without hint included")
    parser.add_argument(
        "--solved-at", type=int, default=1, help="first level at which these are right; M or more for none"
    )
    parser.add_argument("--step-words", type=int, default=20, help="words of a step of the reference; each has M")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure.

    Returns:
        A row for each trainer: the tokens that it samples in a step; the columns of
        :func:`open_r1_vision.bench.measuring.compare`; the median seconds of generation, scoring (the rest of a
        batch's preparation) and update; and the share of prompts that are trained at the level at which the authors
        train them.
    """
    torch.set_num_threads(args.threads)
    levels: dict[str, list[int]] = {}
    num_tokens: dict[str, int] = {}
    logs: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        processor = build_processor_for(args)
        trainers = {
            name: _build_trainer(args, {**step_options(args, folder), **settings}, processor)
            for name, settings in SETTINGS.items()
        }

        def work(name: str, number: int) -> int:
            trainer = trainers[name]
            trainer.num_sampled = 0
            logs[name].append(take_step(trainer, seed=number))
            levels[name] = [hint.level for hint in trainer._hints]
            num_tokens[name] = trainer.num_sampled
            return trainer.num_sampled

        turns = take_turns(list(trainers), work, repeats=args.repeats, device=args.device)
    seconds = breakdown(logs, PARTS)
    return [
        {
            "trainer": name,
            "tokens": num_tokens[name],
            **columns,
            **seconds(name),
            "equal levels": equal_share(levels[name], levels["authors"]),
        }
        for name, columns in compare(turns, "authors").items()
    ]


class CountingHintTrainer(HintGRPOTrainer):
    """HintGRPOTrainer, which counts the tokens that it samples, hints left out."""

    num_sampled = 0

    def _sample(self, *args: Any) -> list:
        sampled = super()._sample(*args)
        self.num_sampled += sum(len(output.ids) for output in sampled)
        return sampled


def gate(completions: list, hint_level: list[int], solved_at: list[int], **columns: Any) -> list[float]:
    """Right are all completions of a group from the level on that its row names."""
    return [float(level >= needed) for level, needed in zip(hint_level, solved_at, strict=True)]


def _build_trainer(args: argparse.Namespace, options: dict[str, Any], processor: Any) -> CountingHintTrainer:
    num_wrong = round(args.all_wrong * args.prompts)
    steps = [" ".join([f"step {number}"] + ["so"] * (args.step_words - 2)) for number in range(args.levels)]
    dataset = build_rows(
        args,
        reasoning_steps=[steps] * args.prompts,
        solved_at=[args.solved_at if index < num_wrong else 0 for index in range(args.prompts)],
    )
    return CountingHintTrainer(
        build_model(args),
        NotingReward(),
        HintGRPOConfig(**options, hint_levels=args.levels),
        train_dataset=dataset,
        processing_class=processor,
        gate=gate,
    )
