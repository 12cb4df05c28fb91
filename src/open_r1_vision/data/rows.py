# SPDX-License-Identifier: Apache-2.0
r"""The row schema: what every data set is turned into, and how a row becomes a prompt.

| column | type | who needs it |
|---|---|---|
| `id` | str, unique | everyone: logs, resume, joins |
| `images` | list of images, may be empty | everyone |
| `problem` | str | everyone; may hold one `<image>` marker per image |
| `solution` | str: the plain gold answer, no tags, no `\boxed{}` | accuracy |
| `problem_type` | `number`, `choice`, `text`, `free_form` or `math` | accuracy |
| `source` | str | reports per source |
| `reasoning_steps`, `visual_facts`, `key_words` | list[str], optional | single methods |

Further columns are kept and reach the reward functions.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Image, LargeList, List, Value, concatenate_datasets

from open_r1_vision.data.images import encode_images
from open_r1_vision.prompts import fill_prompt
from open_r1_vision.rewards.answers import extract_answer, infer_problem_type, unwrap

logger = logging.getLogger(__name__)

OPTIONAL_COLUMNS = ("reasoning_steps", "visual_facts", "key_words")
COLUMNS = ("id", "images", "problem", "solution", "problem_type", "source", *OPTIONAL_COLUMNS)
IMAGE_MARKER = "<image>"
VIDEO_MARKER = "<video>"

_PROMPT_FEATURES = Features(
    {"prompt": List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})}
)


def features(optional: Iterable[str] = OPTIONAL_COLUMNS) -> Features:
    """The schema as `datasets.Features`, with the optional columns that are named."""
    text = {name: Value("string") for name in ("problem", "solution", "problem_type", "source")}
    lists = {name: List(Value("string")) for name in optional}
    return Features({"id": Value("string"), "images": List(Image()), **text, **lists})


def rows_from_list(rows: Sequence[Mapping[str, Any]], source: str = "rows", folder: str | Path = ".") -> Dataset:
    """Build a data set in the schema from plain dictionaries.

    Args:
        rows: `problem` and `solution` are required. Images go into `images` (a list) or `image` (one), each as a PIL
            image, an array, bytes, a path, a `data:` URL, or a dictionary with `bytes` or `path`.
        source: names the rows that have no `source`, and their ids.
        folder: where relative image paths start.

    Raises:
        ValueError: no rows, a column is missing, or an image can't be one.
    """
    if not rows:
        raise ValueError(f"{source!r} holds no rows: give at least one.")
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    _check_names(columns, source)
    if any(row.get("image") is not None and row.get("images") is not None for row in rows):
        raise ValueError(f"A row of {source!r} has both `image` and `images`: keep one of the two.")
    extras = {name: values for name, values in columns.items() if name not in (*COLUMNS, "image", "video", "videos")}
    for name in ("video", "videos"):
        _refuse_videos(name, columns.get(name, []))
    images = [row["image"] if row.get("image") is not None else row.get("images") for row in rows]
    parts = [
        _text_columns({name: columns[name] for name in _text_names(columns)}, range(len(rows)), source),
        {"images": [encode_images(value, folder) for value in images]},
    ]
    _report_inferred(columns.get("problem_type"), parts[0]["problem_type"], source)
    schema = features([name for name in OPTIONAL_COLUMNS if name in columns])
    merged = {name: values for part in parts for name, values in part.items()}
    dataset = Dataset.from_dict({name: merged[name] for name in schema}, features=schema)
    if not extras:
        return dataset
    return concatenate_datasets([dataset, Dataset.from_dict(extras, on_mixed_types="use_json")], axis=1)


def normalise_rows(dataset: Dataset, source: str = "rows", folder: str | Path = ".") -> Dataset:
    r"""Turn a data set that has at least `problem` and `solution` into the schema.

    A single `image` column becomes `images`, missing images an empty list. A missing `id` becomes `<source>-<index>`,
    a missing `source` the name given, a missing `problem_type` is inferred from the gold
    (:func:`open_r1_vision.rewards.answers.infer_problem_type`) and reported in the log. A gold that is one `\boxed{}`
    loses its box. Images are neither decoded nor, where they are a list of images already, rewritten.

    Args:
        dataset: any other columns are kept as they are.
        source: names the rows that have no `source`, and their ids.
        folder: where relative image paths start.
    """
    if not len(dataset):
        raise ValueError(f"{source!r} holds no rows: give at least one.")
    _check_names(dataset.column_names, source)
    if {"image", "images"} <= set(dataset.column_names):
        raise ValueError(f"{source!r} has both the columns `image` and `images`: keep one of the two.")
    image_column = next((name for name in ("images", "image") if name in dataset.column_names), None)
    for name in {"video", "videos"} & set(dataset.column_names):
        _refuse_videos(name, dataset.with_format("arrow")[name].to_pylist())
        dataset = dataset.remove_columns(name)
    text_names = _text_names(dataset.column_names)
    schema = features([name for name in OPTIONAL_COLUMNS if name in text_names])
    text = dataset.select_columns(text_names).map(
        _text_columns,
        batched=True,
        with_indices=True,
        fn_kwargs={"source": source},
        features=Features({name: feature for name, feature in schema.items() if name != "images"}),
        desc="Reading rows",
    )
    given_types = list(dataset["problem_type"]) if "problem_type" in text_names else None
    _report_inferred(given_types, text["problem_type"], source)
    parts = [text, _image_lists(dataset, image_column, folder)]
    extras = [name for name in dataset.column_names if name not in (*COLUMNS, "image")]
    if extras:
        parts.append(dataset.select_columns(extras))
    return concatenate_datasets(parts, axis=1).select_columns([*schema, *extras])


def to_messages(
    row: Mapping[str, Any], system_prompt: str | None = None, user_prompt: str | None = None
) -> list[dict[str, Any]]:
    """The conversation of a row: a system message, if any, and the problem with its image placeholders.

    Images come first, or where the problem's `<image>` markers stand. Contents are always lists of parts: string and
    list contents can't live in one data set.

    Args:
        row: needs `problem` and `images`; `id` is used in messages.
        system_prompt: text of the system message.
        user_prompt: template of the user's message with `{problem}` in it; by default the problem alone.

    Raises:
        ValueError: the markers are not as many as the images, or the problem holds a `<video>` marker.
    """
    return _build_messages(row["problem"], len(row.get("images") or []), system_prompt, user_prompt, row.get("id"))


def add_prompts(dataset: Dataset, system_prompt: str | None = None, user_prompt: str | None = None) -> Dataset:
    """Add the column `prompt` (see :func:`to_messages`) without touching the images; an old one is replaced."""
    if "prompt" in dataset.column_names:
        dataset = dataset.remove_columns("prompt")
    text = dataset.select_columns(["id", "problem"]).add_column("num_images", count_images(dataset))
    prompts = text.map(
        _prompt_column,
        fn_kwargs={"system_prompt": system_prompt, "user_prompt": user_prompt},
        remove_columns=text.column_names,
        features=_PROMPT_FEATURES,
        desc="Building prompts",
    )
    return concatenate_datasets([dataset, prompts], axis=1)


def count_images(dataset: Dataset) -> list[int]:
    """The number of images of each row, without reading them."""
    batches = dataset.select_columns(["images"]).with_format("arrow").iter(1000)
    return [count or 0 for batch in batches for count in pc.list_value_length(batch["images"]).to_pylist()]


def _build_messages(
    problem: str, num_images: int, system_prompt: str | None, user_prompt: str | None, row_id: str | None
) -> list[dict]:
    pieces = (fill_prompt(user_prompt, problem=problem) if user_prompt else problem).split(IMAGE_MARKER)
    if VIDEO_MARKER in problem:
        raise ValueError(
            f"Row {row_id!r}: the problem holds a {VIDEO_MARKER} marker, but only images are supported. Put frames "
            f"into `images` and write {IMAGE_MARKER} for each."
        )
    if len(pieces) == 1:
        pieces = [""] * num_images + pieces
    if len(pieces) - 1 != num_images:
        raise ValueError(
            f"Row {row_id!r}: the problem holds {len(pieces) - 1} {IMAGE_MARKER} markers, but `images` holds "
            f"{num_images} images. Write one marker per image, or none to put all images before the text."
        )
    content = []
    for index, piece in enumerate(pieces):
        if index:
            content.append({"type": "image"})
        if piece:
            content.append({"type": "text", "text": piece})
    system = [{"role": "system", "content": [{"type": "text", "text": system_prompt}]}] if system_prompt else []
    return [*system, {"role": "user", "content": content}]


def _prompt_column(row: dict, system_prompt: str | None, user_prompt: str | None) -> dict:
    return {"prompt": _build_messages(row["problem"], row["num_images"], system_prompt, user_prompt, row["id"])}


def _check_names(names: Iterable[str], source: str) -> None:
    present = set(names)
    missing = [name for name in ("problem", "solution") if name not in present]
    if missing:
        raise ValueError(
            f"{source!r} has the columns {', '.join(sorted(present))}, but no {' and no '.join(map(repr, missing))}. "
            "Rename the columns that hold the question and the plain gold answer to `problem` and `solution`."
        )


def _refuse_videos(name: str, values: Iterable[Any]) -> None:
    index = next((index for index, value in enumerate(values) if value), None)
    if index is not None:
        raise ValueError(
            f"Row {index} has a video in column {name!r}, but only images are supported. Put frames of the video into "
            f"`images`, or drop the column."
        )


def _text_names(names: Iterable[str]) -> list[str]:
    present = set(names)
    return [name for name in COLUMNS if name in present and name != "images"]


def _text_columns(columns: Mapping[str, list], indices: Sequence[int], source: str) -> dict[str, list]:
    """Every column of the schema but `images`, for a batch of rows."""
    empty = [None] * len(indices)
    problems = [_as_text(value, "problem", index) for index, value in zip(indices, columns["problem"], strict=True)]
    golds = [_as_text(value, "solution", index) for index, value in zip(indices, columns["solution"], strict=True)]
    golds = [unwrap(gold) if "\\boxed" in gold else gold.strip() for gold in golds]
    types = [
        str(value).strip() if value is not None else infer_problem_type(extract_answer(gold) or gold, problem)
        for value, gold, problem in zip(columns.get("problem_type", empty), golds, problems, strict=True)
    ]
    ids = [
        f"{source}-{index}" if value is None else str(value)
        for index, value in zip(indices, columns.get("id", empty), strict=True)
    ]
    return {
        "id": ids,
        "problem": problems,
        "solution": golds,
        "problem_type": types,
        "source": [source if value is None else str(value) for value in columns.get("source", empty)],
        **{
            name: [_text_list(value, name, row_id) for row_id, value in zip(ids, columns[name], strict=True)]
            for name in OPTIONAL_COLUMNS
            if name in columns
        },
    }


def _as_text(value: Any, column: str, index: int) -> str:
    if isinstance(value, (list, dict)):
        raise ValueError(f"Row {index}: `{column}` is {value!r}, a {type(value).__name__}, but it must be one text.")
    return "" if value is None else str(value)


def _text_list(value: Any, column: str, row_id: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(
            f"Row {row_id!r}: `{column}` is {value!r:.100}, but it must be a list of texts. Split it "
            "(open_r1_vision.data.steps.split_steps does so for a written solution), or leave it out."
        )
    return value


def _report_inferred(given: Sequence[str | None] | None, types: Sequence[str], source: str) -> None:
    inferred = types if given is None else [new for old, new in zip(given, types, strict=True) if old is None]
    if len(inferred):
        counts = ", ".join(f"{name} {count}" for name, count in Counter(inferred).most_common())
        logger.warning(
            "%s: %d rows have no `problem_type`; inferred from the gold: %s.", source, len(inferred), counts
        )


def _image_lists(dataset: Dataset, column: str | None, folder: str | Path) -> Dataset:
    """The column `images` alone, as lists without gaps."""
    schema = Features({"images": List(Image())})
    if column is None:
        return Dataset.from_dict({"images": [[]] * len(dataset)}, features=schema)
    images = dataset.select_columns([column])
    feature = dataset.features[column]
    is_list_of_images = isinstance(feature, (List, LargeList)) and isinstance(feature.feature, Image)
    if column == "images" and is_list_of_images and feature.feature.decode and not _has_gaps(dataset):
        return images
    return (
        images.with_format("arrow")
        .map(
            _image_column,
            batched=True,
            batch_size=100,
            fn_kwargs={"folder": str(folder)},
            remove_columns=[column] if column != "images" else None,
            features=schema,
            desc="Reading images",
        )
        .with_format(None)
    )


def _image_column(table: pa.Table, folder: str) -> dict[str, list]:
    return {"images": [encode_images(value, folder) for value in table.column(0).to_pylist()]}


def _has_gaps(dataset: Dataset) -> bool:
    column = dataset.data.column("images")
    return column.null_count > 0 or any(chunk.flatten().null_count for chunk in column.chunks)
