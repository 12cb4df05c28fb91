# SPDX-License-Identifier: Apache-2.0
"""What has become of a curriculum's stages: a readable file beside their folders, and a table of it."""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from open_r1_vision import checkpoints
from open_r1_vision.curriculum.recipe import Curriculum, Stage
from open_r1_vision.files import write_whole
from open_r1_vision.runs import RESULTS_FILE, RUN_FILE, comparable, list_changes
from open_r1_vision.sampling.records import SAMPLES_FILE, SETTINGS_FILE, SHARDS, SampleFolder

STATE_FILE = "curriculum.json"
_LOCK_FILE = ".curriculum.lock"
#: A stage is one of these, or `waiting`, which is not written but concluded.
FINISHED, RUNNING, FAILED, INTERRUPTED = "finished", "running", "failed", "interrupted"
#: What goes on on another number of processes as well.
_ON_ANY_PROCESSES = ("sample", "split")


class CurriculumState:
    """The state file of a curriculum.

    Args:
        curriculum: whose.
    """

    def __init__(self, curriculum: Curriculum) -> None:
        self.curriculum = curriculum
        self.path = curriculum.output_dir / STATE_FILE
        #: What of it was found to be right, and what has become of stages, both by their names.
        self._checked: dict[str, Any] = {}
        self._stages: dict[str, dict[str, Any]] = {}
        self._read()

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
        noted = self._noted(stage)
        if noted == FINISHED and not stage.folder.exists():
            return "waiting"  # somebody deleted it
        if noted == RUNNING:
            return INTERRUPTED
        return noted or "waiting"

    def note(self, stage: Stage, state: str, seconds: float | None = None, exit_code: int | None = None) -> None:
        """Write what has become of a stage, and with which settings, whole or not at all."""
        before = self._stages.get(stage.name, {})
        total = round(before.get("seconds", 0.0) + (seconds or 0.0), 1)
        self._stages[stage.name] = {
            "state": state,
            "seconds": total,
            "exit_code": exit_code,
            "run": stage.run,
            "processes": stage.processes,
            "settings": comparable(stage.written),
        }
        self._write()

    def unchecked(self, stages: Collection[Stage]) -> list[Stage]:
        """Those of these stages that :meth:`note_checked` has not had as they are now."""
        return [stage for stage in stages if self._checked.get(stage.name) != _as_checked(stage)]

    def note_checked(self, stages: Collection[Stage]) -> None:
        """Write that nothing was found to be wrong with stages, so that a command that goes on need not look again."""
        self._checked |= {stage.name: _as_checked(stage) for stage in stages}
        self._write()

    def differences(self, stage: Stage) -> list[str]:
        """How a stage differs from what it was begun as; none where that left nothing to be lost.

        References count as they are written, so that a curriculum may lie elsewhere than it was begun.
        """
        return self._differences(stage) if self._has_claim(stage) else []

    def changed(self) -> list[str]:
        """The differences of all stages."""
        return [line for stage in self.curriculum.stages for line in self.differences(stage)]

    def lost(self, stages: Collection[Stage]) -> list[Stage]:
        """Those of these stages that are finished, but whose folder is gone, so that they would be run anew."""
        return [stage for stage in stages if self._noted(stage) == FINISHED and not stage.folder.exists()]

    def stale(self, stages: Collection[Stage]) -> list[Stage]:
        """The begun stages that can't stay as they are when these are run.

        They changed, or build on one that did, or on one of these that would be run anew.
        """
        anew = {stage.name for stage in self.lost(stages)}
        found = []
        for stage in self.curriculum.stages:
            outdated = bool(self.differences(stage) or anew.intersection(stage.needs))
            if outdated and self._has_claim(stage):
                found.append(stage)
            if outdated:
                anew.add(stage.name)
        return found

    def describe_changes(self, stages: Collection[Stage]) -> str:
        """Why begun stages can't stay as they are when these are run, and what to do; empty where all can."""
        stale = self.stale(stages)
        if not stale:
            return ""
        names = ", ".join(stage.name for stage in stale)
        reasons = []
        if changes := self.changed():
            reasons.append(f"The recipe changed since {self.path.parent} was begun: {'; '.join(changes)}.")
        if lost := self.lost(stages):
            gone = ", ".join(str(stage.folder) for stage in lost)
            reasons.append(
                f"What a finished stage left in {gone} is gone and would be made anew, but {names} build on it."
            )
        return (
            f"{' '.join(reasons)} Undo that, set another output_dir, or give --accept_changes, which deletes {names}, "
            "to be run anew."
        )

    def discard(self, stages: Collection[Stage]) -> None:
        """Forget stages and delete their folders."""
        for stage in stages:
            self._stages.pop(stage.name, None)
            if stage.folder.exists():
                shutil.rmtree(stage.folder)
        self._write()

    def make_way(self, stage: Stage) -> None:
        """Before a stage is started: have its folder take it, where the curriculum knows that it should.

        A start that changed since and that left nothing is deleted. What was begun in another place is told where it
        is now: the entry points would take other paths for another run.
        """
        if stage.name not in self._stages:
            return
        files = [path for name in (RUN_FILE, SETTINGS_FILE) if (path := stage.folder / name).is_file()]
        if files and self._differences(stage) and not self._has_claim(stage):
            self.discard([stage])
            return
        written, now = comparable(stage.written), comparable(stage.settings)
        paths = {key: value for key, value in now.items() if value != written.get(key)}
        for file in files:
            held = json.loads(file.read_text(encoding="utf-8"))
            moved = {key: value for key, value in paths.items() if held.get(key, value) != value}
            if moved:
                write_whole(file, json.dumps({**held, **moved}, indent=1, sort_keys=True) + "\n")

    def table(self) -> str:
        """Stage, state, steps, best metric and path, a line each."""
        rows = [("stage", "run", "state", "steps", "time", "best", "path")]
        being_worked_in = self._is_held()
        for stage in self.curriculum.stages:
            seconds = self._stages.get(stage.name, {}).get("seconds", 0.0)
            steps, best = _progress(stage)
            minutes = f"{seconds / 60:.1f} min" if seconds else ""
            what = RUNNING if being_worked_in and self._noted(stage) == RUNNING else self.of(stage)
            rows.append((stage.name, stage.run, what, steps, minutes, best, str(stage.folder)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    def _noted(self, stage: Stage) -> str | None:
        return self._stages.get(stage.name, {}).get("state")

    def _has_claim(self, stage: Stage) -> bool:
        """Whether a stage that was begun left something that another one in its place would spoil."""
        if self._noted(stage) == FINISHED:
            return stage.folder.exists()
        return stage.name in self._stages and _has_products(stage.folder)

    def _differences(self, stage: Stage) -> list[str]:
        noted = self._stages.get(stage.name)
        if noted is None:
            return []
        own: dict[str, Any] = {"run": stage.run}
        if noted["state"] != FINISHED and stage.run not in _ON_ANY_PROCESSES:
            own["processes"] = stage.processes
        changes = list_changes({key: noted.get(key) for key in own}, own)
        changes += list_changes(noted["settings"], comparable(stage.written))
        return [f"{stage.name}.{change}" for change in changes]

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

    def _read(self) -> None:
        if not self.path.is_file():
            return
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self._stages, self._checked = found["stages"], found.get("checked", {})
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{self.path} can't be read, so it is unknown which stages are finished: restore it, or set another "
                f"output_dir ({error})."
            ) from error

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps({"stages": self._stages, "checked": self._checked}, indent=1) + "\n")


