# SPDX-License-Identifier: Apache-2.0
"""Files that outlive a kill: written whole or not at all, or by lines of which only the last can be torn."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | Iterable[bytes]) -> str:
    """Write a file whole or not at all; returns its SHA-256."""
    digest = hashlib.sha256()
    draft = path.with_name(f".{path.name}.tmp")
    with draft.open("wb") as file:
        for part in [content.encode()] if isinstance(content, str) else content:
            digest.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    return digest.hexdigest()


def drop_torn_line(path: Path) -> bool:
    """Cut off what stands behind the last line's end; whether there was something."""
    with path.open("r+b") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)
        return whole < len(data)


def short(value: Any) -> str:
    """How a value is shown where many stand in one message: at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
