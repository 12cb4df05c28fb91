# SPDX-License-Identifier: Apache-2.0
"""Load rows from wherever they are: files, folders, the hub, or a Python callable."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, ReadInstruction, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from pyarrow import ArrowInvalid
from pyarrow.parquet import read_metadata

from open_r1_vision.data import visionary_r1
from open_r1_vision.data.rows import normalise_rows, rows_from_list
from open_r1_vision.importing import import_callable, is_dotted_path

FILE_SUFFIXES = (".parquet", ".json", ".jsonl")
#: One module per published layout, each with `matches(dataset)` and `convert(dataset, source, folder)`.
CONVERTERS = (visionary_r1,)

_SPLIT_NAMES = ("train", "training", "validation", "valid", "val", "dev", "test", "eval")


def load_rows(name: str, split: str = "train", **kwargs: Any) -> Dataset:
    """Load a data set and turn it into the row schema (see :mod:`open_r1_vision.data.rows`).

    Args:
        name: a parquet, JSON or JSONL file, or a folder of them; a folder written by `save_to_disk`; the dotted path
            of a callable that takes `split` and returns a data set or a list of dictionaries; or a hub id. A local
            path comes before a hub id of the same name. Image paths in files start at the file's folder.
        split: may have a slice, `train[:100]`. In a folder, files belong to the split that starts their name or names
            their subfolder; where no name does, they all are `train`. A single file is whatever split is asked for.
        kwargs: for the callable, or for `datasets.load_dataset` with a hub id.

    Raises:
        FileNotFoundError: nothing is there, or the hub can't be reached.
        ValueError: what is there can't be read as rows.
    """
    return as_rows(load_table(name, split, **kwargs), name)


def as_rows(dataset: Dataset, name: str) -> Dataset:
    """Turn what :func:`load_table` gave for a name into the row schema."""
    path = Path(name).expanduser()
    folder = path if path.is_dir() else path.parent
    source = path.stem if path.exists() else name
    for converter in CONVERTERS:
        if converter.matches(dataset):
            return converter.convert(dataset, source, folder)
    return normalise_rows(dataset, source, folder)


def load_table(name: str, split: str = "train", **kwargs: Any) -> Dataset:
    """Load a data set with the columns it has; arguments and errors are those of :func:`load_rows`."""
    path = Path(name).expanduser()
    is_local = path.exists()
    if is_local and kwargs:
        raise ValueError(
            f"The options {kwargs} have no effect on the local path {name!r}: they are for callables and the hub. "
            "Leave them out; where a recipe has them, --dataset_options {} (or --eval_dataset_options {}) does."
        )
    split_name, _, part = split.partition("[")
    if is_local:
        dataset = _load_local(path, split_name, path.stem)
    elif is_dotted_path(name) and path.suffix not in FILE_SUFFIXES:
        dataset = _load_callable(name, split_name, kwargs)
    else:
        _refuse_missing_path(name, path)
        dataset = _load_hub(name, split_name, kwargs)
    return _slice(dataset, split) if part else dataset


def _load_local(path: Path, split: str, source: str) -> Dataset:
    if path.is_file():
        return _load_files([path], source)
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        loaded = load_from_disk(str(path))
        return _choose_split(loaded, split, path) if isinstance(loaded, DatasetDict) else loaded
    files = {file: file.relative_to(path).parts[0] for file in sorted(path.rglob("*")) if file.suffix in FILE_SUFFIXES}
    if not files:
        raise ValueError(
            f"The folder {str(path)!r} can't be read as rows: it holds neither a data set written by `save_to_disk` "
            f"nor files ending in {', '.join(FILE_SUFFIXES)}."
        )
    chosen = [file for file, name in files.items() if _starts_with(name, (split,))]
    if not chosen and split == "train" and not any(_starts_with(name, _SPLIT_NAMES) for name in files.values()):
        chosen = list(files)
    if not chosen:
        raise ValueError(
            f"No file of the folder {str(path)!r} belongs to the split {split!r}: it holds "
            f"{', '.join(sorted(set(files.values()))[:8])}. Set the split to a word that starts one of these names, "
            "or give the path of one file."
        )
    return _load_files(chosen, source)


def _starts_with(name: str, splits: tuple[str, ...]) -> bool:
    return any(re.match(rf"{re.escape(split)}(?![A-Za-z])", name) for split in splits)


def _load_files(files: list[Path], source: str) -> Dataset:
    suffixes = {file.suffix for file in files}
    if suffixes == {".parquet"}:
        return _load_parquet(files)
    if ".parquet" in suffixes or not suffixes <= set(FILE_SUFFIXES):
        raise ValueError(
            f"{', '.join(file.name for file in files[:8])} can't be read together: give parquet files, or JSON and "
            "JSONL files."
        )
    rows = [row for file in files for row in read_json(file)]
    return rows_from_list(rows, source, files[0].parent)


def _load_parquet(files: list[Path]) -> Dataset:
    try:
        return load_dataset("parquet", data_files=[str(file) for file in files], split="train")
    except (ArrowInvalid, DatasetsError) as error:
        for file in files:
            _refuse_broken_parquet(file)
        named = ", ".join(str(file) for file in files[:8])
        raise ValueError(
            f"{named} can't be read as parquet ({str(error.__cause__ or error).splitlines()[0]}): fetch or write it "
            "anew; several files must have the same columns."
        ) from error


def _refuse_broken_parquet(file: Path) -> None:
    """Name a file that was cut off, or that is no parquet: its end, where the columns are listed, can't be read."""
    try:
        read_metadata(file)
    except (ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{str(file)!r} is no whole parquet file ({str(error).splitlines()[0].rstrip('.')}): it was cut off, or "
            "is something else. Fetch or write it anew, or set `dataset` to another one."
        ) from error


