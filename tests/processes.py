# SPDX-License-Identifier: Apache-2.0
"""Start torchrun as a test's subprocess; and what its processes import: rows, rewards, trainers that take notes.

Put this folder on PYTHONPATH and a recipe can name `processes.rows`, `processes.text_reward` and so on.
"""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import yaml
from tiny_models import image

from open_r1_vision.held_out import evaluate
from open_r1_vision.reasoners.captions import Reading
from open_r1_vision.rewards.answers import completion_text
from open_r1_vision.trainers import CaptionGRPOTrainer, VisionGRPOTrainer

TESTS = Path(__file__).parent
RECIPES = TESTS.parent / "recipes"
#: Names the processes of one start, those that lost their parent included.
_MARK = "OPEN_R1_VISION_TEST_START"


# ---- starting processes


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    log: str
    seconds: float


def run_train(recipe, *words, processes=2, timeout=180, **environment):
    """`torchrun -m open_r1_vision.train`; fails, with no process left, when it takes longer than `timeout`."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return run_command([*launch, "-m", "open_r1_vision.train", "--config", recipe, *words], timeout, **environment)


def run_command(words, timeout, **environment):
    """Run `python WORDS` in a session of its own; nothing of it is left when this returns or raises."""
    mark = uuid.uuid4().hex
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    # DeepSpeed compiles with the ninja beside this python
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PYTHONPATH": path, "PATH": programs, "PYTHONUNBUFFERED": "1", _MARK: mark, **environment}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "ACCELERATE_TORCH_DEVICE"):
        env.pop(name, None)
    start = time.monotonic()
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"open_r1_vision_test_{mark}.log"
    try:
        with log.open("wb") as out:
            command = [sys.executable, *map(str, words)]
            process = subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                tail = log.read_text(errors="replace")[-5000:]
                raise AssertionError(f"{command} still ran after {timeout} s. Its log ends:\n{tail}") from None
            finally:
                _kill_all(mark)
                process.wait()
        return Outcome(code, log.read_text(errors="replace"), time.monotonic() - start)
    finally:
        log.unlink(missing_ok=True)


def _kill_all(mark):
    """Kill what a start left behind: torchrun's processes have sessions of their own, and may have lost torchrun."""
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(_MARK) == mark:
                process.kill()
        except psutil.Error:
            continue


def write_recipe(folder, model, **settings):
    """Write a recipe for 2 prompts a step with 4 completions each; rows come in order, every step is logged."""
    defaults = {
        "model_name_or_path": model,
        "dtype": "float32",
        "dataset": "processes.rows",
        "trainer": "processes.NotingTrainer",
        "reward_funcs": ["processes.text_reward"],
        "num_generations": 4,
        "prompts_per_step": 2,
        "max_completions_per_device": 4,
        "max_completion_length": 6,
        "shuffle_dataset": False,
        "learning_rate": 1.0e-3,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 100.0,
        "gradient_checkpointing": False,
        "beta": 0.04,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "report_to": "none",
        "num_completions_to_print": 0,
        "disable_tqdm": True,
        "ddp_timeout": 60,
        "output_dir": str(folder / "run"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**defaults, **settings}, sort_keys=False))
    return path


def write_deepspeed(folder, stage):
    """The packaged DeepSpeed settings with limits so small that even a tiny model is sharded and sent in pieces."""
    settings = json.loads((RECIPES / "deepspeed" / f"zero{stage}.json").read_text())
    zero = settings["zero_optimization"]
    zero["reduce_bucket_size"] = 50_000
    if stage == 2:
        zero["allgather_bucket_size"] = 50_000
    else:
        zero["stage3_param_persistence_threshold"] = 0
        zero["stage3_prefetch_bucket_size"] = 50_000
    path = folder / f"zero{stage}.json"
    path.write_text(json.dumps(settings))
    return str(path)


# ---- what processes import


def rows(split="train", count=10, texts=()):
    """Rows `train-0`, `train-1`, … with one image each, but for the positions in `texts`."""
    return [
        {
            "id": f"{split}-{index}",
            "images": [] if index in texts else [image(index)],
            "problem": f"How many of {index}?" + " please" * (index % 3),
            "solution": str(index),
            "problem_type": "number",
        }
        for index in range(count)
    ]


#: The level from which on the rows of `hinted_rows` are right; 9 is none, and the row before the last has no steps.
FIRST_RIGHT = (0, 1, 2, 9, 9, 1)


def hinted_rows(split="train", texts=()):
    """Six rows with reference steps."""
    steps = [[f"{number}." for number in (1, 2, 3)] if index != 4 else [] for index in range(6)]
    return [{**row, "reasoning_steps": of_row} for row, of_row in zip(rows(split, 6, texts), steps, strict=True)]


def level_gate(completions, response_start, solution, **columns):
    """Right from the level on that FIRST_RIGHT has for the row."""
    return [
        float(start.count(".") >= FIRST_RIGHT[int(number)])
        for start, number in zip(response_start, solution, strict=True)
    ]


