# SPDX-License-Identifier: Apache-2.0
"""The output folder of a run: whose it is, and whether to start, resume, or leave it alone."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from open_r1_vision import checkpoints
from open_r1_vision.files import write_whole
from open_r1_vision.reasoners.config import DECIDING

RUN_FILE = "run.json"
RESULTS_FILE = "results.json"
LOCK_FILE = ".lock"
#: Settings that may change between a start and a resume without making it another run.
_FREE_SETTINGS = {
    *("output_dir", "overwrite_output", "report_to", "run_name", "logging_steps", "save_steps", "save_total_limit"),
    *("check_rows", "ddp_timeout", "disable_tqdm", "dataloader_num_workers", "log_image_size"),
}
#: Blocks of a text model, and what of them makes it another run: not where it is asked, nor within which limits, so
#: that a run whose server moved goes on.
_BLOCKS = ("reasoner", "fact_judge", "description_judge")
_OF_A_BLOCK = (*DECIDING, "on_failure")
#: What this process has taken: a notebook may start a run again after it failed.
_TAKEN: dict[Path, TextIO] = {}


@dataclass(frozen=True)
class RunState:
    """What an output folder holds: a finished run, a checkpoint to go on from, or neither.

    Attributes:
        finished: the run is over and has its results.
        checkpoint: the last whole one, None where there is none.
        obsolete: the folder holds a run that may be deleted, once the new one is ready to start.
    """

    finished: bool
    checkpoint: Path | None
    obsolete: bool = False


def open_run(output_dir: Path, settings: dict[str, Any], overwrite: bool) -> RunState:
    """Look at an output folder before anything is written to it; nothing is deleted here, see :func:`take_run`.

    Args:
        output_dir: folder of the run.
        settings: the recipe's keys with the command line's on top, and the number of processes.
        overwrite: another run, or a finished one, may be deleted. The same run unfinished goes on nevertheless.

    Raises:
        ValueError: the folder holds another run, or files that are no run; or a file is in its place.
    """
    run_file = output_dir / RUN_FILE
    barrier = next((path for path in (output_dir, *output_dir.parents) if path.exists()), output_dir)
    if barrier.is_file():
        raise ValueError(f"output_dir is {output_dir}, but {barrier} is a file: set output_dir to a folder.")
    if not any(path.is_file() and path != output_dir / LOCK_FILE for path in output_dir.rglob("*")):
        return RunState(finished=False, checkpoint=None)
    if not run_file.is_file():
        raise ValueError(
            f"{output_dir} holds files, but no {RUN_FILE} of a run, and only runs are ever deleted: set another "
            "output_dir, or empty the folder yourself."
        )
    try:
        before = json.loads(run_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{run_file} can't be read, so it is unknown whose run that is: set another output_dir, or delete the "
            f"folder yourself ({error})."
        ) from error
    before, now = comparable(before), comparable(settings)
    changed = list_changes(before, now)
    finished = (output_dir / RESULTS_FILE).is_file()
    if overwrite and (changed or finished):
        return RunState(finished=False, checkpoint=None, obsolete=True)
    if changed:
        raise ValueError(
            f"{output_dir} holds another run; it differs in {'; '.join(changed)}. Set another output_dir, or "
            "overwrite_output: true to delete that run."
        )
    return RunState(finished, checkpoints.find_last_whole(output_dir))


def list_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], show: Callable[[Any], str] = str, unset: Any = "unset"
) -> list[str]:
    """How settings differ: `key: before -> now` for each that does, sorted by key.

    Args:
        before: settings.
        now: settings.
        show: writes a value.
        unset: stands for a value that is not there.
    """
    return [
        f"{key}: {show(before.get(key, unset))} -> {show(now.get(key, unset))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def take_run(output_dir: Path, obsolete: bool = False) -> TextIO:
    """Take an output folder for this process, until the file that is returned is closed or the process ends.

    What this process has taken before it takes anew.

    Args:
        output_dir: folder of the run.
        obsolete: whether to delete the run in it, see :class:`RunState`.

    Raises:
        ValueError: another process has taken it; nothing is deleted then.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    if output_dir.resolve() in _TAKEN:
        _TAKEN.pop(output_dir.resolve()).close()
    lock = (output_dir / LOCK_FILE).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ValueError(
            f"{output_dir} is being written by another run: wait for it, end it, or set another output folder."
        ) from error
    _TAKEN[output_dir.resolve()] = lock
    for path in output_dir.iterdir() if obsolete else ():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:  # a new one would be another lock
            path.unlink()
    return lock


def require_shared(output_dir: Path, seconds: float = 60.0) -> None:
    """On the other machines of a run: find the output folder that the first one has taken.

    Args:
        output_dir: folder of the run, after :func:`take_run` there.
        seconds: how long a network file system may take to show it.

    Raises:
        ValueError: it is not there, so that checkpoints would be scattered over the machines.
    """
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        return
    deadline = time.monotonic() + seconds
    while not (output_dir / LOCK_FILE).is_file():
        if time.monotonic() > deadline:
            raise ValueError(
                f"This machine does not see the output folder {output_dir} of the run, which runs on several: set "
                "output_dir to a folder that all of them share, since each writes its part of a checkpoint there."
            )
        time.sleep(0.5)


def write_run(output_dir: Path, settings: dict[str, Any]) -> None:
    """Note whose folder this is."""
    output_dir.mkdir(parents=True, exist_ok=True)
    write_whole(output_dir / RUN_FILE, json.dumps(comparable(settings), indent=1, sort_keys=True))


def comparable(settings: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in settings.items() if key not in _FREE_SETTINGS}
    for name in _BLOCKS:
        block = _block(kept.get(name))
        if block is not None:
            del kept[name]
            # a block without kind is the live policy
            kept |= {
                f"{name}.{key}": value for key, value in {"kind": "policy", **block}.items() if key in _OF_A_BLOCK
            }
    # a list of one looks like its element on a command line
    kept = {key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in kept.items()}
    return json.loads(json.dumps(kept, default=str))


def _block(value: Any) -> dict[str, Any] | None:
    """A text model's settings, which may be given as JSON; None where there are none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, dict) else None
