# SPDX-License-Identifier: Apache-2.0
"""A JSONL file that several processes add lines to."""

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class RequestLog:
    """Adds records to a file, each on a line of its own, whole, in the order of writing.

    Args:
        path: the file; it and its folder are made where they are missing.

    Raises:
        ValueError: it can't be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        #: Writes that failed so far.
        self.num_faults = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append(b"")
        except OSError as error:
            raise ValueError(f"The log {str(self.path)!r} can't be written ({error}): set `log` elsewhere.") from error

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add records. A fault, such as a full disk, is logged once and counted; the run goes on."""
        lines = "".join(json.dumps(record, ensure_ascii=False, default=str) + "\n" for record in records)
        try:
            self._append(lines.encode(errors="replace"))
        except OSError as error:
            self.num_faults += 1
            if self.num_faults == 1:
                logger.warning("The log %s can't be written: %s. Its lines are lost. Said once.", self.path, error)

    def _append(self, data: bytes) -> None:
        # opened anew each time: the file may be moved away, and nothing is shared with a fork
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)
