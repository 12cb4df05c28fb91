# SPDX-License-Identifier: Apache-2.0
"""What the starter's two tasks share: a page of 4 x 4 cells, how its rows are described, and the row schema.

A page is 112 x 112 pixels, which a Qwen2.5-VL processor turns into 16 visual tokens of 28 x 28 pixels. Objects stand
in lines like writing, one to a cell and moved by a few pixels, and are described in reading order with a semicolon
between lines.
"""

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from datasets import Dataset
from PIL import Image

from open_r1_vision.data.rows import rows_from_list

PAGE_PIXELS = 112
CELL_PIXELS = 28
CELLS_PER_SIDE = PAGE_PIXELS // CELL_PIXELS
#: Objects in the longest caption of the reading lessons: text is cheap, pages are not.
LONGEST_CAPTION = 8


@dataclass(frozen=True)
class Split:
    """How hard the pages of a split are, and where its randomness starts.

    Attributes:
        min_objects: fewest objects on a page.
        max_objects: most objects on a page, at most 16.
        seed_offset: keeps the random streams of the splits apart at equal user seeds.
    """

    min_objects: int
    max_objects: int
    seed_offset: int


#: `warm_up` pages are easy and come with captions and reasoning; `train` and `test` pages are hard.
SPLITS = {"warm_up": Split(2, 5, 0), "train": Split(6, 6, 1), "test": Split(6, 6, 2)}


@dataclass(frozen=True)
class Question:
    """One question about a page and everything known about its answer.

    Attributes:
        problem: the question as the model reads it.
        solution: the plain gold answer.
        problem_type: see :mod:`open_r1_vision.data.rows`.
        steps: the reasoning, one step per entry; joined by a space it is the warm-up's `<think>` text.
    """

    problem: str
    solution: str
    problem_type: str
    steps: list[str]


def get_split(name: str) -> Split:
    """Look a split up by name, or say which there are."""
    if name not in SPLITS:
        raise ValueError(f"Unknown split {name!r} of a starter task: choose one of {', '.join(SPLITS)}.")
    return SPLITS[name]


def draw_cells(rng: random.Random, count: int) -> list[tuple[int, int]]:
    """Lay `count` objects out in lines of drawn lengths, as (row, column) cells in reading order.

    Lines start at the left and follow each other without gaps.
    """
    cells: list[tuple[int, int]] = []
    for row in range(CELLS_PER_SIDE):
        rest = count - len(cells)
        if rest:
            room_below = CELLS_PER_SIDE * (CELLS_PER_SIDE - row - 1)
            length = rng.randint(max(1, rest - room_below), min(CELLS_PER_SIDE, rest))
            cells += [(row, column) for column in range(length)]
    return cells


def describe_lines(cells: Iterable[tuple[int, int]], names: Iterable[str], separator: str) -> list[str]:
    """Name the objects of each non-empty line of the page, top to bottom."""
    lines = itertools.groupby(zip(cells, names, strict=True), key=lambda item: item[0][0])
    return [separator.join(name for _, name in line) for _, line in lines]


def write_steps(caption: str, steps: Iterable[str]) -> list[str]:
    """What the policy should say before its answer, piece by piece, to be joined by spaces: a reference for hints."""
    description, reasoning = caption.split(), list(steps)
    return [f"<info> {description[0]}", *description[1:-1], f"{description[-1]}</info>"] + [
        f"<think> {reasoning[0]}",
        *reasoning[1:],
    ]


def build_rows(
    task: str,
    split: str,
    count: int,
    seed: int,
    draw_page: Callable[[random.Random, Split], tuple[Image.Image, dict]],
    objects: Sequence[int] | None = None,
) -> Dataset:
    """Draw `count` rows of a task. Row i depends on the task, the split, the objects, the seed and i alone.

    Raises:
        ValueError: no rows are asked for, there is no such split, or `objects` can't be on a page.
    """
    if count < 1:
        raise ValueError(f"A starter task was asked for {count} rows: set `count` to at least 1.")
    spec = get_split(split)
    name = f"{task}-{split}"
    if objects is not None:
        spec = dataclasses.replace(spec, **_read_objects(objects))
        name += f"-{spec.min_objects}to{spec.max_objects}"
    stream = f"{task}-{spec.seed_offset}" + name.removeprefix(f"{task}-{split}")
    rows = []
    for index in range(count):
        rng = random.Random(f"{stream}-{seed}-{index}")
        image, columns = draw_page(rng, spec)
        rows.append({"id": f"{name}-{seed}-{index}", "images": [image], "source": f"starter/{task}", **columns})
    return rows_from_list(rows)


def _read_objects(objects: Sequence[int]) -> dict[str, int]:
    room = CELLS_PER_SIDE**2
    if isinstance(objects, str) or len(objects) != 2 or not 1 <= objects[0] <= objects[1] <= room:
        raise ValueError(
            f"objects is {objects!r}: give the fewest and the most objects of a page, 1 to {room}, such as [4, 8]."
        )
    return {"min_objects": objects[0], "max_objects": objects[1]}
