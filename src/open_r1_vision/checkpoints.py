# SPDX-License-Identifier: Apache-2.0
"""Whole and torn checkpoints.

A checkpoint is whole when its marker lists every file with its size, and the files still have these sizes. The marker
is written last and renamed into place, so a run that was killed while saving leaves a folder that is known to be torn.
"""

import json
import logging
import os
import re
import shutil
from pathlib import Path

from open_r1_vision.distributed import is_main_process

logger = logging.getLogger(__name__)

MARKER = "COMPLETE.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def mark_complete(checkpoint: Path) -> None:
    """Flush every file of a checkpoint to disk, then write the marker with their sizes."""
    sizes = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.name != MARKER:
            _flush(path)
            sizes[str(path.relative_to(checkpoint))] = path.stat().st_size
    draft = checkpoint / f".{MARKER}.tmp"
    draft.write_text(json.dumps(sizes, indent=1), encoding="utf-8")
    _flush(draft)
    draft.rename(checkpoint / MARKER)
    _flush(checkpoint)


def mark_incomplete(checkpoint: Path) -> None:
    """Take the marker away before a checkpoint is written anew."""
    (checkpoint / MARKER).unlink(missing_ok=True)


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in words, or None when it is whole."""
    marker = checkpoint / MARKER
    if not marker.is_file():
        return "the run ended while it was being saved"
    try:
        sizes = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError:
        return f"{MARKER} can't be read"
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first."""
    found = [(match, path) for path in output_dir.glob("checkpoint-*") if (match := _CHECKPOINT.fullmatch(path.name))]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found)]


def find_last_whole(output_dir: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None; torn ones are named in a warning and skipped."""
    for checkpoint in reversed(list_checkpoints(output_dir)):
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint
        if is_main_process():
            logger.warning("Skipping the torn checkpoint %s: %s.", checkpoint, damage)
    return None


def rotate(output_dir: Path, limit: int | None, best: Path | None = None) -> None:
    """Delete the oldest checkpoints until `limit` whole ones are left; None keeps all. Torn ones are deleted too.

    The newest stays, and so does `best`.
    """
    if not limit:
        return
    checkpoints = list_checkpoints(output_dir)
    whole = [path for path in checkpoints if find_damage(path) is None]
    kept = whole[-limit:]
    if best in whole and best not in kept:
        kept = [best, *whole[-max(limit - 1, 1) :]]
    for path in set(checkpoints) - set(kept):
        shutil.rmtree(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
