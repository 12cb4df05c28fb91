# SPDX-License-Identifier: Apache-2.0
"""Sampling and the processor's work of one generation batch: ours against stock TRL, without vLLM.

Both trainers share one model with random weights and get the same batch in turn, in one process. Seconds are those of
`_generate_single_turn` ("generate"), and of the two calls of the processor that TRL makes in a step ("process").
Contending threads make such numbers many times worse: run on an idle machine, and give `--threads`.
"""

import argparse
import tempfile
from typing import Any

import torch
from trl import GRPOConfig, GRPOTrainer

from open_r1_vision.bench.measuring import compare, equal_share, take_turns
from open_r1_vision.bench.models import (
    VOCABULARY,
    add_model_arguments,
    build_chats,
    build_model,
    build_processor_for,
    running_on,
    trainer_inputs,
    trainer_options,
)
from open_r1_vision.trainers import VisionGRPOConfig, VisionGRPOTrainer
from open_r1_vision.trainers.processing_once import remembering


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of the run."""
    add_model_arguments(parser)
    parser.add_argument(
        "--ending-share",
        type=float,
        default=0.0,
        help="share of the vocabulary that ends a completion, so about the chance at each token; 0 lets all run on",
    )


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure.

    Returns:
        Four rows, of each trainer for each activity: the columns of :func:`open_r1_vision.bench.measuring.compare`,
        and the share of completions that are equal to stock TRL's in the first measurement.
    """
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainers = _build_trainers(args, folder)
        chats = build_chats(args, copies=args.generations)
        batches = {name: trainer._tokenize_prompts(chats) for name, trainer in trainers.items()}
        sampled: dict[str, list] = {name: [] for name in trainers}

        def sample(name: str, number: int) -> int:
            torch.manual_seed(number)
            ids, _ = trainers[name]._generate_single_turn(*batches[name], num_generations=args.generations)
            sampled[name].append(ids)
            return sum(map(len, ids))

        def process(name: str, number: int) -> int:
            processor = trainers[name].processing_class
            _process(remembering(processor) if name == "ours" else processor, chats)
            return 0

        rows: list[dict[str, Any]] = []
        for activity, work in (("generate", sample), ("process", process)):
            turns = take_turns(list(trainers), work, repeats=args.repeats, device=args.device)
            for name, columns in compare(turns, "stock").items():
                equal = equal_share(sampled[name][0], sampled["stock"][0]) if activity == "generate" else None
                rows.append({"activity": activity, "trainer": name, **columns, "equal": equal})
        return rows


def _build_trainers(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    processor = build_processor_for(args)
    model = build_model(args)
    num_ends = round(args.ending_share * VOCABULARY[args.shape])
    ends = range(VOCABULARY[args.shape] - num_ends, VOCABULARY[args.shape])
    options: dict[str, Any] = {**trainer_options(args, folder), "generation_kwargs": running_on()}
    trainers: dict[str, Any] = {}
    for name, trainer_class, config_class in (
        ("stock", GRPOTrainer, GRPOConfig),
        ("ours", VisionGRPOTrainer, VisionGRPOConfig),
    ):
        arguments: Any = config_class(**options)
        trainer: Any = trainer_class(model, args=arguments, processing_class=processor, **trainer_inputs())
        trainer.eos_token_ids = [*trainer.eos_token_ids, *ends]
        trainer.generation_config.eos_token_id = trainer.eos_token_ids
        trainers[name] = trainer
    return trainers


def _process(processor: Any, chats: list[list[dict]]) -> None:
    """The calls of a step: for sampling, and for the loss."""
    processor.apply_chat_template(chats, add_generation_prompt=True, tokenize=True, return_dict=True)
    texts = [processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
    images = [[part["image"] for part in chat[0]["content"] if part["type"] == "image"] for chat in chats]
    processor(images=images if any(images) else None, text=texts, padding=True, return_tensors="pt")
