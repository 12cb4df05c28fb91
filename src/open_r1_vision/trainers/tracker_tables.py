# SPDX-License-Identifier: Apache-2.0
"""Tables of completions that every tracker takes.

TRL puts chats and lists of images into them as they are. wandb wants all cells of a column to have one type, takes the
parts of a message with an image for several, and ends the training; of a list of images it keeps the word `Image`.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
from trl.trainer import grpo_trainer

from open_r1_vision.chat_texts import texts_of_chat
from open_r1_vision.trainers.colocated_vllm import swapped

#: Trackers that take tables with images, by the names that TRL's module has for them.
IMAGE_TRACKERS = ("wandb", "trackio")


@contextmanager
def readable_tables() -> Iterator[None]:
    """Let TRL give trackers tables of numbers, texts and images; it takes the trackers from its module."""
    there = {name: _Readable(vars(grpo_trainer)[name]) for name in IMAGE_TRACKERS if name in vars(grpo_trainer)}
    with swapped(grpo_trainer, there):
        yield


class _Readable:
    """A tracker's module, but for its tables."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)

    def Table(self, dataframe: pd.DataFrame) -> Any:
        columns: dict[str, list] = {}
        for name in dataframe:
            cells = list(dataframe[name])
            if any(isinstance(one, self._tracker.Image) for cell in cells if isinstance(cell, list) for one in cell):
                columns |= _image_columns(name, cells)
            else:
                columns[name] = _texts_and_numbers(cells)
        return self._tracker.Table(dataframe=pd.DataFrame(columns, dtype=object))


def _image_columns(name: str, cells: list[list]) -> dict[str, list]:
    """A column for each place in the lists of images: `image`, and where a row has several `image_2` and so on."""
    places = range(max(map(len, cells)))
    return {
        f"{name}_{place + 1}" if place else name: [cell[place] if place < len(cell) else None for cell in cells]
        for place in places
    }


def _texts_and_numbers(cells: list[Any]) -> list[Any]:
    """The cells of a column, chats and other structures as texts."""
    cells = [_text(cell) if isinstance(cell, (list, tuple, Mapping)) else cell for cell in cells]
    has_texts = any(isinstance(cell, str) for cell in cells)
    return [str(cell) if has_texts and cell is not None else cell for cell in cells]


def _text(cell: Any) -> str:
    if not _is_chat(cell):
        return json.dumps(cell, ensure_ascii=False, default=str)
    messages = texts_of_chat(cell)
    return messages[0][1] if len(messages) == 1 else "\n".join(f"{role}: {text}" for role, text in messages)


def _is_chat(cell: Any) -> bool:
    return bool(cell) and all(isinstance(one, Mapping) and "role" in one for one in cell)