def text_reward(completions, problem, trainer_state=None, **columns):
    """A number that depends on the completion and on its row, and hardly ever is the same for two of them."""
    if trainer_state is not None:
        _die_once(f"step {trainer_state.global_step + 1}")
    texts = [completion_text(completion) for completion in completions]
    return [checksum(text, question) for text, question in zip(texts, problem, strict=True)]


def reward_with_an_enemy(completions, id, **columns):
    """Fails where the second row is."""
    if "train-1" in id:
        raise RuntimeError("not me")
    return [0.0] * len(completions)


def answer_reward(caption_answer, **columns):
    """None where there is no answer from the caption, else a number that depends on it."""
    return [0.0 if answer is None else checksum(answer, "") for answer in caption_answer]


def checksum(text, question):
    """A number in [0, 1) that depends on both texts."""
    return zlib.crc32(f"{question}|{text}".encode()) % 1000 / 1000


class NotingTrainer(VisionGRPOTrainer):
    """Notes at each step what this process holds and works on, in `notes-<rank>.jsonl` of the output folder."""

    def _inner_training_loop(self, *args, **kwargs):
        _tear_a_save()
        return super()._inner_training_loop(*args, **kwargs)

    def _generate_and_score_completions(self, inputs):
        engine = self.model_wrapped
        parameters = list(self.model.parameters())
        optimizer = getattr(engine, "optimizer", None)  # only DeepSpeed's engine holds one
        note = {
            "step": self.state.global_step + 1,
            "ids": [row["id"] for row in inputs],
            "images": sum(len(row["images"]) for row in inputs),
            "engine": type(engine).__name__,
            "optimizer": type(optimizer).__name__,
            "held": sum(getattr(parameter, "ds_tensor", parameter).numel() for parameter in parameters),
            "whole": sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in parameters),
            "optimized": sum(part.numel() for part in getattr(optimizer, "single_partition_of_fp32_groups", [])),
        }
        with (Path(self.args.output_dir) / f"notes-{self.args.process_index}.jsonl").open("a") as file:
            file.write(json.dumps(note) + "\n")
        return super()._generate_and_score_completions(inputs)


class CaptioningTrainer(CaptionGRPOTrainer):
    """Puts a caption of its own into two completions of three, and has captions read by an echo."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, reader=EchoReader(), **kwargs)

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        completions, *others = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        if not self.model.training:
            return (completions, *others)
        numbers = [zlib.crc32(bytes(token % 256 for token in ids)) for ids in completions]
        captions = [f"<info>{number:x}</info>" if number % 3 else "" for number in numbers]
        completions = [
            [*self._tokenizer(caption)["input_ids"], *ids] for caption, ids in zip(captions, completions, strict=True)
        ]
        return (completions, *others)

    def _inner_training_loop(self, *args, **kwargs):
        path = Path(self.args.output_dir) / f"evaluated-{self.args.process_index}.json"
        path.write_text(json.dumps(evaluate_parts(self.train_dataset)))
        return super()._inner_training_loop(*args, **kwargs)


class EchoReader:
    """Replies with what it was asked."""

    def read(self, captions, problems):
        """See :class:`open_r1_vision.reasoners.captions.CaptionReader`."""
        return [
            Reading("", None) if caption is None else Reading(f"{caption} for {problem}", caption)
            for caption, problem in zip(captions, problems, strict=True)
        ]


def evaluate_parts(dataset):
    """Samples of the first 1 to 5 rows in batches of several sizes, with the question as the reply."""

    def echo(prompts, max_new_tokens):
        return [prompt[-1]["content"][-1]["text"] for prompt in prompts]

    return {
        f"{count} rows, {batch_size} at a time": [
            [sample.id, sample.completion]
            for sample in evaluate(echo, dataset.select(range(count)), max_new_tokens=5, batch_size=batch_size)
        ]
        for count in range(1, 6)
        for batch_size in (1, 2, 8)
    }


# ---- sudden death: DIE is "RANK step N" or "RANK save N", and happens once for each file DIED


def _die_once(moment):
    marker = Path(os.environ.get("DIED", "/nonexistent"))
    if os.environ.get("DIE") == f"{os.environ.get('RANK', '0')} {moment}" and not marker.exists():
        marker.write_text(moment)
        os.kill(os.getpid(), signal.SIGKILL)


def _tear_a_save():
    """Let torch.save write half of the optimizer's state and die, when DIE says so."""
    save = torch.save

    def torn_save(value, file, *args, **kwargs):
        save(value, file, *args, **kwargs)
        path = Path(file) if isinstance(file, (str, os.PathLike)) else None
        if path is not None and "optim" in path.name and " save " in os.environ.get("DIE", ""):
            checkpoint = next(part for part in path.parts if part.startswith("checkpoint-"))
            if not Path(os.environ["DIED"]).exists() and _is_mine(checkpoint):
                os.truncate(path, path.stat().st_size // 2)
                _die_once(f"save {checkpoint.removeprefix('checkpoint-')}")

    torch.save = torn_save


def _is_mine(checkpoint):
    rank, _, step = os.environ["DIE"].split()
    return rank == os.environ.get("RANK", "0") and checkpoint == f"checkpoint-{step}"