def _as_checked(stage: Stage) -> dict[str, Any]:
    return {"run": stage.run, "processes": stage.processes, "settings": comparable(stage.settings)}


def _has_products(folder: Path) -> bool:
    """Whether there is a checkpoint or a sample in it."""
    if not folder.is_dir():
        return False
    samples = [path for name in (SAMPLES_FILE, SHARDS) for path in folder.glob(name)]
    return bool(checkpoints.list_checkpoints(folder)) or any(path.stat().st_size for path in samples)


def _progress(stage: Stage) -> tuple[str, str]:
    """How far a stage is, and its best held-out accuracy, its mean reward or its splits, where it has such."""
    if not stage.folder.is_dir():
        return "", ""
    if stage.run == "sample":
        return _rows_done(stage.folder), ""
    if stage.run == "split":
        return "", _split_sizes(stage.folder)
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
    steps = [int(path.name.removeprefix("checkpoint-")) for path in checkpoints.list_checkpoints(stage.folder)]
    # log_completions leaves a file for each step, long before the first checkpoint
    steps += [int(path.stem.rpartition("_")[2]) for path in stage.folder.glob("completions/completions_*.parquet")]
    return str(max(steps, default="")), ""


def _rows_done(folder: Path) -> str:
    if not (folder / SETTINGS_FILE).is_file():
        return ""
    settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    done = SampleFolder(folder).num_rows_done({}, settings["num_generations"])
    return f"{done}/{settings['num_rows']} rows"


def _split_sizes(folder: Path) -> str:
    from open_r1_vision.data.splits import SPLITS_FILE

    if not (folder / SPLITS_FILE).is_file():
        return ""
    splits = json.loads((folder / SPLITS_FILE).read_text(encoding="utf-8"))["splits"]
    # nearly always there are no incomplete rows
    return ", ".join(f"{name} {len(ids)}" for name, ids in splits.items() if ids or name != "incomplete")
