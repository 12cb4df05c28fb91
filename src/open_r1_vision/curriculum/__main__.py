# SPDX-License-Identifier: Apache-2.0
"""Run a curriculum, stage by stage; the same command goes on where it was stopped.

    python -m open_r1_vision.curriculum --config recipes/starter/pebr_r1.yaml
    python -m open_r1_vision.curriculum --config recipes/starter/pebr_r1.yaml --dry_run [--verbose]
    python -m open_r1_vision.curriculum status --config recipes/starter/pebr_r1.yaml
    python -m open_r1_vision.curriculum --config recipes/starter/pebr_r1.yaml --seed 1 --output_dir runs/seed1

A finished stage is skipped, an interrupted one resumes as its entry point does. `--key value` beyond the options below
is given to every stage, over its recipe.
"""

import argparse
import difflib
import shlex
import signal
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from open_r1_vision.arguments import read_recipe
from open_r1_vision.curriculum.checks import find_empty_splits, find_faults, find_wrong_names
from open_r1_vision.curriculum.launch import Interrupted, build_command, end_leftovers, run_stage
from open_r1_vision.curriculum.recipe import Curriculum, Stage, read_curriculum
from open_r1_vision.curriculum.state import FAILED, FINISHED, INTERRUPTED, RUNNING, CurriculumState
from open_r1_vision.files import write_whole

_COMMANDS = ("run", "status")
_GOES_ON = "The same command goes on from here."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 2 when nothing was started, else the exit code of the stage that failed, or 0."""
    words = sys.argv[1:] if argv is None else list(argv)
    command = words.pop(0) if words and words[0] in _COMMANDS else "run"
    args, rest = _build_parser().parse_known_args(words)
    try:
        only_looks = args.dry_run or command == "status"
        faults: list[str] | None = [] if only_looks else None
        curriculum = read_curriculum(args.config, args.output_dir, args.processes, _read_overrides(rest), faults)
        state = CurriculumState(curriculum)
        if command == "status":
            _say(state.table())
            if faults:
                _say(f"The recipe has {len(faults)} fault(s), and stages may be missing here: --dry_run tells which.")
            return 0
        stages = _select(curriculum, args.start, args.until)
        if args.dry_run:
            return _rehearse(curriculum, state, stages, faults or [], args)
        with state.locked():
            end_leftovers(_mark(curriculum))  # of a command that was killed a moment ago
            _settle_changes(state, stages, args.accept_changes)
            return _run(curriculum, state, stages)
    except (ValueError, FileNotFoundError) as error:
        _say(f"error: {error}")
        return 2


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m open_r1_vision.curriculum",
        usage="%(prog)s [status] --config RECIPE [options] [--key value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        required=True,
        nargs="+",
        metavar="RECIPE",
        help="the curriculum's recipe, and files that change it",
    )
    parser.add_argument("--output_dir", help="in place of the recipe's")
    parser.add_argument("--processes", type=int, help="processes of every stage, in place of the recipe's")
    parser.add_argument("--from", dest="start", metavar="STAGE", help="begin here; earlier stages must be finished")
    parser.add_argument("--until", metavar="STAGE", help="end after this stage")
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="check everything and print every command")
    parser.add_argument("--verbose", action="store_true", help="with --dry_run: print each stage's recipe too")
    parser.add_argument(
        "--accept_changes",
        "--accept-changes",
        action="store_true",
        help="delete the stages that changed, and those that build on changed or deleted ones, and run them anew",
    )
    return parser


def _read_overrides(words: list[str]) -> dict[str, Any]:
    """The settings for every stage among the words of a command line.

    Raises:
        ValueError: a word that is no `--key value`, or a key that is nearly an option's name.
    """
    overrides = read_recipe(words).as_plain()
    options = [name for action in _build_parser()._actions for name in action.option_strings]
    for key in overrides:
        near = difflib.get_close_matches(f"--{key}", options, n=1, cutoff=0.8)
        if near:
            raise ValueError(f"Unknown option --{key}; did you mean {near[0]}?")
    return overrides


def _select(curriculum: Curriculum, start: str | None, until: str | None) -> list[Stage]:
    names = [stage.name for stage in curriculum.stages]
    first = names.index(curriculum.stage(start).name) if start else 0
    last = names.index(curriculum.stage(until).name) if until else len(names) - 1
    if first > last:
        raise ValueError(f"--from {start} comes after --until {until}: turn them around.")
    return curriculum.stages[first : last + 1]


def _settle_changes(state: CurriculumState, stages: list[Stage], accept: bool) -> None:
    message = state.describe_changes(stages)
    if message and not accept:
        raise ValueError(message)
    if message:
        stale = state.stale(stages)
        state.discard(stale)
        _say(f"Deleted, to be run anew: {', '.join(stage.name for stage in stale)}.")


def _run(curriculum: Curriculum, state: CurriculumState, stages: list[Stage]) -> int:
    to_run = [stage for stage in stages if state.of(stage) != FINISHED]
    if unchecked := state.unchecked(to_run):
        # a typing error in the last stage would otherwise be found when the others are over
        wrong = find_wrong_names(curriculum, unchecked)
        if wrong:
            raise ValueError("\n".join(wrong))
        state.note_checked(unchecked)
    for stage in stages:
        if stage not in to_run:
            _say(f"{stage.name}: finished already")
            continue
        unfinished = [name for name in stage.needs if state.of(curriculum.stage(name)) != FINISHED]
        if unfinished:
            raise ValueError(
                f"Stage {stage.name!r} takes something from {', '.join(map(repr, unfinished))}, not finished yet: "
                f"run it first, with --from {unfinished[0]}."
            )
        # also those of stages to come: hours may lie between a split and them
        empty = _empty_splits(stages, _unfinished(curriculum, state))
        if empty:
            raise ValueError("\n".join(empty))
        code = _run_one(curriculum, state, stage)
        if code:
            _say(state.table())
            return code
    _say(state.table())
    return 0


def _unfinished(curriculum: Curriculum, state: CurriculumState, stale: Collection[Stage] = ()) -> set[Path]:
    """The folders of stages that are still to be run, those that will be deleted included."""
    return {stage.folder for stage in curriculum.stages if state.of(stage) != FINISHED or stage in stale}


def _empty_splits(stages: list[Stage], unfinished: set[Path]) -> list[str]:
    """What unfinished stages can't read of finished ones, because nothing was left for it."""
    to_come = [stage for stage in stages if stage.folder in unfinished]
    return [f"{stage.name}: {fault}" for stage in to_come for fault in find_empty_splits(stage, unfinished)]


