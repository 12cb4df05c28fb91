# SPDX-License-Identifier: Apache-2.0
"""What samples are worth, by any reward; they may be scored again and again without being drawn again."""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from datasets import Dataset
from tqdm import tqdm

from open_r1_vision.data.checks import check_columns
from open_r1_vision.rewards.loading import (
    RUNTIME_COLUMNS,
    checked,
    columns_by_reward,
    load_rewards,
    reward_name,
)
from open_r1_vision.sampling.records import Held, read_samples

_ROWS_AT_ONCE = 64
#: What a scorer may ask for beside the columns of the rows.
_GIVEN = ("completions",)


def load_scorer(
    path: str, kwargs: Mapping[str, Any] | None, rows: Dataset, answer_form: str | None
) -> Callable[..., Any]:
    """Import the function that scores samples, called as a reward is.

    Args:
        path: its dotted path.
        kwargs: its settings.
        rows: must have the columns that it needs.
        answer_form: where completions give their answer, for a scorer that takes it.

    Raises:
        ValueError: it can't be loaded, or needs something that is not there.
    """
    defaults = {"answer_form": answer_form} if answer_form else {}
    (scorer,) = load_rewards([path], {path: kwargs} if kwargs else None, rows.column_names, defaults)
    lacking = [
        name
        for name, parameter in inspect.signature(scorer).parameters.items()
        if name in RUNTIME_COLUMNS and name not in _GIVEN and parameter.default is inspect.Parameter.empty
    ]
    if lacking:
        raise ValueError(
            f"The scorer {path!r} needs {', '.join(lacking)}, which only a trainer has: name one that scores "
            "completions by their text and their rows."
        )
    check_columns(rows, columns_by_reward([scorer]))
    return checked(scorer, "scorer")


def score(scorer: Callable[..., Any], rows: Dataset, held: Held, num_samples: int) -> dict[str, list[float | None]]:
    """The scores of each row's samples, by id; rows whose samples are not all there are left out."""
    ids = list(rows["id"])
    whole = [
        place
        for place, row_id in enumerate(ids)
        if row_id not in held.refused and not held.missing(row_id, num_samples)
    ]
    wants_images = "images" in inspect.signature(scorer).parameters
    if not wants_images and "images" in rows.column_names:
        rows = rows.remove_columns("images")
    scores: dict[str, list[float | None]] = {}
    bar = tqdm(total=len(whole), desc=f"Scoring by {reward_name(scorer)}", unit="row", disable=None)
    with bar:
        for start in range(0, len(whole), _ROWS_AT_ONCE):
            places = whole[start : start + _ROWS_AT_ONCE]
            of_rows = [ids[place] for place in places]
            completions = [draw.completion for draw in read_samples(held.lines(of_rows, num_samples))]
            batch = rows[places]
            columns = {name: [value for value in values for _ in range(num_samples)] for name, values in batch.items()}
            columns.pop("completions", None)
            values = _call(scorer, [[{"role": "assistant", "content": text}] for text in completions], columns)
            for number, row_id in enumerate(of_rows):
                scores[row_id] = values[number * num_samples : (number + 1) * num_samples]
            bar.update(len(places))
    return scores


def _call(scorer: Callable[..., Any], completions: Sequence[Any], columns: dict[str, list]) -> list[float | None]:
    values = scorer(completions=completions, **columns)
    if inspect.iscoroutine(values):
        with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has a loop already
            values = pool.submit(asyncio.run, values).result()
    return values