def read_json(file: Path) -> list[dict]:
    """The rows of a file that holds a JSON list of objects, or one object per line.

    Raises:
        ValueError: a line is not JSON, or something that is no object stands where a row must.
    """
    text = file.read_text(encoding="utf-8-sig")
    is_list = text.lstrip().startswith("[")
    chunks = [text] if is_list else text.split("\n")
    rows: list = []
    for number, chunk in enumerate(chunks, start=1):
        if not chunk.strip():
            continue
        try:
            value = json.loads(chunk)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{str(file)!r}, line {number + error.lineno - 1}: this is not JSON ({error.msg}). The file must hold "
                "a list of objects, or one object per line."
            ) from error
        rows.extend(value if is_list else [value])
    wrong = next((row for row in rows if not isinstance(row, dict)), None)
    if wrong is not None:
        raise ValueError(f"{str(file)!r} holds {wrong!r:.80} where an object with the row's columns must stand.")
    return rows


def _choose_split(loaded: DatasetDict, split: str, path: Path) -> Dataset:
    if split not in loaded:
        raise ValueError(f"{str(path)!r} has no split {split!r}: choose one of {', '.join(map(repr, loaded))}.")
    return loaded[split]


def _load_callable(name: str, split: str, kwargs: dict[str, Any]) -> Dataset:
    function = import_callable(name)
    try:
        inspect.signature(function).bind(split=split, **kwargs)
    except TypeError as error:
        raise ValueError(
            f"{name!r} can't be called with split={split!r} and the options {kwargs}: {error}. Its signature is "
            f"{inspect.signature(function)}."
        ) from error
    result = function(split=split, **kwargs)
    if isinstance(result, list):
        return rows_from_list(result, name)
    if not isinstance(result, Dataset):
        raise ValueError(
            f"{name!r} returned a {type(result).__name__}: it must return a `datasets.Dataset` or a list of "
            "dictionaries."
        )
    return result


def _refuse_missing_path(name: str, path: Path) -> None:
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or path.suffix in FILE_SUFFIXES
    if looks_local or Path(path.parts[0]).is_dir():
        raise FileNotFoundError(
            f"There is no such file or folder: {name!r} (looked at {str(path.absolute())!r}). Set `dataset` to a "
            "file, a folder, the dotted path of a callable, or a hub id of the form owner/name."
        )


def _load_hub(name: str, split: str, kwargs: dict[str, Any]) -> Dataset:
    try:
        return load_dataset(name, split=split, **kwargs)
    except (FileNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"{name!r} is neither a local file or folder nor a data set that the hub gave ({error}). Without a "
            "network, set `dataset` to a local path."
        ) from error


def _slice(dataset: Dataset, split: str) -> Dataset:
    """Cut out what stands in brackets after the split's name, as `datasets` reads it."""
    name = split.partition("[")[0]
    (instruction,) = ReadInstruction.from_spec(split).to_absolute({name: len(dataset)})
    return dataset.select(range(instruction.from_ or 0, len(dataset) if instruction.to is None else instruction.to))
