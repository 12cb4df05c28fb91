# SPDX-License-Identifier: Apache-2.0
"""Pages of real handwritten digits: read them, then sum, count or compare.

The handwriting is scikit-learn's copy of the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and
Kaynak, 1998): 1,797 images of 8 x 8 pixels by people who each wrote the same sequence of digits. That sequence starts
anew with each writer, so the writers can be told apart and each split has writers of its own.
"""

import functools
import math
import random
from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from PIL import Image

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

#: Where each writer's digits start in the data set, and its end.
WRITER_STARTS = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667, 1797)
WRITERS = {"warm_up": range(0, 7), "train": range(7, 11), "test": range(11, 14)}

_GLYPH_PIXELS = (20, 22, 24, 26)


def rows(split: str = "train", count: int = 4800, seed: int = 0, objects: Sequence[int] | None = None) -> Dataset:
    """Rows of the digits task.

    Args:
        split: `warm_up` (2 to 5 digits), `train` or `test` (6 digits); each has its own writers.
        count: number of rows.
        seed: another seed gives other pages of the same kind.
        objects: the fewest and the most digits of a page, in place of the split's.

    Returns:
        A data set with every column of the row schema.
    """
    return build_rows("digits", split, count, seed, functools.partial(_draw_page, split), objects)


def ask(rng: random.Random, digits: list[int]) -> Question:
    """Draw a question about the digits of a page: their sum (half of the time), a count, or the range."""
    kind = rng.choice(("sum", "sum", "count", "range"))
    if kind == "sum":
        totals = np.cumsum(digits).tolist()
        steps = [str(digits[0])] + [
            f"+ {digit} = {total}" for digit, total in zip(digits[1:], totals[1:], strict=True)
        ]
        return Question("What is the sum of the digits?", str(totals[-1]), "number", steps)
    if kind == "count":
        bound = rng.randint(2, 6)
        larger = [str(digit) for digit in digits if digit > bound]
        steps = [*larger, f"count {len(larger)}"]
        return Question(f"How many digits are greater than {bound}?", str(len(larger)), "number", steps)
    largest, smallest = max(digits), min(digits)
    steps = [f"largest {largest}", f"smallest {smallest}", f"{largest} - {smallest} = {largest - smallest}"]
    problem = "What is the largest digit minus the smallest digit?"
    return Question(problem, str(largest - smallest), "number", steps)


def describe(digits: list[int], cells: list[tuple[int, int]]) -> list[str]:
    """The digits of each line of the page, top to bottom."""
    return describe_lines(cells, map(str, digits), " ")


def _draw_page(split_name: str, rng: random.Random, split: Split) -> tuple[Image.Image, dict]:
    cells = draw_cells(rng, rng.randint(split.min_objects, split.max_objects))
    page_HW = np.zeros((PAGE_PIXELS, PAGE_PIXELS), dtype=np.uint8)
    digits = []
    for row, column in cells:
        label, glyph_HW = _draw_glyph(split_name, rng)
        size = len(glyph_HW)
        top = row * CELL_PIXELS + rng.randint(0, CELL_PIXELS - size)
        left = column * CELL_PIXELS + rng.randint(0, CELL_PIXELS - size)
        page_HW[top : top + size, left : left + size] = glyph_HW
        digits.append(label)
    lines = describe(digits, cells)
    question = ask(rng, digits)
    columns = {
        "problem": question.problem,
        "solution": question.solution,
        "problem_type": question.problem_type,
        "caption": " ; ".join(lines),
        "reasoning_steps": question.steps,
        "response_steps": write_steps(" ; ".join(lines), question.steps),
        "visual_facts": lines,
        "key_words": [str(digit) for digit in digits],
    }
    return Image.fromarray(255 - page_HW).convert("RGB"), columns


def _draw_glyph(split_name: str, rng: random.Random) -> tuple[int, np.ndarray]:
    labels_N, glyphs = _handwriting()
    writer = rng.choice(WRITERS[split_name])
    index = rng.randrange(WRITER_STARTS[writer], WRITER_STARTS[writer + 1])
    glyph_HW = glyphs[rng.choice(_GLYPH_PIXELS)][index]
    return int(labels_N[index]), _slant(glyph_HW, rng) if split_name == "warm_up" else glyph_HW


def _slant(glyph_HW: np.ndarray, rng: random.Random) -> np.ndarray:
    """Turn, slant and stretch a digit a little about its centre.

    The warm-up has 906 digits by 7 writers, which a policy would learn by heart.
    """
    angle, slant = math.radians(rng.uniform(-15, 15)), rng.uniform(-0.2, 0.2)
    wider, taller = rng.uniform(0.9, 1.15), rng.uniform(0.9, 1.15)
    cos, sin = math.cos(angle), math.sin(angle)
    # where each output pixel comes from
    xx, xy, yx, yy = cos * wider, (slant * cos - sin) * wider, sin * taller, (slant * sin + cos) * taller
    centre = (len(glyph_HW) - 1) / 2
    shift_x, shift_y = centre * (1 - xx - xy), centre * (1 - yx - yy)
    matrix = (xx, xy, shift_x, yx, yy, shift_y)
    glyph = Image.fromarray(glyph_HW)
    return np.asarray(glyph.transform(glyph.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


@functools.cache
def _handwriting() -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Labels, and for each glyph size the enlarged images as uint8 with ink at 255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The starter's handwriting comes with scikit-learn, which is not installed: "
            "`pip install 'open_r1_vision[starter]'`."
        ) from error
    images_NHW, labels_N = load_digits(return_X_y=True)
    images_NHW = (images_NHW.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    glyphs = {
        size: np.stack(
            [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in images_NHW]
        )
        for size in _GLYPH_PIXELS
    }
    return labels_N, glyphs
