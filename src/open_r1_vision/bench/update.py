# SPDX-License-Identifier: Apache-2.0
"""Loss and gradients of one micro-batch: ours, with prompts that groups share, against stock TRL's GRPOTrainer.

Both have a model with the same random weights and get the same batch in turn, in one process. Measured are
`compute_loss` and `backward`. Contending threads make such numbers many times worse: run on an idle machine, and give
`--threads`. Seconds of the processor bear company better than those of the clock.
"""

import argparse
import ctypes
import re
import statistics
import tempfile
import time
from pathlib import Path
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

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sizes of the run."""
    add_model_arguments(parser)
    parser.add_argument("--attention", default="sdpa", help="attention implementation of transformers")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="compute layers again going back")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure.

    Returns:
        A row for each trainer: median seconds with the least and the most, median seconds of the processor, completion
        tokens per second, how many times as fast as stock TRL that is by either clock, peak memory beyond what was
        there before the pass, in MiB and as a share of stock TRL's, the largest difference from its log-probabilities
        and the norm of the difference from its gradients, relative to theirs.
    """
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainers = _build_trainers(args, folder)
    batch = _build_batch(args)
    logps = {name: _log_probabilities(trainer, batch) for name, trainer in trainers.items()}
    walls: dict[str, list[float]] = {name: [] for name in trainers}
    processors: dict[str, list[float]] = {name: [] for name in trainers}
    peaks: dict[str, list[float]] = {name: [] for name in trainers}
    for repeat in range(args.repeats + 1):
        # in turn, and each as often first as second
        for name in trainers if repeat % 2 else reversed(trainers):
            wall, processor, peak = _measure(trainers[name], batch, args.device)
            if repeat:
                walls[name].append(wall)
                processors[name].append(processor)
                peaks[name].append(peak)
    gradients = {name: _gradient(trainer.model) for name, trainer in trainers.items()}
    stock = {"wall": statistics.median(walls["stock"]), "processor": statistics.median(processors["stock"])}
    return [
        {
            "trainer": name,
            "seconds": statistics.median(walls[name]),
            "least": min(walls[name]),
            "most": max(walls[name]),
            "processor": statistics.median(processors[name]),
            "tokens/s": args.prompts * args.generations * args.tokens / statistics.median(walls[name]),
            "times as fast": stock["wall"] / statistics.median(walls[name]),
            "by processor": stock["processor"] / statistics.median(processors[name]),
            "peak MiB": max(peaks[name]) / 2**20,
            "share of peak": max(peaks[name]) / max(peaks["stock"]),
            "log-prob gap": float((logps[name] - logps["stock"]).abs().max()),
            "gradient gap": float((gradients[name] - gradients["stock"]).norm() / gradients["stock"].norm()),
        }
        for name in trainers
    ]


def _measure(trainer: Any, batch: dict[str, Any], device: str) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor, and bytes at the peak beyond those before."""
    trainer.model.zero_grad(set_to_none=True)
    memory = _Memory(device)
    start, busy = time.perf_counter(), time.process_time()
    trainer.compute_loss(trainer.model, batch).backward()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - busy, memory.peak()


class _Memory:
    """Memory of this process, or of its GPU, beyond what it holds now. Nan where the system doesn't tell."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed counts as ours until then
            _CLEAR.write_text("5")  # the peak starts again from here
        except OSError:
            self.device = "unknown"
        self.before = self._status("VmRSS")

    def peak(self) -> float:
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() - self.before
        return self._status("VmHWM") - self.before if self.device == "cpu" else float("nan")

    @staticmethod
    def _status(name: str) -> int:
        match = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text()) if _STATUS.is_file() else None
        return int(match[1]) * 1024 if match else 0


def _log_probabilities(trainer: Any, batch: dict[str, Any]) -> torch.Tensor:
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    images = {name: batch[name] for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
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
        model = build_model(args.shape, args.device, getattr(torch, args.dtype))
        model.set_attn_implementation(args.attention)
        trainers[name] = trainer_class(
            model.train(),
            args=arguments,
            processing_class=build_processor_for(args.pixels),
            **trainer_inputs(),
        )
        # a gradient-accumulating loop sets it
        trainers[name].current_gradient_accumulation_steps = 1
    return trainers


def _build_batch(args: argparse.Namespace) -> dict[str, Any]:
    """A scored micro-batch with random completions and advantages, in which all rows are of one length."""
    processor = build_processor_for(args.pixels)
    texts, images = [], []
    for arrays, question in draw_prompts(args):
        images += [[Image.fromarray(array) for array in arrays]] * args.generations
        text = {"type": "text", "text": question}
        chat = [{"role": "user", "content": [{"type": "image"}] * args.images + [text]}]
        texts += [processor.apply_chat_template(chat, add_generation_prompt=True)] * args.generations
    encoded = processor(text=texts, images=images, padding=True, padding_side="left", return_tensors="pt")
    torch.manual_seed(1)
    completions = torch.randint(len(SPECIAL_TOKENS), VOCABULARY[args.shape], (len(texts), args.tokens))
    types = encoded["mm_token_type_ids"]
    batch = {
        "prompt_ids": encoded["input_ids"],
        "prompt_mask": encoded["attention_mask"],
        "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
        "mm_token_type_ids": torch.cat([types, types.new_zeros(completions.shape)], 1),
        "pixel_values": encoded["pixel_values"],
        "image_grid_thw": encoded["image_grid_thw"],
        "advantages": torch.randn(len(texts)),
        "num_items_in_batch": torch.tensor(completions.numel()),
    }
    return {**{name: value.to(args.device) for name, value in batch.items()}, "num_images": [args.images] * len(texts)}
