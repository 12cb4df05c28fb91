# SPDX-License-Identifier: Apache-2.0
"""The output folder of a run: whose it is, and whether to start, resume, or leave it alone."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1_vision import checkpoints

RUN_FILE = "run.json"
RESULTS_FILE = "results.json"
#: Settings that may change between a start and a resume without making it another run.
_FREE_SETTINGS = {"output_dir", "overwrite_output", "report_to", "run_name", "logging_steps", "save_total_limit"}


@dataclass(frozen=True)
class RunState:
    """What an output folder holds: a finished run, a checkpoint to go on from, or neither."""

    finished: bool
    checkpoint: Path | None


def open_run(output_dir: Path, settings: dict[str, Any], overwrite: bool) -> RunState:
    """Look at an output folder before anything is written to it. Only reads, but for `overwrite`.

    Args:
        output_dir: folder of the run.
        settings: the recipe's keys with the command line's on top, and the number of processes.
        overwrite: delete a run that is there.

    Raises:
        ValueError: the folder holds another run, or files that are no run.
    """
    run_file = output_dir / RUN_FILE
    if overwrite and output_dir.exists():
        shutil.rmtree(output_dir)
    if not output_dir.exists() or not any(output_dir.iterdir()):
        return RunState(finished=False, checkpoint=None)
    if not run_file.is_file():
        raise ValueError(
            f"{output_dir} holds files, but no {RUN_FILE} of a run: set another output_dir, or overwrite_output: true "
            "to delete it."
        )
    try:
        before = json.loads(run_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{run_file} can't be read, so it is unknown whose run that is: set another output_dir, or "
            f"overwrite_output: true to delete it ({error})."
        ) from error
    now = _comparable(settings)
    changed = [
        f"{key}: {before.get(key, 'unset')} -> {now.get(key, 'unset')}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise ValueError(
            f"{output_dir} holds another run; it differs in {'; '.join(changed)}. Set another output_dir, or "
            "overwrite_output: true to delete that run."
        )
    return RunState((output_dir / RESULTS_FILE).is_file(), checkpoints.find_last_whole(output_dir))


def write_run(output_dir: Path, settings: dict[str, Any]) -> None:
    """Note whose folder this is."""
    output_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_comparable(settings), indent=1, sort_keys=True)
    draft = output_dir / f".{RUN_FILE}.tmp"
    draft.write_text(text, encoding="utf-8")
    draft.rename(output_dir / RUN_FILE)


def _comparable(settings: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in settings.items() if key not in _FREE_SETTINGS}
    # a list of one looks like its element on a command line
    kept = {key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in kept.items()}
    return json.loads(json.dumps(kept, default=str))
