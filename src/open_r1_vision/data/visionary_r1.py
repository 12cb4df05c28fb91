# SPDX-License-Identifier: Apache-2.0
"""Visionary-R1's published layout (arXiv 2505.14677): `image`, `problem`, `solution` in answer tags, `problem_type`.

Types become ours: `OCR` is `text`, `free-form` is `free_form`, and every other value (`numerical` in the authors'
README) is graded by what the gold is: `number`, `choice` for a letter, otherwise `text`.
"""

from pathlib import Path

from datasets import Dataset

from open_r1_vision.data.rows import normalise_rows
from open_r1_vision.rewards.answers import PROBLEM_TYPES, extract_answer, infer_problem_type
from open_r1_vision.rewards.choices import is_letter
from open_r1_vision.rewards.numbers import parse_number

_TYPES = {"ocr": "text", "free-form": "free_form", "numerical": None}


def matches(dataset: Dataset) -> bool:
    """Whether the first rows look like this layout: a gold in answer tags, or one of its problem types."""
    if not {"problem", "solution"} <= set(dataset.column_names):
        return False
    names = [name for name in ("solution", "problem_type") if name in dataset.column_names]
    head = dataset.select_columns(names).select(range(min(100, len(dataset))))
    return any(
        "<answer>" in str(row["solution"]) or str(row.get("problem_type")).lower() in _TYPES for row in head.to_list()
    )


def convert(dataset: Dataset, source: str = "visionary_r1", folder: str | Path = ".") -> Dataset:
    """Turn the layout into the row schema; see :func:`open_r1_vision.data.rows.normalise_rows` for the rest."""
    names = [name for name in ("problem", "solution", "problem_type") if name in dataset.column_names]
    text = [_convert_row(row) for row in dataset.select_columns(names).to_list()]
    others = dataset.remove_columns([name for name in ("solution", "problem_type") if name in names])
    for name in ("solution", "problem_type"):
        others = others.add_column(name, [row[name] for row in text])
    return normalise_rows(others, source, folder)


def _convert_row(row: dict) -> dict[str, str]:
    solution = str(row["solution"] or "")
    gold = extract_answer(solution) or solution
    return {"solution": gold, "problem_type": _convert_type(row.get("problem_type"), gold, row["problem"] or "")}


def _convert_type(given: str | None, gold: str, problem: str) -> str:
    if given is None:
        return infer_problem_type(gold, problem)
    by_gold = "number" if parse_number(gold) else "choice" if is_letter(gold) else "text"
    return given if given in PROBLEM_TYPES else _TYPES.get(given.strip().lower()) or by_gold
