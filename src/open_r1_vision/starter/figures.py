# SPDX-License-Identifier: Apache-2.0
"""Drawn scenes of coloured shapes: name them, then count or compare."""

import random
from collections.abc import Sequence

from datasets import Dataset
from PIL import Image, ImageDraw

from open_r1_vision.starter.page import (
    CELL_PIXELS,
    PAGE_PIXELS,
    Question,
    Split,
    build_rows,
    describe_lines,
    draw_cells,
    write_steps,
)

COLOURS = {"red": (214, 39, 40), "green": (44, 160, 44), "blue": (31, 119, 180)}
SHAPES = ("circle", "square", "triangle")

Figure = tuple[str, str]  # (colour, shape)


def rows(split: str = "train", count: int = 4800, seed: int = 0, objects: Sequence[int] | None = None) -> Dataset:
    """Rows of the figures task.

    Args:
        split: `warm_up` (2 to 5 shapes), `train` or `test` (6 shapes).
        count: number of rows.
        seed: another seed gives other scenes of the same kind.
        objects: the fewest and the most shapes of a page, in place of the split's.

    Returns:
        A data set with every column of the row schema.
    """
    return build_rows("figures", split, count, seed, _draw_page, objects)


def ask(rng: random.Random, figures: list[Figure]) -> Question:
    """Draw a question about the shapes of a scene: count a colour, count a shape, or compare two shapes."""
    kind = rng.choice(("colour", "shape", "compare"))
    if kind == "colour":
        colour = rng.choice(tuple(COLOURS))
        return _count(f"How many {colour} shapes are there?", [f for f in figures if f[0] == colour])
    if kind == "shape":
        shape = rng.choice(SHAPES)
        return _count(f"How many {shape}s are there?", [f for f in figures if f[1] == shape])
    first, second = rng.sample(SHAPES, 2)
    counts = [sum(figure[1] == shape for figure in figures) for shape in (first, second)]
    letter = "C" if counts[0] == counts[1] else "A" if counts[0] > counts[1] else "B"
    problem = f"Which are more? A. {first}s B. {second}s C. equal"
    return Question(problem, letter, "choice", [f"{first} {counts[0]}", f"{second} {counts[1]}"])


def describe(figures: list[Figure], cells: list[tuple[int, int]]) -> list[str]:
    """The shapes of each line of the scene, top to bottom."""
    return describe_lines(cells, map(" ".join, figures), " , ")


def _count(problem: str, matches: list[Figure]) -> Question:
    steps = [*(" ".join(figure) for figure in matches), f"count {len(matches)}"]
    return Question(problem, str(len(matches)), "number", steps)


def _draw_page(rng: random.Random, split: Split) -> tuple[Image.Image, dict]:
    cells = draw_cells(rng, rng.randint(split.min_objects, split.max_objects))
    image = Image.new("RGB", (PAGE_PIXELS, PAGE_PIXELS), "white")
    canvas = ImageDraw.Draw(image)
    figures = []
    for row, column in cells:
        colour, shape = rng.choice(tuple(COLOURS)), rng.choice(SHAPES)
        size = rng.randint(14, 22)
        left = column * CELL_PIXELS + rng.randint(1, CELL_PIXELS - 1 - size)
        top = row * CELL_PIXELS + rng.randint(1, CELL_PIXELS - 1 - size)
        _draw_shape(canvas, shape, (left, top, left + size, top + size), COLOURS[colour])
        figures.append((colour, shape))
    lines = describe(figures, cells)
    question = ask(rng, figures)
    columns = {
        "problem": question.problem,
        "solution": question.solution,
        "problem_type": question.problem_type,
        "caption": " ; ".join(lines),
        "reasoning_steps": question.steps,
        "response_steps": write_steps(" ; ".join(lines), question.steps),
        "visual_facts": lines,
        "key_words": sorted({word for figure in figures for word in figure}),
    }
    return image, columns


def _draw_shape(
    canvas: ImageDraw.ImageDraw, shape: str, box: tuple[int, int, int, int], fill: tuple[int, int, int]
) -> None:
    left, top, right, bottom = box
    if shape == "circle":
        canvas.ellipse(box, fill=fill)
    elif shape == "square":
        canvas.rectangle(box, fill=fill)
    else:
        canvas.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], fill=fill)
