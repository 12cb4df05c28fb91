# SPDX-License-Identifier: Apache-2.0
"""Several data sets as one, for training or for a warm-up. In a recipe:

    dataset: open_r1_vision.data.merged.rows
    dataset_options:
      datasets:
        - {dataset: open_r1_vision.data.mulberry.rows, dataset_options: {path: mulberry_sft.json}}
        - {dataset: my_lessons.parquet, dataset_split: "train[:5000]"}

They come in the order of the list. Either all are rows for training, each in a layout that `dataset` itself may have,
or all are lessons for a warm-up (see :mod:`open_r1_vision.data.lessons`). Ids stay unique, see :func:`rows`. Columns
that not all of them have are dropped, which the log says, but for those of the schema: images and lists become empty.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from open_r1_vision.data.lessons import as_lessons
from open_r1_vision.data.loading import as_rows, load_table
from open_r1_vision.data.mulberry import FEATURES as LESSON_FEATURES
from open_r1_vision.data.rows import OPTIONAL_COLUMNS, features

logger = logging.getLogger(__name__)

DUPLICATES = ("rename", "drop", "refuse")
_KEYS = ("dataset", "dataset_split", "dataset_options")


def rows(split: str = "train", *, datasets: Sequence[Any], duplicates: str = "rename") -> Dataset:
    """The rows of several data sets, for `dataset` in a recipe.

    Args:
        split: of those that name no `dataset_split`.
        datasets: for each a mapping of `dataset`, and as far as needed `dataset_split` and `dataset_options`, as in a
            recipe; or its name alone.
        duplicates: what becomes of a row whose id an earlier one has. `rename` puts `-2`, `-3`, … behind it, `drop`
            leaves the row out, `refuse` stops.

    Raises:
        FileNotFoundError: files of them are missing; the message names all of those.
        ValueError: nothing is listed, a mapping has an unknown key, rows for training stand beside lessons, or an id
            occurs twice and `duplicates` is `refuse`.
    """
    if duplicates not in DUPLICATES:
        raise ValueError(f"duplicates is {duplicates!r}: set it to one of {', '.join(DUPLICATES)}.")
    if not datasets or isinstance(datasets, (str, Mapping)):
        raise ValueError(f"`datasets` is {datasets!r:.80}: give a list of data sets to merge.")
    parts, missing = [], []
    for entry in datasets:
        try:
            parts.append(_read(entry, split))
        except FileNotFoundError as error:
            missing.append(str(error))  # several downloads are told of at once
    if missing:
        raise FileNotFoundError("\n".join(missing))
    kinds = {name: "completion" in table.column_names for name, table in parts}
    if len(set(kinds.values())) > 1:
        lessons, others = ([name for name, is_lesson in kinds.items() if is_lesson == kind] for kind in (True, False))
        raise ValueError(
            f"{', '.join(lessons)} hold lessons with `prompt` and `completion`, but {', '.join(others)} hold rows for "
            "training: merge the two kinds apart."
        )
    tables = [_fill(table, name, parts) for name, table in parts]
    return _settle_ids(concatenate_datasets(tables), duplicates)


def _read(entry: Any, split: str) -> tuple[str, Dataset]:
    """What a data set is called, and its rows or lessons."""
    settings: Any = {"dataset": entry} if isinstance(entry, str) else entry
    if not isinstance(settings, Mapping) or "dataset" not in settings:
        raise ValueError(f"{entry!r:.80} names no data set to merge: give a mapping with `dataset` in it.")
    for key in settings:
        if key not in _KEYS:
            raise ValueError(
                f"Unknown key {key!r} of the data set {settings['dataset']!r}: it takes {', '.join(_KEYS)}."
            )
    name = settings["dataset"]
    table = load_table(name, settings.get("dataset_split") or split, **(settings.get("dataset_options") or {}))
    is_lessons = "messages" in table.column_names or {"prompt", "completion"} <= set(table.column_names)
    if not is_lessons:
        return name, as_rows(table, name)
    if "image" in table.column_names:
        raise ValueError(f"The lessons of {name!r} have a column `image`: give lists in `images`.")
    return name, as_lessons(table)


def _fill(table: Dataset, name: str, parts: Sequence[tuple[str, Dataset]]) -> Dataset:
    """The table with exactly the columns of all tables."""
    tables = [other for _, other in parts]
    if "completion" in table.column_names:
        schema = dict(LESSON_FEATURES)
        table = _with_parts(table, name)
    else:
        schema = dict(
            features([one for one in OPTIONAL_COLUMNS if any(one in other.column_names for other in tables)])
        )
    shared = [
        column
        for column in table.column_names
        if column not in schema and all(other.features.get(column) == table.features[column] for other in tables)
    ]
    lost = [column for column in table.column_names if column not in schema and column not in shared]
    if lost:
        logger.warning("%s: the columns %s are dropped, since not all data sets have them.", name, ", ".join(lost))
    kept = table.select_columns([column for column in table.column_names if column in schema or column in shared])
    stem = Path(name).stem if Path(name).expanduser().exists() else name
    fillers: dict[str, list] = {
        "id": [f"{stem}-{index}" for index in range(len(table))],
        "source": [stem] * len(table),
    }
    missing: dict[str, list] = {
        column: fillers.get(column, [[]] * len(table)) for column in schema if column not in kept.column_names
    }
    if missing:
        filled = Dataset.from_dict(missing, features=type(table.features)({one: schema[one] for one in missing}))
        kept = concatenate_datasets([kept, filled], axis=1)
    target = type(table.features)({**schema, **{column: table.features[column] for column in shared}})
    return kept.select_columns(list(target)).cast(target)


def _with_parts(table: Dataset, name: str) -> Dataset:
    """Lessons whose messages have lists of parts as their contents."""
    columns = ("prompt", "completion")
    if all(table.features[column] == LESSON_FEATURES[column] for column in columns):
        return table
    kinds = {column: table.features[column] for column in columns}
    if any(not hasattr(kind, "feature") for kind in kinds.values()):
        raise ValueError(
            f"The lessons of {name!r} have plain texts as {' and '.join(columns)}, which can't be merged with "
            "conversations: give both as lists of messages."
        )
    texts = table.select_columns(list(columns)).map(
        lambda row: {column: [_message(message) for message in row[column]] for column in columns},
        features=type(table.features)({column: LESSON_FEATURES[column] for column in columns}),
        desc="Reading lessons",
    )
    return concatenate_datasets([table.remove_columns(list(columns)), texts], axis=1)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {"role": message["role"], "content": [{"type": part["type"], "text": part.get("text")} for part in parts]}


def _settle_ids(dataset: Dataset, duplicates: str) -> Dataset:
    given = list(dataset["id"])
    taken, seen, ids, kept = set(given), set[str](), [], []
    changed: list[str] = []
    for index, row_id in enumerate(given):
        if row_id not in seen:
            ids.append(row_id)
            kept.append(index)
        else:
            changed.append(row_id)
            if duplicates == "rename":
                number = 2
                while f"{row_id}-{number}" in taken:
                    number += 1
                ids.append(f"{row_id}-{number}")
                kept.append(index)
                taken.add(ids[-1])
        seen.add(row_id)
    if not changed:
        return dataset
    shown = ", ".join(map(repr, dict.fromkeys(changed[:3])))
    if duplicates == "refuse":
        raise ValueError(
            f"{len(changed)} rows have the id of an earlier one, such as {shown}: set duplicates to rename or drop, "
            "or give the rows ids of their own."
        )
    done = "got a number behind it" if duplicates == "rename" else "were dropped"
    logger.warning("%d rows with the id of an earlier one %s, such as %s.", len(changed), done, shown)
    if duplicates == "drop":
        return dataset.select(kept)
    order = dataset.column_names
    return dataset.remove_columns("id").add_column("id", ids).select_columns(order)
