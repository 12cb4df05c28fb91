# SPDX-License-Identifier: Apache-2.0
"""A whole curriculum in miniature, the real command in a process of its own, and sudden death at chosen moments."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import yaml
from processes import TESTS

from open_r1_vision.curriculum.state import CurriculumState

NAMES = ("warm_up", "difficulty", "splits", "perceive", "reason")
#: Names every process of a curriculum that a test started.
_MARK = "OPEN_R1_VISION_KILL_TEST"
_TRAINING = {
    "learning_rate": 1.0e-2,
    # with a rate that ends at 0, a step too many would change nothing
    "lr_scheduler_type": "constant",
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 2,
    "disable_tqdm": True,
}
_RL = {
    **_TRAINING,
    "reward_funcs": ["processes.text_reward"],
    "dataset": "open_r1_vision.data.splits.rows",
    "dataset_options": {"path": "{splits.folder}"},
    "num_generations": 4,
    "prompts_per_step": 2,
    "max_completions_per_device": 8,
    "max_completion_length": 6,
    "beta": 0.04,
    "num_completions_to_print": 0,
}


def miniature_stages(model, steps=4, count=16):
    """PeBR-R1's five stages. A random model is never right: its samples are by what a checksum says of them."""
    return [
        {
            "name": "warm_up",
            "run": "sft",
            "settings": {
                **_TRAINING,
                "model_name_or_path": model,
                "dataset": "lessons.rows",
                "max_length": None,
                "per_device_train_batch_size": 4,  # 3 steps an epoch: the last checkpoint lies within one
                "max_steps": steps,
            },
        },
        {
            "name": "difficulty",
            "run": "sample",
            "settings": {
                "model_name_or_path": "{warm_up.final}",
                "dataset": "processes.rows",
                "dataset_options": {"count": count, "texts": [4]},
                "num_generations": 4,
                "max_completion_length": 16,
                "rows_per_batch": 1,
            },
        },
        {
            "name": "splits",
            "run": "split",
            "settings": {
                "samples": "{difficulty.folder}",
                "scorer": "processes.text_reward",
                "right_from": 0.5,
                "easy_from": 0.75,
                "hard_up_to": 0.25,
            },
        },
        {
            "name": "perceive",
            "run": "train",
            "settings": {
                **_RL,
                "model_name_or_path": "{warm_up.final}",
                "dataset_split": "easy",
                "max_steps": steps,
            },
        },
        {
            "name": "reason",
            "run": "train",
            "settings": {
                **_RL,
                "model_name_or_path": "{perceive.final}",
                "dataset_split": "medium",
                "max_steps": 2,
            },
        },
    ]


def write_curriculum(folder, stages, **keys):
    """Write the recipe of stages that run in `folder/runs`."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = {"dtype": "float32", "seed": 0, "report_to": "none"}
    path = folder / "curriculum.yaml"
    plain = {"output_dir": str(folder / "runs"), "shared": shared, "stages": stages, **keys}
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return path


class Command:
    """A command that is started, killed, and started again; its processes are known by a mark.

    Args:
        log: what all starts write goes here.
        words: after `python`.
    """

    def __init__(self, log, *words):
        self.log = log
        self.words = [sys.executable, *map(str, words)]
        self.process = None
        self._mark = uuid.uuid4().hex

    def start(self):
        """Start it, in a session of its own."""
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", _MARK: self._mark}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self.words, stdout=out, stderr=out, env=env, start_new_session=True)

    def finish(self, timeout=900):
        """Start it and wait for a good end."""
        self.start()
        try:
            code = self.process.wait(timeout)
        finally:
            self.kill("machine")
        assert code == 0, self.text()[-5000:]

    def kill(self, whom):
        """SIGKILL to the whole `machine`, or to the `supervisor` or `launcher` (torchrun) alone."""
        victims = [] if whom == "machine" else [self.process]
        if whom == "launcher":
            with contextlib.suppress(psutil.Error):
                children = psutil.Process(self.process.pid).children()
                victims = [child for child in children if "torch.distributed.run" in " ".join(child.cmdline())]
        for victim in victims:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)
        while not victims and (family := self.family()):
            for number in (signal.SIGSTOP, signal.SIGKILL):  # at one moment, as far as that can be had
                for one in family:
                    with contextlib.suppress(psutil.Error):
                        one.send_signal(number)
            time.sleep(0.01)
        if whom != "launcher":
            self.process.wait(30)

    def family(self):
        """Its processes that live."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def text(self):
        """What it said so far."""
        return self.log.read_text(errors="replace")


def curriculum_command(config):
    """The command of a curriculum's recipe."""
    return Command(config.parent / "log.txt", "-m", "open_r1_vision.curriculum", "--config", config)


def progress(folder):
    """How far a stage is: its last checkpoint's number, or the bytes that it sampled."""
    steps = [int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*")]
    size = 0
    for path in folder.glob("shard-*.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return max([size, *steps])


def wait_until(condition, command, seconds=900):
    """Wait for a moment; False when the command ended before it came."""
    deadline = time.monotonic() + seconds
    while not condition():
        if command.process.poll() is not None:
            return False
        assert time.monotonic() < deadline, command.text()[-5000:]
        time.sleep(0.002)
    return True


def states(curriculum):
    """What has become of the stages, by name."""
    state = CurriculumState(curriculum)
    return {stage.name: state.of(stage) for stage in curriculum.stages}


def products(folder):
    """Everything of a curriculum that must not depend on how often it was killed: bytes by path."""
    paths = ["difficulty/samples.jsonl", "splits/splits.json", "splits/pass_rates.json"]
    paths += [str(path.relative_to(folder)) for path in sorted(folder.glob("*/final/model.safetensors"))]
    return {path: (Path(folder) / path).read_bytes() for path in paths}
