# SPDX-License-Identifier: Apache-2.0
"""A folder in which a long run keeps what it was told: replies by row, and the settings that they hold for."""

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

REPLIES_FILE = "replies.jsonl"
SETTINGS_FILE = "settings.json"
_DRAFT = f".{SETTINGS_FILE}.tmp"


class ReplyFile:
    """Records by id in a JSONL file that one process at a time adds to; of several with one id the last counts.

    A line that was torn by a sudden end is cut off.

    Args:
        folder: made where it is missing.
        settings: what the replies depend on; kept beside them.
        overwrite: forget the replies that are there.

    Raises:
        ValueError: the folder belongs to other settings or to something else, another process writes to it, or a line
            is no record.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self.folder = Path(folder)
        written = json.dumps(settings, indent=1, ensure_ascii=False)
        self._check_folder(json.loads(written), overwrite)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / REPLIES_FILE
        self._file = self._path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ValueError(
                f"Another process is writing to {str(self._path)!r}: wait for it, or give another folder."
            ) from error
        if overwrite:
            self._file.truncate(0)
        self.records = self._read()
        (self.folder / _DRAFT).write_text(written, encoding="utf-8")
        os.replace(self.folder / _DRAFT, self.folder / SETTINGS_FILE)

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Add records, each with its `id`; they are on disk when this returns."""
        added = list(records)
        self._file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in added).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.update({record["id"]: record for record in added})

    def close(self) -> None:
        """Let another process write."""
        self._file.close()

    def _check_folder(self, settings: dict[str, Any], overwrite: bool) -> None:
        path = self.folder / SETTINGS_FILE
        if not path.exists():
            names = {item.name for item in self.folder.iterdir()} if self.folder.exists() else set()
            if names - {REPLIES_FILE, _DRAFT}:
                raise ValueError(
                    f"{str(self.folder)!r} is no folder of this command's, it holds {', '.join(sorted(names)[:5])}: "
                    "give another --output."
                )
            return
        held = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in {**held, **settings} if held.get(name) != settings.get(name)]
        if changed and not overwrite:
            differences = "; ".join(
                f"{name} was {held.get(name)!r:.80}, is {settings.get(name)!r:.80}" for name in changed
            )
            raise ValueError(
                f"{str(self.folder)!r} was begun with other settings: {differences}. Give another --output, go back "
                "to those settings, or start anew with --overwrite."
            )

    def _read(self) -> dict[str, dict[str, Any]]:
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            self._file.truncate(len(whole))
        records: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(whole.decode("utf-8", errors="replace").split("\n")[:-1], start=1):
            try:
                record = json.loads(line)
                records[record["id"]] = record
            except (ValueError, KeyError, TypeError) as error:
                self.close()
                raise ValueError(
                    f"Line {number} of {str(self._path)!r} is no reply ({error!r}): delete that line, and its row is "
                    "asked for anew."
                ) from error
        return records
