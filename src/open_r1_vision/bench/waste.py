# SPDX-License-Identifier: Apache-2.0
"""What a step of ours leaves out: completions without signal in the update, and rows that were read before.

`update` is loss and gradients of a micro-batch of which half the groups have no signal; `loading` is what the data
loader does for one step whose rows hold PNG images, with a micro-batch for each prompt. Stock TRL's GRPOTrainer, ours
with the saving turned off, and ours, in turn, in one process.
"""

import argparse
import io
import itertools
import tempfile
from collections.abc import Callable
from typing import Any

import datasets
import torch
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from open_r1_vision.bench.measuring import compare, take_turns
from open_r1_vision.bench.models import (
    add_model_arguments,
    build_model,
    build_processor_for,
    draw_prompts,
    trainer_inputs,
    trainer_options,
)
from open_r1_vision.bench.update import build_batch
from open_r1_vision.trainers import VisionGRPOConfig, VisionGRPOTrainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of the run."""
    add_model_arguments(parser)
    parser.set_defaults(prompts=2)


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure.

    Returns:
        A row for each kind of work and each trainer: the columns of
        :func:`open_r1_vision.bench.measuring.compare`, without tokens.

    Raises:
        ValueError: fewer than two prompts.
    """
    torch.set_num_threads(args.threads)
    if args.prompts < 2:
        raise ValueError(
            f"--prompts is {args.prompts}, but half of the groups are to have no signal: give at least 2."
        )
    with tempfile.TemporaryDirectory() as folder:
        trainers = _build_trainers(args, folder)
    batch = build_batch(args)
    batch["advantages"][: args.prompts // 2 * args.generations] = 0.0
    loaders: dict[str, Any] = {}

    def update(name: str, number: int) -> int:
        trainers[name].compute_loss(trainers[name].model, batch).backward()
        return 0

    def clear(name: str, number: int) -> None:
        trainers[name].model.zero_grad(set_to_none=True)

    def load(name: str, number: int) -> int:
        batches = list(itertools.islice(loaders[name], args.prompts))
        if len(batches) != args.prompts:
            raise RuntimeError(f"The data loader gave {len(batches)} batches, but {args.prompts} were expected.")
        return 0

    def build_loader(name: str, number: int) -> None:
        loaders[name] = trainers[name].get_train_dataloader()

    kinds: dict[str, tuple[Callable[[str, int], int], Callable[[str, int], None]]] = {
        "update": (update, clear),
        "loading": (load, build_loader),
    }
    rows = []
    for kind, (work, prepare) in kinds.items():
        turns = take_turns(list(trainers), work, repeats=args.repeats, device=args.device, prepare=prepare)
        for name, columns in compare(turns, "stock").items():
            columns.pop("tokens/s")
            rows.append({"work": kind, "trainer": name, **columns})
    return rows


def _build_trainers(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    options = {
        **trainer_options(args, folder),
        "gradient_accumulation_steps": args.prompts,
        "gradient_checkpointing": False,
    }
    classes: dict[str, tuple[Any, Any]] = {
        "stock": (GRPOTrainer, GRPOConfig(**options)),
        "ours, nothing left out": (_ReadingAsTRL, VisionGRPOConfig(**options, skip_without_signal=False)),
        "ours": (VisionGRPOTrainer, VisionGRPOConfig(**options)),
    }
    rows = _build_rows(args)
    trainers: dict[str, Any] = {}
    for name, (trainer_class, arguments) in classes.items():
        model = build_model(args)
        inputs = {**trainer_inputs(), "train_dataset": rows}
        trainer = trainer_class(model.train(), args=arguments, processing_class=build_processor_for(args), **inputs)
        # a gradient-accumulating loop sets it
        trainer.current_gradient_accumulation_steps = 1
        trainers[name] = trainer
    return trainers


class _ReadingAsTRL(VisionGRPOTrainer):
    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return GRPOTrainer._get_dataloader(self, dataset, *args, **kwargs)


def _build_rows(args: argparse.Namespace) -> datasets.Dataset:
    rows = []
    for arrays, question in draw_prompts(args):
        files = []
        for array in arrays:
            file = io.BytesIO()
            Image.fromarray(array).save(file, "png")
            files.append({"bytes": file.getvalue(), "path": None})
        rows.append({"prompt": [{"role": "user", "content": question}], "images": files})
    # two steps' rows, as the loader reads a batch ahead
    return datasets.Dataset.from_list(rows * 2).cast_column("images", datasets.List(datasets.Image()))
