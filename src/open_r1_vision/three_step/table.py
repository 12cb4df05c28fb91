# SPDX-License-Identifier: Apache-2.0
"""The rows of a run, checked before anything is loaded."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset

from open_r1_vision.data.checks import check_columns
from open_r1_vision.data.rows import count_images, rows_from_list, to_messages
from open_r1_vision.rewards.answers import score_answer
from open_r1_vision.three_step.results import Result

_COLUMNS = ("id", "images", "problem", "solution", "problem_type")


def as_table(rows: Dataset | Sequence[Mapping[str, Any]]) -> Dataset:
    """The columns that the three steps use.

    Raises:
        ValueError: one is missing.
    """
    if not isinstance(rows, Dataset):
        # a solution is what the schema asks for, and nothing here
        rows = rows_from_list([{**row, "solution": row.get("solution") or ""} for row in rows])
    check_columns(rows, {"the three steps": ("id", "images", "problem")})
    return rows.select_columns([name for name in _COLUMNS if name in rows.column_names])


def check_rows(table: Dataset) -> tuple[list[str], dict[str, str]]:
    """The ids, and the problem of each.

    Raises:
        ValueError: an id that is there twice, markers that don't fit the images, or an unknown problem type.
    """
    ids = list(table["id"])
    twice = [key for key, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} ids are there more than once, such as {', '.join(map(str, twice[:3]))}, but results are "
            "kept by id: give each row one of its own."
        )
    problems = dict(zip(ids, table["problem"], strict=True))
    for (key, problem), count in zip(problems.items(), count_images(table), strict=True):
        to_messages({"id": key, "problem": problem, "images": [None] * count})
    for kind in set(table["problem_type"]) if "problem_type" in table.column_names else ():
        score_answer("1", "1", kind)
    return ids, problems


def check_problems(results: Mapping[str, Result], problems: Mapping[str, str], path: str) -> None:
    """Refuse results of other rows.

    Raises:
        ValueError: a result's problem is not that of the row with its id.
    """
    other = [key for key, result in results.items() if problems.get(key, result.problem) != result.problem]
    if other:
        raise ValueError(
            f"{path!r} has other problems under the same ids, such as {other[0]}: there it is "
            f"{results[other[0]].problem!r:.80}, here {problems[other[0]]!r:.80}. Name the file that belongs to these "
            "rows, or set another output."
        )


def batches(table: Dataset, places: Sequence[int], size: int) -> Iterator[list[dict]]:
    """Rows with their images unopened, so that a broken one is one row's failure."""
    if not places:
        return
    rows = table.select(places).with_format("arrow").iter(batch_size=size)
    for batch in rows:
        yield batch.to_pylist()
