# SPDX-License-Identifier: Apache-2.0
"""A curriculum, and a warm-up by itself: for the machine once, for each stage what is its own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from open_r1_vision.arguments import Recipe
from open_r1_vision.curriculum.checks import find_empty_splits, find_faults, find_own_rows
from open_r1_vision.curriculum.recipe import Curriculum, Stage, curriculum_of
from open_r1_vision.curriculum.state import FINISHED, CurriculumState
from open_r1_vision.doctor import files, machine
from open_r1_vision.doctor.machine import Machine
from open_r1_vision.doctor.report import Report
from open_r1_vision.doctor.run import check_memory, check_output, check_servers, look_at_rows, parse_known
from open_r1_vision.memory.estimate import Setup, estimate
from open_r1_vision.memory.plan import read_deepspeed
from open_r1_vision.memory.shapes import read_shape

#: Keys of a curriculum that a command line gives for all of it; any other one is given to every stage.
_OF_ALL = ("output_dir", "processes", "shared", "stages")
#: What runs on GPUs, and what updates a model.
_ON_GPUS, _UPDATES = ("sft", "sample", "train"), ("sft", "train")


def read_stages(report: Report, recipe: Recipe) -> Curriculum:
    """The curriculum of a recipe; what is wrong with it is said.

    Raises:
        ValueError: it is none.
    """
    plain = recipe.as_plain()
    overrides = {key: value for key, value in plain.items() if key not in (*recipe.origins, *_OF_ALL)}
    own = {key: value for key, value in plain.items() if key not in overrides}
    faults: list[str] = []
    curriculum = curriculum_of(own, str(recipe.path), overrides=overrides, faults=faults)
    for fault in faults:
        report.stop("recipe", fault)
    if not faults:
        report.ok("recipe", f"{len(curriculum.stages)} stages: {', '.join(stage.name for stage in curriculum.stages)}")
    return curriculum


def check_curriculum(report: Report, curriculum: Curriculum, where: Machine, num_rows: int) -> None:
    """Everything that belongs to a curriculum.

    Args:
        report: gets what is found.
        curriculum: see :func:`read_stages`.
        where: it is to run.
        num_rows: how many rows to look at.
    """
    to_run = curriculum.stages
    with report.attempt("output"):
        state = CurriculumState(curriculum)
        to_run = [stage for stage in curriculum.stages if state.of(stage) != FINISHED]
        _check_state(report, curriculum, state, to_run)
    _Stages(report, curriculum, where, num_rows).check(to_run)


def check_warm_up(report: Report, recipe: Recipe, where: Machine, num_rows: int) -> None:
    """A recipe of open_r1_vision.sft, by the checks that a curriculum has for such a stage."""
    plain = recipe.as_plain()
    folder = str(plain.get("output_dir", "."))
    stage = Stage("sft", "sft", {**plain, "output_dir": folder}, processes=where.processes, written=plain)
    _Stages(report, Curriculum(Path(folder), [stage]), where, num_rows, is_alone=True).check([stage])
    check_output(report, recipe, folder, bool(plain.get("overwrite_output")), where.processes)


def _check_state(report: Report, curriculum: Curriculum, state: CurriculumState, to_run: Sequence[Stage]) -> None:
    if changes := state.describe_changes(curriculum.stages):
        report.stop("output", changes)
    unfinished = {stage.folder for stage in to_run}
    for stage in to_run:
        for fault in find_empty_splits(stage, unfinished):
            report.of(stage.name).stop("data", fault)
    for stage in curriculum.stages:
        if stage not in to_run:
            report.of(stage.name).ok("", "finished, and would be skipped")
    if not to_run:
        report.note("output", f"{curriculum.output_dir} holds this curriculum, finished: nothing would be run")
    elif not changes:
        begun = len(to_run) < len(curriculum.stages)
        text = f"goes on with {to_run[0].name} in" if begun else "a new curriculum in"
        report.ok("output", f"{text} {curriculum.output_dir}")


class _Stages:
    """Looks at stages; what several of them have in common is said once."""

    def __init__(
        self, report: Report, curriculum: Curriculum, where: Machine, num_rows: int, is_alone: bool = False
    ) -> None:
        self._report, self._curriculum, self._where = report, curriculum, where
        self._num_rows, self._is_alone = num_rows, is_alone
        #: Folders of models by their names, None where there is none.
        self._folders: dict[str, str | None] = {}
        self._disk_bytes = 0
        #: Of what belongs to a whole stage.
        self._topic = "recipe" if is_alone else ""

    def check(self, stages: Sequence[Stage]) -> None:
        on_gpus = [stage for stage in stages if stage.run in _ON_GPUS]
        updating = [stage for stage in stages if stage.run in _UPDATES]
        report, where = self._report, self._where
        machine.check_gpus(report, where, any(_wants_bfloat16(stage.settings) for stage in updating))
        if not where.gpus and not self._is_alone:
            report.note("memory", "estimated for GPUs alone: --gpus and --gpu_memory say which")
        self._once(
            on_gpus,
            "attn_implementation",
            lambda part, value: machine.check_attention(part, where, value),
            "attention",
        )
        self._once(
            updating,
            "deepspeed",
            lambda part, value: machine.check_deepspeed(part, where, read_deepspeed(value)),
            "deepspeed",
        )
        self._once(updating, "report_to", machine.check_report_to, "report_to")
        for stage in stages:
            part = report if self._is_alone else report.of(stage.name)
            with part.attempt(self._topic):
                self._check_stage(part, stage)
        if self._disk_bytes and not self._is_alone:
            held = sum(files.size_of(stage.folder) for stage in stages)
            files.check_disk_of_all(report, self._curriculum.output_dir, self._disk_bytes, held, where.is_here)

    def _once(self, stages: Sequence[Stage], key: str, check: Callable[[Report, Any], None], topic: str) -> None:
        """Check each value that a key has, with the names of its stages where it has several."""
        values = {repr(stage.settings.get(key)): stage.settings.get(key) for stage in stages}
        for name, value in values.items():
            having = [stage.name for stage in stages if repr(stage.settings.get(key)) == name]
            part = self._report if len(values) == 1 else self._report.of(", ".join(having))
            with part.attempt(topic):
                check(part, value)

    def _check_stage(self, report: Report, stage: Stage) -> None:
        faults = find_faults(self._curriculum, stage)
        for fault in faults:
            report.stop(self._topic, fault)
        where = self._where
        if where.gpus and stage.run in _ON_GPUS and stage.processes > where.gpus:
            report.stop(
                "", f"it has {stage.processes} processes for {where.gpus} GPU(s): set `processes` of the stage."
            )
        elif not faults and self._is_alone:
            report.ok("recipe", f"{len(stage.settings)} keys of open_r1_vision.sft")
        elif not faults:
            report.ok("", f"{stage.run}, {stage.processes} process(es)")
        folder = self._find_model(report, stage, faults) if stage.run in _ON_GPUS else None
        if stage.run in ("sft", "sample"):
            self._check_rows(report, stage, folder, faults)
        if stage.run == "train":
            self._check_training(report, stage, folder, faults)
        elif stage.run == "sft":
            self._check_lessons_disk(report, stage, folder)
        elif stage.run == "sample" and where.gpus:
            report.note("memory", "of sampling it is not estimated")

    def _find_model(self, report: Report, stage: Stage, faults: Sequence[str]) -> str | None:
        """The folder of what a stage begins with, or of the model that an earlier stage will have made it from."""
        source = self._source(stage)
        name = str(source.settings.get("model_name_or_path") or "")
        if not name or (source is stage and any(repr(name) in fault for fault in faults)):
            return None
        if source is stage and name not in self._folders:
            self._folders[name] = files.check_model(report, name)
        return self._folders.get(name)

    def _source(self, stage: Stage) -> Stage:
        """The stage whose model is there before the curriculum: a later one trains what that one leaves."""
        model = Path(str(stage.settings.get("model_name_or_path")))
        for other in self._curriculum.stages:
            if other.name in stage.needs and model.is_relative_to(other.folder) and not model.exists():
                return self._source(other)
        return stage

    def _check_rows(
        self, report: Report, stage: Stage, folder: str | None, faults: Sequence[str], script: Any = None
    ) -> None:
        """How many rows a stage has of its own, and whether the first ones are good."""
        from open_r1_vision.sampling.options import SampleArguments, read_part

        with report.attempt("data"):
            rows = find_own_rows(self._curriculum, stage)
            if rows is None:
                return
            said = [f"{len(rows)} rows{'' if faults else '; columns are there'}"]
            if stage.run == "sample":
                script = read_part(Recipe(stage.settings, None), SampleArguments)
            if script is not None:
                # the sampling leaves longer prompts out
                longest = stage.settings.get("max_prompt_tokens") if stage.run == "train" else None
                said.append(look_at_rows(script, longest, rows, [], folder, self._num_rows))
            report.ok("data", ", ".join(said))

    def _check_training(self, report: Report, stage: Stage, folder: str | None, faults: Sequence[str]) -> None:
        # its own model may not be there yet, and is of the first one's shape
        name = self._source(stage).settings.get("model_name_or_path")
        recipe = Recipe({**stage.settings, "model_name_or_path": name}, None)
        parsed = parse_known(report, recipe)
        if parsed is None:
            report.note("memory", "not estimated before its keys and values are right")
            return
        script, training, model, _ = parsed
        needed = check_memory(report, recipe, script, training, model, self._where, stage.processes, folder)
        self._disk_bytes += needed
        check_servers(report, training)
        self._check_rows(report, stage, folder, faults, script)

    def _check_lessons_disk(self, report: Report, stage: Stage, folder: str | None) -> None:
        settings = stage.settings
        report.note("memory", "of open_r1_vision.sft it is not estimated")
        name = folder or self._source(stage).settings.get("model_name_or_path")
        if settings.get("use_peft") or not name:
            return
        try:
            shape = read_shape(str(name))
            zero = read_deepspeed(settings.get("deepspeed"))
        except ValueError:  # what is wrong with them was said
            return
        size = 2 if settings.get("dtype") in ("bfloat16", "float16", "auto") else 4
        made = estimate(shape, Setup(shape.parameters, gpus=stage.processes, weight_bytes=size, **zero))
        kept = 0 if settings.get("save_strategy") == "no" else settings.get("save_total_limit")
        needed = (made.checkpoint_bytes, kept, made.final_bytes)
        self._disk_bytes += files.check_disk(report, stage.folder, *needed, self._where.is_here)


def _wants_bfloat16(settings: dict[str, Any]) -> bool:
    """TRL computes in it unless told otherwise."""
    return bool(settings.get("bf16", not settings.get("fp16")))
