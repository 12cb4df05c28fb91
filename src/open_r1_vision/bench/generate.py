# SPDX-License-Identifier: Apache-2.0
"""Sampling and the processor's work of one generation batch: ours against stock TRL, without vLLM.

Both trainers share one model with random weights and get the same batch in turn, in one process. Seconds are those of
`_generate_single_turn` ("generate"), and of the two calls of the processor that TRL makes in a step ("process").
Contending threads make such numbers many times worse: run on an idle machine, and give `--threads`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from open_r1_vision.bench.models import (
    VOCABULARY,
    add_model_arguments,
    build_model,
    build_processor_for,
    draw_prompts,
    trainer_inputs,
    trainer_options,
)
from open_r1_vision.starter.model import SPECIAL_TOKENS
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
        Four rows, of each trainer for each activity: median seconds with the least and the most, tokens per second,
        how many times as fast as stock TRL that is, peak memory of the device in GiB where it is a GPU, and the share
        of completions that are equal to stock TRL's in the first measurement.
    """
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainers = _build_trainers(args, folder)
        chats = _build_chats(args)
        batches = {name: trainer._tokenize_prompts(chats) for name, trainer in trainers.items()}
        sampled: dict[str, list] = {name: [] for name in trainers}

        def sample(name: str) -> int:
            torch.manual_seed(len(sampled[name]))
            ids, _ = trainers[name]._generate_single_turn(*batches[name], num_generations=args.generations)
            sampled[name].append(ids)
            return sum(map(len, ids))

        def process(name: str) -> int:
            processor = trainers[name].processing_class
            _process(remembering(processor) if name == "ours" else processor, chats)
            return 0

        rows = []
        for activity, function in (("generate", sample), ("process", process)):
            rows += _compare(activity, function, list(trainers), args)
        equal = [a == b for a, b in zip(sampled["stock"][0], sampled["ours"][0], strict=True)]
        for row in rows:
            if row["activity"] == "generate":
                row["equal"] = sum(equal) / len(equal)
        return rows


def _compare(
    activity: str, function: Callable[[str], int], names: Sequence[str], args: argparse.Namespace
) -> list[dict[str, Any]]:
    seconds: dict[str, list[float]] = {name: [] for name in names}
    speeds: dict[str, list[float]] = {name: [] for name in names}
    peaks = dict.fromkeys(names, 0)
    for repeat in range(args.repeats + 1):
        # in turn, and each as often first as second
        for name in names if repeat % 2 else reversed(names):
            if args.device == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            num_tokens = function(name)
            if args.device == "cuda":
                torch.cuda.synchronize()
                peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated())
            if repeat:
                seconds[name].append(time.perf_counter() - start)
                speeds[name].append(num_tokens / seconds[name][-1])
    stock = statistics.median(seconds[names[0]])
    return [
        {
            "activity": activity,
            "trainer": name,
            "seconds": statistics.median(seconds[name]),
            "least": min(seconds[name]),
            "most": max(seconds[name]),
            "tokens/s": statistics.median(speeds[name]) or None,
            "times as fast": stock / statistics.median(seconds[name]),
            "peak GiB": peaks[name] / 2**30 or None,
            "equal": None,
        }
        for name in names
    ]


def _build_trainers(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    processor = build_processor_for(args.pixels)
    model = build_model(args.shape, args.device, getattr(torch, args.dtype))
    num_ends = round(args.ending_share * VOCABULARY[args.shape])
    ends = range(VOCABULARY[args.shape] - num_ends, VOCABULARY[args.shape])
    generation_kwargs: dict[str, Any] = {"suppress_tokens": list(range(len(SPECIAL_TOKENS)))}
    options: dict[str, Any] = {
        **trainer_options(args, folder),
        "generation_kwargs": generation_kwargs,
    }
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


def _build_chats(args: argparse.Namespace) -> list[list[dict]]:
    """The rows of a generation batch, each prompt's copies with copies of its images, as a data set gives them."""
    return [
        [
            {
                "role": "user",
                "content": [
                    *({"type": "image", "image": Image.fromarray(array)} for array in arrays),
                    {"type": "text", "text": question},
                ],
            }
        ]
        for arrays, question in draw_prompts(args)
        for _ in range(args.generations)
    ]


def _process(processor: Any, chats: list[list[dict]]) -> None:
    """The calls of a step: for sampling, and for the loss."""
    processor.apply_chat_template(chats, add_generation_prompt=True, tokenize=True, return_dict=True)
    texts = [processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
    images = [[part["image"] for part in chat[0]["content"] if part["type"] == "image"] for chat in chats]
    processor(images=images if any(images) else None, text=texts, padding=True, return_tensors="pt")