def _run_one(curriculum: Curriculum, state: CurriculumState, stage: Stage) -> int:
    """Run a stage and note what became of it; returns what the command is to end with, 0 to go on."""
    state.make_way(stage)
    command = build_command(stage.module, _write_recipe(curriculum, stage), stage.processes)
    going_on = "going on with" if state.of(stage) in (INTERRUPTED, FAILED) else "starting"
    _say(f"{stage.name}: {going_on} {shlex.join(command)}")
    state.note(stage, RUNNING)
    start = time.monotonic()
    number = 0
    try:
        code = run_stage(command, _mark(curriculum))
    except Interrupted as end:
        code, number = end.code, end.signal
    became = FINISHED if not code else INTERRUPTED if number else FAILED
    state.note(stage, became, time.monotonic() - start, code)
    if number:
        _say(f"{stage.name}: {became}. Stopped by {signal.Signals(number).name}. {_GOES_ON}")
        return 128 + number
    if code:
        _say(f"{stage.name}: ended with exit code {code}. {_GOES_ON}")
    return code if code >= 0 else 128 - code


def _mark(curriculum: Curriculum) -> str:
    """What the processes of a curriculum are known by: who holds its lock may end all that carry it."""
    return str(curriculum.output_dir.resolve())


def _rehearse(
    curriculum: Curriculum, state: CurriculumState, stages: list[Stage], faults: list[str], args: argparse.Namespace
) -> int:
    import datasets

    datasets.disable_progress_bars()  # they would stand between the lines
    for stage in stages:
        command = build_command(stage.module, _recipe_path(curriculum, stage), stage.processes)
        _say(f"# {stage.name}: {state.of(stage)}\n{shlex.join(command)}")
        if stage.takes:
            _say(f"#   takes {', '.join(f'{key} from {reference}' for key, reference in stage.takes)}")
        if args.verbose:
            _say("".join(f"#   {line}\n" for line in _format_recipe(stage).splitlines()))
        faults += [f"{stage.name}: {fault}" for fault in find_faults(curriculum, stage)]
    _say("# The recipes are written when their stages start; --verbose shows them.")
    stale = state.stale(stages)
    if stale and args.accept_changes:
        _say(f"To be deleted and run anew: {', '.join(stage.name for stage in stale)}.")
    elif stale:
        faults.append(state.describe_changes(stages))
    faults += _empty_splits(stages, _unfinished(curriculum, state, stale))
    _say("\n".join(f"fault: {fault}" for fault in faults) or "No faults found. Nothing was started.")
    return 2 if faults else 0


def _recipe_path(curriculum: Curriculum, stage: Stage) -> Path:
    return curriculum.output_dir / "recipes" / f"{stage.name}.yaml"


def _format_recipe(stage: Stage) -> str:
    import yaml

    return yaml.safe_dump(stage.settings, sort_keys=False)


def _write_recipe(curriculum: Curriculum, stage: Stage) -> Path:
    """The recipe that a stage is started with, where a person can read it and start the stage by hand."""
    path = _recipe_path(curriculum, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _format_recipe(stage))
    return path


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
