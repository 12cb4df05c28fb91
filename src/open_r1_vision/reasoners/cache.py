# SPDX-License-Identifier: Apache-2.0
"""Replies on disk, shared by several processes: one SQLite file with a write-ahead log.

SQLite rather than a folder of files or of pickles: it is in the standard library, a reader never waits for a writer, a
process that is killed while writing leaves the last whole transaction, and nothing that is read back is ever executed.
The write-ahead log wants a local disk. A cache that fails costs time, never a verdict: faults are logged and count as
misses.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

_BUSY_SECONDS = 5.0
#: SQLite before 3.32 takes no more parameters in one statement.
_KEYS_PER_QUERY = 900
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS replies (key BLOB PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, "
    "finish_reason TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID"
)
#: Connections that a fork copied: closing one here could disturb the parent's.
_inherited: list[sqlite3.Connection] = []


class ReplyCache:
    """A cache file. May be used from several threads, and after a fork.

    Args:
        path: the file; it and its folder are made where they are missing.

    Raises:
        ValueError: the file is no cache, or can't be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        #: Failed reads and writes so far.
        self.num_faults = 0
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.get([b""])
            if self.num_faults:
                self._open()
        except (sqlite3.Error, OSError) as error:
            raise ValueError(
                f"The cache {str(self.path)!r} can't be used ({error}). Set `cache` to a path on a local disk that "
                "can be written, and delete the file if it is damaged: replies are asked for anew."
            ) from error

    def get(self, keys: Sequence[bytes]) -> dict[bytes, tuple[str, str]]:
        """Text and finish reason of those keys that are there."""
        found: dict[bytes, tuple[str, str]] = {}
        try:
            with self._own_lock():
                connection = self._open()
                for start in range(0, len(keys), _KEYS_PER_QUERY):
                    part = list(keys[start : start + _KEYS_PER_QUERY])
                    marks = ",".join("?" * len(part))
                    query = f"SELECT key, text, finish_reason FROM replies WHERE key IN ({marks})"
                    found.update((key, (text, reason)) for key, text, reason in connection.execute(query, part))
        except sqlite3.Error as error:
            self._note("read", error)
            return {}
        return found

    def put(self, replies: Sequence[tuple[bytes, str, str, str]]) -> None:
        """Keep replies, each with key, model, text and finish reason, all or none; the last one of a key stays."""
        now = time.time()
        try:
            with self._own_lock():
                connection = self._open()
                # as a writer from the beginning, so that it waits its turn
                connection.execute("BEGIN IMMEDIATE")
                try:
                    connection.executemany(
                        "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", [(*reply, now) for reply in replies]
                    )
                    connection.execute("COMMIT")
                except sqlite3.Error:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
        except sqlite3.Error as error:
            self._note("written", error)

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        with self._own_lock():
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _own_lock(self) -> threading.Lock:
        """The lock of this process; a fork may have copied a lock that is held, and a connection of the parent."""
        if self._process != os.getpid():
            if self._connection is not None:
                _inherited.append(self._connection)
            self._connection, self._lock, self._process = None, threading.Lock(), os.getpid()
        return self._lock

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                _set_up(connection)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _note(self, what: str, error: sqlite3.Error) -> None:
        self.num_faults += 1
        if self.num_faults == 1:
            logger.warning(
                "The cache %s can't be %s: %s. Replies are asked for anew. Said once.", self.path, what, error
            )


def _set_up(connection: sqlite3.Connection) -> None:
    """Write-ahead log and table, waiting for other processes that set up the same new file.

    SQLite's own timeout doesn't hold here: of several processes that turn a file to a write-ahead log at once, all but
    one are told at once that it is locked.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(_SCHEMA)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
