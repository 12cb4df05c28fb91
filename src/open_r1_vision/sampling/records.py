# SPDX-License-Identifier: Apache-2.0
"""The folder of a sampling run: one file that only grows for each process, and one that holds all when it is over.

| file | what is in it |
|---|---|
| `settings.json` | what decides the samples; a start with other ones is refused |
| `shard-00000.jsonl` | what process 0 wrote, in whichever start; a line is a sample, or a row that was left out |
| `samples.jsonl` | all of it, in the order of the rows; written when nothing is missing, and the shards deleted |

A line is `{"id", "sample", "completion", "num_tokens", "finish_reason"}` or `{"id", "refused"}`.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from open_r1_vision.files import drop_torn_line, short, write_whole
from open_r1_vision.runs import list_changes
from open_r1_vision.sampling.draws import Draw

SETTINGS_FILE = "settings.json"
SAMPLES_FILE = "samples.jsonl"
SHARDS = "shard-*.jsonl"
_LOCK_FILE = ".lock"
_LINE_FIELDS = ("id", "sample", "completion", "num_tokens", "finish_reason")

#: Where a line lies: file, first byte, bytes.
_Place = tuple[Path, int, int]


@dataclass
class Held:
    """What a folder holds.

    Attributes:
        samples: where each sample lies, by id and number.
        refused: where the line lies of each row that was left out, by id.
    """

    samples: dict[tuple[str, int], _Place] = field(default_factory=dict)
    refused: dict[str, _Place] = field(default_factory=dict)

    def missing(self, row_id: str, num_samples: int) -> list[int]:
        """The numbers of a row's samples that are not there; none of a row that was left out."""
        if row_id in self.refused:
            return []
        return [sample for sample in range(num_samples) if (row_id, sample) not in self.samples]

    def lines(self, ids: Iterable[str], num_samples: int) -> Iterator[bytes]:
        """The lines of rows, in their order."""
        with contextlib.ExitStack() as stack:
            files: dict[Path, BinaryIO] = {}
            for row_id in ids:
                places = [self.samples.get((row_id, sample)) for sample in range(num_samples)]
                for place in [self.refused.get(row_id)] if row_id in self.refused else places:
                    if place is None:
                        continue
                    path, start, length = place
                    if path not in files:
                        files[path] = stack.enter_context(path.open("rb"))
                    files[path].seek(start)
                    yield files[path].read(length)


