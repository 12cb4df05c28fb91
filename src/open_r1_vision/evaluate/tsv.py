# SPDX-License-Identifier: Apache-2.0
"""Tables in VLMEvalKit's layout: tab-separated with csv quoting, one row an item, images as base64 in a cell.

Every cell stays the text that it is: "None", "nan" and "N/A" are texts, an empty cell is the empty text. Cells may be
of any length and hold tabs, line breaks and quotes.

The column `image` holds base64, a Python list of base64, or, in at most 64 characters, the `index` of the row whose
image this one shares. `image_path` holds a path or a list of paths, from the file's folder.
"""

import ast
import contextlib
import csv
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.stored_images import StoredImage, from_base64, from_value

IMAGE_COLUMNS = ("image", "image_path")
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
#: Longer cells are images, shorter ones the index of another row.
MAX_REFERENCE_CHARS = 64


@dataclass(frozen=True)
class Table:
    """A table as it stands in its file.

    Attributes:
        path: the file.
        columns: names, in order.
        rows: cells by column.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]

    def place(self, number: int) -> str:
        """Where a row is, for messages; rows count from 1, the header is none."""
        index = self.rows[number].get("index", "")
        return f"{str(self.path)!r}, row {number + 1}" + (f" (index {index})" if index else "")


def read_table(path: Path, md5: str | None = None, whole_numbers: bool = True) -> Table:
    """Read a table; its rows have unique indices.

    Args:
        path: the file. If `<path>.md5` lies beside it, as `md5sum` writes it, the file must have that sum.
        md5: the sum that the file must have.
        whole_numbers: put indices that are all whole numbers into one form.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another sum, or a table that has no index, twice the same, or cells that no column names.
    """
    table = read_cells(path, md5)
    if "index" not in table.columns:
        raise ValueError(
            f"{str(path)!r} has the columns {', '.join(table.columns)}, but no 'index'. Give a table in VLMEvalKit's "
            "layout: a header, tabs, and a unique index in every row."
        )
    _normalise_indices(table, whole_numbers)
    seen: dict[str, int] = {}
    for number, row in enumerate(table.rows):
        if not row["index"]:
            raise ValueError(f"{table.place(number)}: the index is empty. Give each row a unique one.")
        if row["index"] in seen:
            raise ValueError(
                f"{table.place(number)}: row {seen[row['index']] + 1} has this index too. Indices must be unique; "
                "remove one of the two rows, or number them anew."
            )
        seen[row["index"]] = number
    return table


def read_cells(path: Path, md5: str | None = None) -> Table:
    """Read a table that need not have an index; arguments and errors are otherwise those of :func:`read_table`."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {str(path)!r} (looked at {str(path.absolute())!r}): give the path of the table."
        )
    _check_md5(path, md5)
    delimiter = "," if path.suffix == ".csv" else "\t"
    with unlimited_cells(), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader((line.replace("\0", "") for line in file), delimiter=delimiter, strict=True)
        try:
            columns = tuple(next(reader, ()))
            if not columns or len(set(columns)) < len(columns):
                raise ValueError(
                    f"{str(path)!r} starts with the header {', '.join(columns) or 'of an empty file'}: it must name "
                    "each column once."
                )
            rows = [_as_row(path, columns, cells, number) for number, cells in enumerate(reader, start=1) if cells]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"{str(path)!r}, near line {reader.line_num}: this can't be read as a table ({error}). Give text in "
                "UTF-8 with tabs between the cells."
            ) from error
    if not rows:
        raise ValueError(f"{str(path)!r} has a header but no rows: fetch the file anew.")
    return Table(path, columns, rows)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table, whole or not at all; what is not in a row is an empty cell.

    Everything is quoted, so that each text comes back as it was, carriage returns too. Only NUL, which no table can
    hold, and halves of surrogate pairs are replaced by U+FFFD.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    with draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_clean(row.get(column, "")) for column in columns])
    draft.replace(path)


