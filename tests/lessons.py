# SPDX-License-Identifier: Apache-2.0
"""Lessons for warm-up tests, which recipes can name: `lessons.rows`; and a process that dies while it saves."""

import os
import signal
from pathlib import Path

import datasets
from tiny_models import image

from open_r1_vision import checkpoints


def rows(split="train", count=12, texts=(), as_messages=False):
    """One image a lesson, but for the positions in `texts`."""
    lessons = []
    for index in range(count):
        question = {"type": "text", "text": f"How many of {index}?"}
        picture = [] if index in texts else [{"type": "image", "text": None}]
        prompt = [{"role": "user", "content": [*picture, question]}]
        completion = [{"role": "assistant", "content": [{"type": "text", "text": f"They are {index}."}]}]
        turns = {"messages": prompt + completion} if as_messages else {"prompt": prompt, "completion": completion}
        lessons.append({"id": str(index), "images": [] if index in texts else [image(index)], **turns})
    features = None
    if not as_messages:
        message = datasets.List(
            {
                "role": datasets.Value("string"),
                "content": datasets.List({"type": datasets.Value("string"), "text": datasets.Value("string")}),
            }
        )
        features = datasets.Features(
            {
                "id": datasets.Value("string"),
                "images": datasets.List(datasets.Image()),
                "prompt": message,
                "completion": message,
            }
        )
    return datasets.Dataset.from_list(lessons, features=features)


def text_rows(split="train", count=12):
    """Lessons without images, and without their column."""
    return rows(count=count, texts=range(count)).remove_columns("images")


def die_while_saving(step):
    """Kill this process once everything of a checkpoint is on disk but its marker."""
    mark = checkpoints.mark_complete

    def die(checkpoint):
        if checkpoint.name == f"checkpoint-{step}":
            assert (Path(checkpoint) / "model.safetensors").is_file()
            os.kill(os.getpid(), signal.SIGKILL)
        mark(checkpoint)

    checkpoints.mark_complete = die