class SampleFolder:
    """The folder of a run, for one of its processes. The main one calls `open` before any other calls `join`.

    Args:
        folder: made by `open`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock: BinaryIO | None = None
        self._shard_path: Path | None = None
        self._shard: BinaryIO | None = None

    def open(self, settings: Mapping[str, Any], overwrite: bool = False) -> list[str]:
        """Take the folder for this run.

        Args:
            settings: what decides the samples.
            overwrite: forget what is there.

        Returns:
            The files that lost a torn last line.

        Raises:
            ValueError: another run is working in it, it belongs to other settings, or it is no folder of samples.
        """
        now = json.loads(json.dumps(settings, default=str))
        self._check_owner()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take(fcntl.LOCK_EX)
        try:
            if overwrite:
                for path in [self.folder / SAMPLES_FILE, *self.folder.glob(SHARDS)]:
                    path.unlink(missing_ok=True)
            else:
                self._check_settings(now)
            write_whole(self.folder / SETTINGS_FILE, json.dumps(now, indent=1, sort_keys=True) + "\n")
            files = [*self.folder.glob(SAMPLES_FILE), *sorted(self.folder.glob(SHARDS))]
            torn = [path.name for path in files if drop_torn_line(path)]
            self._take(fcntl.LOCK_SH)
        except BaseException:
            self.close()
            raise
        return torn

    def join(self, rank: int) -> None:
        """Take part in the run as process `rank`; until `close`, no other run can take the folder."""
        self._take(fcntl.LOCK_SH)
        self._shard_path = self.folder / f"shard-{rank:05d}.jsonl"

    def add(self, draws: Iterable[Draw], refused: Mapping[str, str] | None = None) -> None:
        """Write samples, and the rows that were left out with the reason; they are on disk when this returns."""
        assert self._shard_path is not None, "join comes first"
        self._shard = self._shard or self._shard_path.open("ab")
        lines = [{name: getattr(draw, name) for name in _LINE_FIELDS} for draw in draws]
        lines += [{"id": row_id, "refused": reason} for row_id, reason in (refused or {}).items()]
        # escaped, so that no character of a completion ends a line
        self._shard.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        self._shard.flush()
        os.fsync(self._shard.fileno())

    def held(self) -> Held:
        """What is there, whoever wrote it; a torn last line is none.

        Raises:
            ValueError: a line is no sample.
        """
        held = Held()
        for path in [self.folder / SAMPLES_FILE, *sorted(self.folder.glob(SHARDS))]:
            if path.is_file():
                _read_places(path, held)
        return held

    def num_rows_done(self, seen: dict[Path, tuple[int, int]], num_samples: int) -> int:
        """Rows that are done, counted on from where `seen` says that the last call ended."""
        for path in [self.folder / SAMPLES_FILE, *self.folder.glob(SHARDS)]:
            if path.is_file():
                count, offset = seen.get(path, (0, 0))
                with path.open("rb") as file:
                    file.seek(offset)
                    data = file.read()
                # within a completion the quotation marks would be escaped
                count += data.count(b"\n") + (num_samples - 1) * data.count(b', "refused": "')
                seen[path] = (count, offset + len(data))
        return sum(count for count, _ in seen.values()) // num_samples

    def merge(self, ids: Sequence[str], num_samples: int) -> bool:
        """Put everything into one file if nothing is missing, and say whether. For the main process, at the end."""
        held = self.held()
        if any(held.missing(row_id, num_samples) for row_id in ids):
            return False
        shards = sorted(self.folder.glob(SHARDS))
        if shards:
            write_whole(self.folder / SAMPLES_FILE, held.lines(ids, num_samples))
            for path in shards:
                path.unlink()
        return True

    def close(self) -> None:
        """Let another run have the folder."""
        for file in (self._shard, self._lock):
            if file is not None:
                file.close()
        self._shard = self._lock = None

    def _take(self, kind: int) -> None:
        # exclusive while a run begins, shared while it lasts: what a killed run left alive keeps the next one out
        if self._lock is None:
            self._lock = (self.folder / _LOCK_FILE).open("ab")
        try:
            fcntl.flock(self._lock, kind | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise ValueError(
                f"Another run is writing to {str(self.folder)!r}: wait for it to end, or set another output_dir."
            ) from error

    def _check_owner(self) -> None:
        if (self.folder / SETTINGS_FILE).is_file() or not self.folder.exists():
            return
        names = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
        if names:
            raise ValueError(
                f"{str(self.folder)!r} is no folder of samples, it holds {', '.join(names[:5])}: set another "
                "output_dir, or empty the folder yourself."
            )

    def _check_settings(self, now: dict[str, Any]) -> None:
        if not (self.folder / SETTINGS_FILE).is_file():
            return
        before = read_settings(self.folder)
        changed = list_changes(before, now, short)
        if changed:
            raise ValueError(
                f"{str(self.folder)!r} holds samples that were drawn with other settings: {'; '.join(changed)}. Go "
                "back to those, set another output_dir, or overwrite_output: true to forget these samples."
            )


def read_settings(folder: str | Path) -> dict[str, Any]:
    """What decided the samples of a folder.

    Raises:
        ValueError: it is no folder of samples.
    """
    path = Path(folder) / SETTINGS_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{str(folder)!r} is no folder of samples ({error}): give the output_dir of open_r1_vision.sample."
        ) from error


def read_samples(lines: Iterable[bytes]) -> Iterator[Draw]:
    """The samples among lines, see :meth:`Held.lines`."""
    for line in lines:
        record = json.loads(line)
        if "refused" not in record:
            yield Draw(**record)


def read_refused(held: Held, ids: Iterable[str]) -> dict[str, str]:
    """Why each row that was left out was."""
    return {
        record["id"]: record["refused"]
        for record in map(json.loads, held.lines((row_id for row_id in ids if row_id in held.refused), 0))
    }


def _read_places(path: Path, held: Held) -> None:
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            place = (path, start, len(line))
            start += len(line)
            try:
                record = json.loads(line)
                if "refused" in record:
                    held.refused.setdefault(record["id"], place)
                else:
                    held.samples.setdefault((record["id"], int(record["sample"])), place)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"Line {number} of {str(path)!r} is no sample ({error!r}): delete that line, and what it held is "
                    "sampled again."
                ) from error