def table_images(table: Table) -> list[tuple[StoredImage, ...]]:
    """The images of each row, looked at but not decoded; none where both image columns are empty.

    The columns `image` and `image_path` are taken out of the rows, since they are most of the table.

    Raises:
        ValueError: something is no image, or refers to a row that has none.
    """
    numbers = {row["index"]: number for number, row in enumerate(table.rows)}
    cells = [row.pop("image", "") for row in table.rows]
    paths = [row.pop("image_path", "") for row in table.rows]
    found: dict[int, tuple[StoredImage, ...]] = {}
    for number, cell in enumerate(cells):
        owner = _owner(table, number, cells, numbers)
        if owner not in found:
            found[owner] = _decode(table, owner, cells[owner], paths[owner])
        found[number] = found[owner] or _decode(table, number, "", paths[number])
        if cell and not found[number]:
            raise ValueError(f"{table.place(number)}: the image refers to {cell!r}, a row without image.")
    return [found[number] for number in range(len(cells))]


def read_list(text: str, place: str) -> list[Any]:
    """A Python list that stands in a cell; never evaluated, only read.

    Raises:
        ValueError: it is none.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"{place}: {text!r:.80} should be a Python list, but can't be read: {error}.") from error
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{place}: {text!r:.80} should be a Python list, but is a {type(value).__name__}.")
    return list(value)


@contextlib.contextmanager
def unlimited_cells() -> Iterator[None]:
    """Lift csv's limit of 128 kB a cell, which is the whole process's, for a while."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _check_md5(path: Path, md5: str | None) -> None:
    beside = path.with_name(path.name + ".md5")
    if md5 is None and beside.is_file():
        md5 = (beside.read_text(encoding="utf-8").split() or [""])[0]
    if md5 is None:
        return
    with path.open("rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while block := file.read(2**20):
            digest.update(block)
    found = digest.hexdigest()
    if found != md5.lower():
        raise ValueError(
            f"{str(path)!r} has the MD5 sum {found}, but {md5} is expected: it is another version, or was cut off. "
            f"Fetch it anew; if it is meant to differ, remove {beside.name!r} or give its own sum."
        )


def _as_row(path: Path, columns: tuple[str, ...], cells: list[str], number: int) -> dict[str, str]:
    if len(cells) != len(columns):
        raise ValueError(
            f"{str(path)!r}, row {number}: {len(cells)} cells under {len(columns)} columns. A tab or a quote in a "
            "cell must be quoted, and a file that was cut off fetched anew."
        )
    return dict(zip(columns, cells, strict=True))


def _normalise_indices(table: Table, whole_numbers: bool) -> None:
    """Whole numbers in one form where all are: `007` and `7.0`, which spreadsheets make of 7, are 7."""
    texts = [row["index"].strip() for row in table.rows]
    numbers = [as_whole_number(text) for text in texts]
    all_whole = whole_numbers and None not in numbers
    for row, text, number in zip(table.rows, texts, numbers, strict=True):
        row["index"] = (number or "") if all_whole else text


def as_whole_number(text: str) -> str | None:
    """The usual form of a whole number; None where the text is none."""
    whole, _, rest = text.strip().partition(".")
    return str(int(whole)) if whole.isascii() and whole.isdigit() and not rest.strip("0") else None


def _owner(table: Table, number: int, cells: list[str], numbers: Mapping[str, int]) -> int:
    """The row whose images a row shows: itself, or the one it refers to."""
    seen = []
    owner = number
    while cells[owner].strip() and len(cells[owner]) <= MAX_REFERENCE_CHARS:
        if owner in seen:
            raise ValueError(
                f"{table.place(number)}: the image refers to itself through other rows. Give it an image."
            )
        seen.append(owner)
        target = cells[owner].strip()
        key = target if target in numbers else as_whole_number(target) or ""
        if key not in numbers:
            raise ValueError(
                f"{table.place(owner)}: the image is {target!r}, which is too short for an image and not the index of "
                "another row. Put base64 there, or an index."
            )
        owner = numbers[key]
    return owner


def _decode(table: Table, number: int, cell: str, path: str) -> tuple[StoredImage, ...]:
    place = table.place(number)
    if cell.strip():
        payloads = read_list(cell, place) if cell.lstrip().startswith("[") else [cell]
        return tuple(from_base64(str(payload), place) for payload in payloads)
    if path.strip():
        paths = read_list(path, place) if path.lstrip().startswith("[") else [path.strip()]
        return tuple(from_value(str(one), table.path.parent, place) for one in paths)
    return ()


def _clean(value: Any) -> str:
    return _UNWRITABLE.sub("\ufffd", "" if value is None else str(value))
