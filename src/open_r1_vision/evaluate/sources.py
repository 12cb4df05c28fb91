# SPDX-License-Identifier: Apache-2.0
"""Rows of a benchmark from wherever they are: VLMEvalKit's tables, JSON, parquet, folders, the hub.

A row has its columns as they are in the source, its images apart from them, and a place for messages.
"""

import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.stored_images import from_value
from open_r1_vision.evaluate.tsv import read_list, read_table, table_images

#: Between a path or hub id and the split that is read from it: `AI4Math/MathVista::testmini`.
SPLIT_MARK = "::"
#: What published data sets call their index, in the order in which they are looked for.
INDEX_COLUMNS = ("index", "pid", "id", "question_id", "sample_index")
_IMAGE_COLUMN = re.compile(r"images?|decoded_image|image_\d+|image_path", re.ASCII)


@dataclass(frozen=True)
class Row:
    """A row of a source.

    Attributes:
        place: file and number, for messages.
        columns: as the source has them, without images.
        images: see :class:`open_r1_vision.evaluate.items.Item`.
    """

    place: str
    columns: Mapping[str, Any]
    images: tuple[Any, ...]

    def text(self, *names: str) -> str:
        """The first of these columns that holds something, as text; empty where none does."""
        values = (self.columns.get(name) for name in names)
        return next((str(value) for value in values if value is not None and str(value) != ""), "")

    def texts(self, *names: str) -> list[str]:
        """The first of these columns that holds something, as a list: a list, or a Python list written in a cell."""
        for name in names:
            value = self.columns.get(name)
            if isinstance(value, str) and value.strip() not in ("", "None", "nan"):
                return [str(one) for one in read_list(value, f"{self.place}: column {name!r}")]
            if isinstance(value, (list, tuple)) and value:
                return [str(one) for one in value]
        return []

    def options(self) -> dict[str, str]:
        """Text by letter: from the columns A, B, C and so on, else from the lists `choices` or `options`."""
        by_column = {letter: self.text(letter) for letter in string.ascii_uppercase if self.text(letter)}
        return by_column or letter_options(self.texts("choices", "options"))


def letter_options(texts: Iterable[str]) -> dict[str, str]:
    """Options by letter, from A on."""
    return dict(zip(string.ascii_uppercase, texts, strict=False))


def read_rows(path: str | Path, splits: tuple[str, ...] = ("test",)) -> list[Row]:
    """Read a source.

    Args:
        path: a table (`.tsv`, `.csv`), a JSON or JSONL file, a parquet file, a folder of them, a folder written by
            `save_to_disk`, or a hub id; `::` and the name of a split may follow.
        splits: where the source has several and none is named, the first of these that it has.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a row can't be read, or something is no image.
    """
    name, _, split = str(path).partition(SPLIT_MARK)
    file = Path(name).expanduser()
    if file.suffix in (".tsv", ".csv"):
        table = read_table(file)
        places = [table.place(number) for number in range(len(table.rows))]
        images = table_images(table)
        return [Row(*parts) for parts in zip(places, table.rows, images, strict=True)]
    if file.is_file() and file.suffix in (".json", ".jsonl"):
        return _from_json(file)
    return _from_dataset(name, (split,) if split else splits)


def _from_json(file: Path) -> list[Row]:
    from open_r1_vision.data.loading import read_json

    rows = []
    for number, record in enumerate(read_json(file)):
        place = f"{str(file)!r}, row {number + 1}"
        names = [name for name in record if _IMAGE_COLUMN.fullmatch(name)]
        images = _images({name: record[name] for name in names}, file.parent, place)
        columns = {name: value for name, value in record.items() if name not in names}
        rows.append(Row(place, _with_index(columns, number), images))
    return rows


def _from_dataset(name: str, splits: tuple[str, ...]) -> list[Row]:
    """The rows of a data set; its images stay encoded until they are needed."""
    from datasets import Image, List

    dataset = _load_any(name, splits)
    encoded = {}
    for column, feature in dataset.features.items():
        if isinstance(feature, Image):
            encoded[column] = Image(decode=False)
        elif isinstance(feature, List) and isinstance(feature.feature, Image):
            encoded[column] = List(Image(decode=False))
    for column, feature in encoded.items():
        dataset = dataset.cast_column(column, feature)
    # where pixels are in one column, a text such as `images/1.jpg` in another is only their name
    names = list(encoded) or [column for column in dataset.column_names if _IMAGE_COLUMN.fullmatch(column)]
    folder = Path(name).expanduser()
    folder = folder if folder.is_dir() else folder.parent
    rows = []
    for number, record in enumerate(dataset):
        place = f"{name!r}, row {number + 1}"
        images = _images({column: record[column] for column in names}, folder, place)
        columns = {column: value for column, value in record.items() if column not in names}
        rows.append(Row(place, _with_index(columns, number), images))
    return rows


def _load_any(name: str, splits: tuple[str, ...]) -> Any:
    from open_r1_vision.data.loading import load_table

    for split in splits[:-1]:
        try:
            return load_table(name, split)
        except ValueError:  # no such split
            continue
    return load_table(name, splits[-1])


def _images(columns: Mapping[str, Any], folder: Path, place: str) -> tuple[Any, ...]:
    values: list[Any] = []
    for value in columns.values():
        values += value if isinstance(value, (list, tuple)) else [value]
    return tuple(from_value(value, folder, place) for value in values if value is not None and value != "")


def _with_index(columns: dict[str, Any], number: int) -> dict[str, Any]:
    """Columns with an `index`; where no column of the source is one, the row's number from 0 on."""
    name = next((name for name in INDEX_COLUMNS if columns.get(name) not in (None, "")), None)
    return {**columns, "index": str(number if name is None else columns[name])}
