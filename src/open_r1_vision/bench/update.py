# SPDX-License-Identifier: Apache-2.0
"""Loss and gradients of one micro-batch: ours, with prompts that groups share, against stock TRL's GRPOTrainer.

Both have a model with the same random weights and get the same batch in turn, in one process. Measured are
`compute_loss` and `backward`. Contending threads make such numbers many times worse: run on an idle machine, and give
`--threads`. Seconds of the processor bear company better than those of the clock.
"""

import argparse
import statistics
import tempfile
from typing import Any

import torch
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from open_r1_vision.bench.measuring import compare, take_turns
from open_r1_vision.bench.models import (
    VOCABULARY,
    add_checkpointing_argument,
    add_model_arguments,
    build_model,
    build_processor_for,
    draw_prompts,
    trainer_inputs,
    trainer_options,
)
from open_r1_vision.starter.model import SPECIAL_TOKENS
from open_r1_vision.trainers import VisionGRPOConfig, VisionGRPOTrainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of the run."""
    add_model_arguments(parser)
    add_checkpointing_argument(parser)


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure.

    Returns:
        A row for each trainer: the columns of :func:`open_r1_vision.bench.measuring.compare`, with tokens of the
        completions, median seconds of the processor, how many times as fast as stock TRL that is, the largest
        difference from its log-probabilities and the norm of the difference from its gradients, relative to theirs.
    """
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainers = _build_trainers(args, folder)
    batch = build_batch(args)
    logps = {name: _log_probabilities(trainer, batch) for name, trainer in trainers.items()}

    def work(name: str, number: int) -> int:
        trainers[name].compute_loss(trainers[name].model, batch).backward()
        return batch["completion_ids"].numel()

    turns = take_turns(
        list(trainers),
        work,
        repeats=args.repeats,
        device=args.device,
        prepare=lambda name, number: trainers[name].model.zero_grad(set_to_none=True),
    )
    gradients = {name: _gradient(trainer.model) for name, trainer in trainers.items()}
    columns = compare(turns, "stock")
    processor = {name: statistics.median(turn.processor for turn in of_name) for name, of_name in turns.items()}
    return [
        {
            "trainer": name,
            **columns[name],
            "processor": processor[name],
            "by processor": processor["stock"] / processor[name],
            "log-prob gap": float((logps[name] - logps["stock"]).abs().max()),
            "gradient gap": float((gradients[name] - gradients["stock"]).norm() / gradients["stock"].norm()),
        }
        for name in trainers
    ]


def _log_probabilities(trainer: Any, batch: dict[str, Any]) -> torch.Tensor:
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    names = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
    images = {name: batch[name] for name in names if name in batch}
    with torch.no_grad():
        return trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, batch["completion_ids"].size(1), **images
        )[0].float()


def _gradient(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten().float().cpu() for p in model.parameters() if p.grad is not None])


def _build_trainers(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        **trainer_options(args, folder),
        "gradient_checkpointing": args.gradient_checkpointing,
    }
    classes: dict[str, tuple[Any, Any]] = {
        "stock": (GRPOTrainer, GRPOConfig(**options)),
        "ours": (VisionGRPOTrainer, VisionGRPOConfig(**options, shared_prefix=True)),
    }
    trainers: dict[str, Any] = {}
    for name, (trainer_class, arguments) in classes.items():
        model = build_model(args).train()
        if args.gradient_checkpointing:
            model.gradient_checkpointing_enable()  # as `train()` does when it begins
        trainers[name] = trainer_class(
            model,
            args=arguments,
            processing_class=build_processor_for(args),
            **trainer_inputs(),
        )
        # a gradient-accumulating loop sets it
        trainers[name].current_gradient_accumulation_steps = 1
    return trainers


def build_batch(args: argparse.Namespace) -> dict[str, Any]:
    """A scored micro-batch with random completions and advantages, in which all rows are of one length."""
    processor = build_processor_for(args)
    texts, images = [], []
    for arrays, question in draw_prompts(args):
        images += [[Image.fromarray(array) for array in arrays]] * args.generations
        text = {"type": "text", "text": question}
        chat = [{"role": "user", "content": [{"type": "image"}] * args.images + [text]}]
        texts += [processor.apply_chat_template(chat, add_generation_prompt=True)] * args.generations
    given = images if args.images else None
    encoded = processor(text=texts, images=given, padding=True, padding_side="left", return_tensors="pt")
    torch.manual_seed(1)
    completions = torch.randint(len(SPECIAL_TOKENS), VOCABULARY[args.shape], (len(texts), args.tokens))
    types = encoded["mm_token_type_ids"]
    batch = {
        "prompt_ids": encoded["input_ids"],
        "prompt_mask": encoded["attention_mask"],
        "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
        "mm_token_type_ids": torch.cat([types, types.new_zeros(completions.shape)], 1),
        **{name: encoded[name] for name in ("pixel_values", "image_grid_thw") if args.images},
        "advantages": torch.randn(len(texts)),
        "num_items_in_batch": torch.tensor(completions.numel()),
    }
    on_device: dict[str, Any] = {name: value.to(args.device) for name, value in batch.items()}
    return {**on_device, "num_images": [args.images] * len(texts)} if args.images else on_device
