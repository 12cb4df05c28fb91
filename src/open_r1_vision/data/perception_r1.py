# SPDX-License-Identifier: Apache-2.0
r"""Perception-R1's published layout (arXiv 2506.07218): Geometry3K with visual facts, in one parquet file.

Columns: `problem` with `<image>` markers, `answer` in bare LaTeX, `images`, and `visual_key_info`, one text that
numbers the facts, `<info1>AB = 3</info1>\n<info2>…</info2>`, or null. The facts become `visual_facts`. In a recipe:

    dataset: open_r1_vision.data.perception_r1.rows
    dataset_options: {path: geo3k_with_visual_key_info.parquet}

A file without `visual_key_info`, such as the authors' validation file, gives rows without that column. To make facts
for other data: :mod:`open_r1_vision.data.annotate`.
"""

import logging
import re
from pathlib import Path
from typing import Any

from datasets import Dataset

from open_r1_vision.data.conversion import Conversion, Unusable, read_parquet, repair_markers
from open_r1_vision.data.images import ImageLimits, encode_images
from open_r1_vision.data.rows import VIDEO_MARKER, rows_from_list
from open_r1_vision.rewards.answers import gold_is_consistent, infer_problem_type, unwrap

logger = logging.getLogger(__name__)

_REQUIRED = ("problem", "answer", "images")
_FACTS = "visual_key_info"
_FACT = re.compile(r"<info(\d+)>(.*?)</info\1>", re.DOTALL)


def rows(split: str = "train", *, path: str, check_images: bool = True) -> Dataset:
    """The rows of a published file, for `dataset` in a recipe; what was kept and dropped goes to the log.

    Args:
        split: the file is whatever split is asked for.
        path: the parquet file; relative paths of images start at its folder.
        check_images: open each image, and drop the rows of those that can't be used.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in the layout, or no question becomes a row.
    """
    records = read_parquet(path, _REQUIRED, (_FACTS,), "geo3k_with_visual_key_info.parquet")
    conversion = convert(records, Path(path).expanduser().parent, ImageLimits() if check_images else None)
    logger.warning("%s: %s", path, conversion.report())
    return rows_from_list(conversion.rows, "perception_r1")


def convert(records: list[dict[str, Any]], folder: str | Path = ".", limits: ImageLimits | None = None) -> Conversion:
    """Turn records of the published layout into rows; ids are `perception_r1-0`, `perception_r1-1`, …

    Args:
        records: the rows of the file.
        folder: where relative paths of images start.
        limits: with it images are opened, and those that it refuses drop their row.

    Raises:
        ValueError: no question becomes a row, or something among the images can't be one.
    """
    result = Conversion()
    candidates: list[tuple[dict[str, Any], str]] = []
    for number, record in enumerate(records):
        row_id = f"perception_r1-{number}"
        try:
            candidates.append(_read_record(record, row_id, folder))
        except Unusable as reason:
            result.drop(str(reason), row_id)
    result.add(candidates, limits)
    if not result.rows:
        raise ValueError(f"No question became a row: give a file in Perception-R1's layout.\n{result.report()}")
    return result


def split_facts(text: str | None) -> list[str]:
    """The facts of a `visual_key_info`, in its order; an empty list where there are none.

    Raises:
        Unusable: something stands outside the numbered tags.
    """
    if _FACT.sub("", text or "").strip():
        raise Unusable(f"{_FACTS} is not all in numbered tags")
    return [fact.strip() for _, fact in _FACT.findall(text or "") if fact.strip()]


def _read_record(record: dict[str, Any], row_id: str, folder: str | Path) -> tuple[dict[str, Any], str]:
    """A row whose images are not opened yet, and as what it is kept."""
    images = encode_images(record["images"], folder)
    problem, kind = repair_markers(str(record["problem"] or ""), len(images))
    if not problem:
        raise Unusable("no question")
    if VIDEO_MARKER in problem:
        raise Unusable("a video marker in the question")
    gold = unwrap(str(record["answer"] or ""))
    if not gold:
        raise Unusable("no answer")
    problem_type = infer_problem_type(gold, problem)
    if not gold_is_consistent(gold, problem_type, problem):
        raise Unusable("the answer does not equal itself")
    row = {
        "id": row_id,
        "images": images,
        "problem": problem,
        "solution": gold,
        "problem_type": problem_type,
        "source": "perception_r1",
    }
    if _FACTS not in record:
        return row, kind
    facts = split_facts(record[_FACTS])
    return {**row, "visual_facts": facts}, kind + ("" if facts else "; no visual facts")
