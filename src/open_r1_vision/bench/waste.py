# SPDX-License-Identifier: Apache-2.0
"""What a step of ours leaves out: completions without signal in the update, and rows that were read before.

`update` is loss and gradients of a micro-batch of which half the groups have no signal; `loading` is what the data
loader does for one step whose rows hold PNG images, with a micro-batch for each prompt. Stock TRL's GRPOTrainer, ours
with the saving turned off, and ours, in turn, in one process. On a CPU, seconds of the processor, which bear company
better than those of the clock.
"""

import argparse
import io
import itertools
import statistics
import tempfile
import time
from typing import Any

import datasets
import torch
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from open_r1_vision.bench.models import (
    add_model_arguments,
    build_model,
    build_processor_for,
    draw_prompts,
    trainer_inputs,
    trainer_options,
)
from open_r1_vision.bench.update import _build_batch
from open_r1_vision.trainers import VisionGRPOConfig, VisionGRPOTrainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of the run."""
    add_model_arguments(parser)
    parser.set_defaults(prompts=2)


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure.

    Returns:
        A row for each kind of work and each trainer: median seconds with the least and the most, and
        how many times as fast as stock TRL that is.
    """
    torch.set_num_threads(args.threads)
    if args.prompts < 2:
        raise ValueError(
            f"--prompts is {args.prompts}, but half of the groups are to have no signal: give at least 2."
        )
    with tempfile.TemporaryDirectory() as folder:
        trainers = _build_trainers(args, folder)
    batch = _build_batch(args)
    batch["advantages"][: args.prompts // 2 * args.generations] = 0.0
    seconds: dict[tuple[str, str], list[float]] = {}
    for repeat in range(args.repeats + 1):
        # in turn, and each as often first as last
        for name in trainers if repeat % 2 else reversed(trainers):
            for kind, measured in (
                ("update", _update(trainers[name], batch)),
                ("loading", _load(trainers[name], args)),
            ):
                if repeat:
                    seconds.setdefault((kind, name), []).append(measured)
    return [
        {
            "work": kind,
            "trainer": name,
            "seconds": statistics.median(seconds[kind, name]),
            "least": min(seconds[kind, name]),
            "most": max(seconds[kind, name]),
            "times as fast": statistics.median(seconds[kind, "stock"]) / statistics.median(seconds[kind, name]),
        }
        for kind, name in itertools.product(("update", "loading"), trainers)
    ]


def _update(trainer: Any, batch: dict[str, Any]) -> float:
    on_gpu = batch["advantages"].is_cuda
    clock = time.perf_counter if on_gpu else time.process_time
    trainer.model.zero_grad(set_to_none=True)
    start = clock()
    trainer.compute_loss(trainer.model, batch).backward()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - start


def _load(trainer: Any, args: argparse.Namespace) -> float:
    loader = trainer.get_train_dataloader()
    start = time.process_time()
    batches = list(itertools.islice(loader, args.prompts))
    if len(batches) != args.prompts:
        raise RuntimeError(f"The data loader gave {len(batches)} batches, but {args.prompts} were expected.")
    return time.process_time() - start


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
