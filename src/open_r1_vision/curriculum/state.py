# SPDX-License-Identifier: Apache-2.0
"""What has become of a curriculum's stages: a readable file beside their folders, and a table of it."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

from open_r1_vision import checkpoints
from open_r1_vision.curriculum.recipe import Curriculum, Stage
from open_r1_vision.runs import RESULTS_FILE, comparable, list_changes

STATE_FILE = "curriculum.json"
_LOCK_FILE = ".curriculum.lock"
#: A stage is one of these; `waiting` and `interrupted` are not written, but concluded.
FINISHED, RUNNING, FAILED = "finished", "running", "failed"


class CurriculumState:
    """The state file of a curriculum.

    Args:
        curriculum: whose.
    """

    def __init__(self, curriculum: Curriculum) -> None:
        self.curriculum = curriculum
        self.path = curriculum.output_dir / STATE_FILE
        self._stages: dict[str, dict[str, Any]] = self._read()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, so that no second command works in it.

        Raises:
            ValueError: another one does.
        """
        self.curriculum.output_dir.mkdir(parents=True, exist_ok=True)
        with (self.curriculum.output_dir / _LOCK_FILE).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ValueError(
                    f"{self.curriculum.output_dir} is being worked in by another command: wait for it, or set another "
                    "output_dir."
                ) from error
            yield

    def of(self, stage: Stage) -> str:
        """`finished`, `failed`, `interrupted` (it was begun, and no process of it is known to run) or `waiting`."""
        noted = self._stages.get(stage.name, {}).get("state")
        if noted == FINISHED and not stage.folder.exists():
            return "waiting"  # somebody deleted it
        if noted == RUNNING:
            return "interrupted"
        return noted or "waiting"

    def note(self, stage: Stage, state: str, seconds: float | None = None, exit_code: int | None = None) -> None:
        """Write what has become of a stage, and with which settings, whole or not at all."""
        before = self._stages.get(stage.name, {})
        total = round(before.get("seconds", 0.0) + (seconds or 0.0), 1)
        self._stages[stage.name] = {
            "state": state,
            "seconds": total,
            "exit_code": exit_code,
            "settings": comparable(stage.settings),
        }
        self._write()

    def differences(self, stage: Stage) -> list[str]:
        """How a stage's settings differ from those that it was begun with; none where it was not begun."""
        before = self._stages.get(stage.name, {}).get("settings")
        if before is None:
            return []
        return [f"{stage.name}.{change}" for change in list_changes(before, comparable(stage.settings))]

    def changed(self) -> list[str]:
        """The differences of all stages."""
        return [line for stage in self.curriculum.stages for line in self.differences(stage)]

    def discard_changed(self) -> list[Stage]:
        """Forget and delete the stages whose settings changed, and those that build on them; returns them."""
        stale: list[Stage] = []
        for stage in self.curriculum.stages:
            builds_on = {other.name for other in stale}.intersection(stage.needs)
            if self.differences(stage) or (builds_on and stage.name in self._stages):
                stale.append(stage)
        for stage in stale:
            self._stages.pop(stage.name, None)
            if stage.folder.exists():
                shutil.rmtree(stage.folder)
        self._write()
        return stale

    def table(self) -> str:
        """Stage, state, steps, best metric and path, a line each."""
        rows = [("stage", "run", "state", "steps", "time", "best", "path")]
        being_worked_in = self._is_held()
        for stage in self.curriculum.stages:
            seconds = self._stages.get(stage.name, {}).get("seconds", 0.0)
            steps, best = _progress(stage)
            minutes = f"{seconds / 60:.1f} min" if seconds else ""
            what = self.of(stage)
            what = "running" if what == "interrupted" and being_worked_in else what
            rows.append((stage.name, stage.run, what, steps, minutes, best, str(stage.folder)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    def _is_held(self) -> bool:
        file = self.curriculum.output_dir / _LOCK_FILE
        if not file.is_file():
            return False
        with file.open() as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.is_file():
            return {}
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))["stages"]
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{self.path} can't be read, so it is unknown which stages are finished: restore it, or set another "
                f"output_dir ({error})."
            ) from error

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".tmp")
        with draft.open("w", encoding="utf-8") as file:
            json.dump({"stages": self._stages}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())  # or a machine that goes down may leave an empty file of the right name
        draft.rename(self.path)


def _progress(stage: Stage) -> tuple[str, str]:
    """Steps so far and the best held-out accuracy, or the mean reward, where the stage has such."""
    results_file = stage.folder / RESULTS_FILE
    if results_file.is_file():
        results = json.loads(results_file.read_text(encoding="utf-8"))
        curve = results.get("held_out", {}).get("curve", {})
        values = [(measures["accuracy"], int(step)) for step, measures in curve.items() if "accuracy" in measures]
        if values:
            best, step = max(values)
            return str(results["steps"]), f"accuracy {100 * best:.1f} % at step {step}"
        reward = results.get("means", {}).get("reward")
        return str(results["steps"]), "" if reward is None else f"mean reward {reward:.3f}"
    found = checkpoints.list_checkpoints(stage.folder) if stage.folder.is_dir() else []
    return (found[-1].name.removeprefix("checkpoint-"), "") if found else ("", "")
