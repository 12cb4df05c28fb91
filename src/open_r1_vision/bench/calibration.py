# SPDX-License-Identifier: Apache-2.0
"""Text-bias calibrated decoding: CalibratedGenerator against what the code of Hint-GRPO does.

"authors" does as their `test_model.py`: one call of `model.generate` on a doubled batch, chats with images first and
then the same chats without, padded together, with one cache for both; at each step the logits of the first half are
mixed with those of the second, and both halves get the same token. Theirs is a copy of an older `generate` with these
lines put in; here a hook on today's puts them in, so that all else is equal. "ours" decodes the chats without images
in a stream and a cache of its own. "plain" doesn't calibrate.

All decode greedily with one model with random weights, the same chats in turn, in one process, processor included,
and replies have all tokens that they may have. Contending threads make such numbers many times worse: run on an idle
machine, and give `--threads`.
"""

import argparse
from typing import Any

import torch

from open_r1_vision.bench.measuring import compare, equal_share, take_turns
from open_r1_vision.bench.models import (
    add_batch_arguments,
    build_chats,
    build_model,
    build_processor_for,
    running_on,
)
from open_r1_vision.decoding import CalibratedGenerator, Calibration
from open_r1_vision.generation import encode_chats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of the run."""
    add_batch_arguments(parser)
    parser.set_defaults(prompts=8)
    parser.add_argument("--scale", type=float, default=0.8, help="s of the formula")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure.

    Returns:
        A row for each way: the columns of :func:`open_r1_vision.bench.measuring.compare`, with the tokens of the
        replies, and the share of replies that are equal to the authors' in the first round.
    """
    torch.set_num_threads(args.threads)
    model = build_model(args).eval()
    processor = build_processor_for(args)
    chats = build_chats(args)
    plain, ours = (
        CalibratedGenerator(model, processor, Calibration(scale), **running_on()) for scale in (0.0, args.scale)
    )
    replies: dict[str, list[list[list[int]]]] = {"authors": [], "plain": [], "ours": []}

    def work(name: str, number: int) -> int:
        if name == "authors":
            ids = generate_doubled(model, processor, chats, args.scale, args.tokens)
        else:
            ids = (ours if name == "ours" else plain).generate_ids(chats, args.tokens)
        replies[name].append(ids.tolist())
        return ids.numel()

    turns = take_turns(list(replies), work, repeats=args.repeats, device=args.device)
    return [
        {"decoding": name, **columns, "equal": equal_share(replies[name][0], replies["authors"][0])}
        for name, columns in compare(turns, "authors").items()
    ]


def generate_doubled(
    model: Any, processor: Any, chats: list[list[dict]], scale: float, max_new_tokens: int
) -> torch.Tensor:
    """Replies of shape (chats, max_new_tokens), calibrated in one pass over a doubled batch for each token."""

    def mix(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        with_images, without = output.logits[:, -1].float().chunk(2)
        mixed = with_images + scale * (with_images - without)
        # the same token follows in both halves
        output.logits = torch.cat([mixed, mixed])[:, None]
        return output

    texts = [
        [{**message, "content": [part for part in message["content"] if part["type"] != "image"]} for message in chat]
        for chat in chats
    ]
    inputs = encode_chats(processor, [*chats, *texts], model.device)
    handle = model.register_forward_hook(mix, with_kwargs=True)
    try:
        with torch.inference_mode():
            output = model.generate(
                **inputs, do_sample=False, max_new_tokens=max_new_tokens, disable_compile=True, **running_on()
            )
    finally:
        handle.remove()
    return output[: len(chats), inputs["input_ids"].shape[1] :]
