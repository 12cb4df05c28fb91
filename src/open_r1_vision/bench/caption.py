# SPDX-License-Identifier: Apache-2.0
"""Sampling and scoring of one batch in caption-GRPO, where the live policy reads the captions.

"ours" is CaptionGRPOTrainer. "stock" is stock TRL's GRPOTrainer with a reward function that does as Visionary-R1's
code does, and as whoever wants its reward on stock TRL has to write: it asks the policy, without the image, about all
captions of the batch in one call of `model.generate`, padded on the left. It reads greedily as ours does, where the
authors sample, so that the replies can be compared; that takes as long. The authors' further passes with the
policy and the reference are left out on both sides.

Both trainers share one model with random weights and get the same rows in turn, in one process. The whole completion
is the caption, and completions and replies have all tokens that they may have. Contending threads make such numbers
many times worse: run on an idle machine, and give `--threads`.
"""

import argparse
import tempfile
from typing import Any

import torch
from trl import GRPOConfig

from open_r1_vision.bench.measuring import compare, equal_share, take_turns
from open_r1_vision.bench.models import (
    add_model_arguments,
    build_model,
    build_processor_for,
    build_rows,
    running_on,
    trainer_options,
)
from open_r1_vision.bench.stepping import TimedGRPOTrainer, breakdown
from open_r1_vision.prompts import load_prompt
from open_r1_vision.reasoners.captions import parse_reply, reader_messages
from open_r1_vision.trainers import CaptionGRPOConfig, CaptionGRPOTrainer

PARTS = ("generation", "reading", "scoring", "rewards")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of the run."""
    add_model_arguments(parser)
    parser.add_argument("--reply-tokens", type=int, default=16, help="tokens of a reader's reply")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure.

    Returns:
        A row for each trainer: the columns of :func:`open_r1_vision.bench.measuring.compare`, with the tokens of
        completions and replies; the median seconds of generation, reading, scoring (the rest) and rewards; the share
        of completions, and of replies, that are equal to stock TRL's in the first round; the mean reward there; and
        the largest difference from stock TRL's advantages.
    """
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainers = _build_trainers(args, folder)
        dataset = build_rows(args)
        first: dict[str, _Round] = {}
        logs: dict[str, list[dict[str, float]]] = {name: [] for name in trainers}

        def work(name: str, number: int) -> int:
            trainer = trainers[name]
            rows = [dataset[index] for index in range(args.prompts) for _ in range(args.generations)]
            torch.manual_seed(number)
            output = trainer._generate_and_score_completions(rows)
            first.setdefault(name, _Round(trainer, output))
            logs[name].append({f"seconds/{part}": value for part, value in trainer.timed.flush().items()})
            return int(output["completion_mask"].sum()) + sum(map(len, trainer.replies))

        turns = take_turns(list(trainers), work, repeats=args.repeats, device=args.device)
    seconds = breakdown(logs, PARTS)
    return [
        {
            "trainer": name,
            **columns,
            **seconds(name),
            "equal completions": equal_share(first[name].completions, first["stock"].completions),
            "equal replies": equal_share(first[name].replies, first["stock"].replies),
            "reward": first[name].reward,
            "advantage gap": float((first[name].advantages - first["stock"].advantages).abs().max()),
        }
        for name, columns in compare(turns, "stock").items()
    ]


class _Round:
    """What is compared of a round."""

    def __init__(self, trainer: Any, output: dict[str, Any]) -> None:
        self.completions: list[list[int]] = output["completion_ids"].tolist()
        self.replies: list[list[int]] = trainer.replies
        self.reward: float = trainer._metrics["train"]["reward"][-1]
        self.advantages: torch.Tensor = output["advantages"].cpu()


def reply_reward(caption_answer: list[str | None], **columns: Any) -> list[float]:
    """A reward that replies at random earn to different degrees, where no answer would be right."""
    return [sum(map(ord, answer or "")) % 7 / 7 for answer in caption_answer]


class NotingCaptionTrainer(CaptionGRPOTrainer):
    """CaptionGRPOTrainer, which keeps the tokens of its reader's replies."""

    replies: list[list[int]]

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> tuple:
        ids, logprobs = super()._generate_single_turn(*args, **kwargs)
        self.replies = ids  # of the completions first, then of the replies
        return ids, logprobs


class ReadingTrainer(TimedGRPOTrainer):
    """Stock GRPOTrainer, whose reward asks its policy about the captions. Keeps their tokens too."""

    replies: list[list[int]]
    processing_class: Any

    def __init__(self, model: Any, args: GRPOConfig, reply_tokens: int, **kwargs: Any) -> None:
        self._reply_tokens = reply_tokens
        self._reader_prompt = load_prompt("caption_reader")
        super().__init__(model, self.reward_captions, args, **kwargs)

    def reward_captions(self, completions: list, problem: list, **columns: Any) -> list[float]:
        """See the module."""
        with self.timed("reading"):
            chats = [
                reader_messages(completion[0]["content"].strip(), question, self._reader_prompt)
                for completion, question in zip(completions, problem, strict=True)
            ]
            inputs = self.processing_class.apply_chat_template(
                chats,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True, "padding_side": "left"},
            ).to(self.accelerator.device)
            with torch.no_grad():
                model: Any = self.accelerator.unwrap_model(self.model)
                output = model.generate(
                    **inputs,
                    max_new_tokens=self._reply_tokens,
                    do_sample=False,
                    disable_compile=True,
                    pad_token_id=self._tokenizer.pad_token_id,
                    **running_on(),
                )
            self.replies = output[:, inputs["input_ids"].shape[1] :].tolist()
            replies = self.processing_class.batch_decode(self.replies, skip_special_tokens=True)
        answers = [parse_reply(reply).answer for reply in replies]
        return reply_reward(answers)


def _build_trainers(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    model = build_model(args).train()
    options = {**trainer_options(args, folder), "generation_kwargs": running_on()}
    # GRPOTrainer plans for whole steps
    options["gradient_accumulation_steps"] = args.prompts
    inputs = {"train_dataset": build_rows(args), "processing_class": build_processor_for(args)}
    theirs = ReadingTrainer(model, GRPOConfig(**options), args.reply_tokens, **inputs)
    ours = NotingCaptionTrainer(
        model,
        reply_reward,
        CaptionGRPOConfig(**options, caption_section=None, reader_max_tokens=args.reply_tokens),
        **inputs,
    )
    return {"stock": theirs, "ours": ours}
