# SPDX-License-Identifier: Apache-2.0
"""Find out whether a recipe would start, before a GPU is booked.

    python -m open_r1_vision.doctor --config recipes/starter/visionary_r1.yaml
    python -m open_r1_vision.doctor --config recipes/qwen2_5_vl_7b/racro_cro.yaml recipes/hardware/8_gpus.yaml
    python -m open_r1_vision.doctor --config RECIPE OVERLAY --gpus 4 --gpu_memory 80

A line for each thing: `ok`, `note`, or `STOP` with what to do about it. The exit code is 1 when something would stop
the run. Nothing is trained or written. A curriculum's recipe is looked at stage by stage.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from open_r1_vision.arguments import Recipe, read_recipe
from open_r1_vision.doctor import machine
from open_r1_vision.doctor.machine import Machine
from open_r1_vision.doctor.report import Report


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 1 when something would stop the run."""
    options, words = _build_parser().parse_known_args(argv)
    report = Report(_say, options.verbose)
    with report.attempt("recipe"):
        if options.rows < 1:
            raise ValueError(f"--rows is {options.rows}: set at least 1.")
        recipe = read_recipe(words)
        if recipe.path is None:
            raise ValueError("no recipe is named: give --config RECIPE, and overlays behind it.")
        where = machine.find_machine(options.gpus, options.gpu_memory)
        _check(report, recipe, where, options)
    count = report.num_stops
    _say(f"\n{count} thing(s) would stop the run." if count else "\nNothing found that would stop the run.")
    return 1 if count else 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m open_r1_vision.doctor",
        usage="%(prog)s --config RECIPE [OVERLAY ...] [options] [--key value ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--gpus", type=int, help="of the machine; by default those of this one")
    parser.add_argument("--gpu_memory", type=float, help="of each, in GiB; with it, of a machine that is not this one")
    parser.add_argument("--rows", type=int, default=100, help="how many rows to look at (default 100)")
    parser.add_argument("--verbose", action="store_true", help="show every part of the memory estimate")
    parser.add_argument("--master_port", type=int, help="the port that torchrun is to use")
    return parser


def _check(report: Report, recipe: Recipe, where: Machine, options: argparse.Namespace) -> None:
    from open_r1_vision.doctor.run import check_run, is_warm_up, needed_extras

    machine.check_python(report)
    stages = recipe.settings.get("stages")
    if not isinstance(stages, list):
        machine.check_packages(report, needed_extras(recipe), where.is_here)
        machine.check_port(report, options.master_port)
        if is_warm_up(recipe):
            _check_warm_up(report, recipe)
        else:
            check_run(report, recipe, where, options.rows)
        return
    _check_curriculum(report, recipe, where, options)


def _check_warm_up(report: Report, recipe: Recipe) -> None:
    """A recipe of open_r1_vision.sft, by the checks that a curriculum has for such a stage."""
    from pathlib import Path

    from open_r1_vision.curriculum.checks import find_faults
    from open_r1_vision.curriculum.recipe import Curriculum, Stage
    from open_r1_vision.doctor.files import check_model

    plain = recipe.as_plain()
    stage = Stage("sft", "sft", plain, written=plain)
    faults = find_faults(Curriculum(Path(str(plain.get("output_dir", "."))), [stage]), stage)
    for fault in faults:
        report.stop("recipe", fault)
    if not faults:
        report.ok("recipe", f"{len(plain)} keys of open_r1_vision.sft; its rows have what it needs")
    check_model(report, str(plain.get("model_name_or_path")))
    report.note("memory", "of open_r1_vision.sft it is not estimated")


def _check_curriculum(report: Report, recipe: Recipe, where: Machine, options: argparse.Namespace) -> None:
    """The stages' own checks, and the memory of those that train by reinforcement."""
    from open_r1_vision.curriculum.checks import find_faults
    from open_r1_vision.curriculum.recipe import curriculum_of
    from open_r1_vision.doctor.run import check_servers, compare_memory, needed_extras
    from open_r1_vision.memory.plan import parse_training, plan_of

    faults: list[str] = []
    curriculum = curriculum_of(recipe.as_plain(), str(recipe.path), faults=faults)
    extras = {extra for stage in curriculum.stages for extra in needed_extras(Recipe(stage.settings, None))}
    machine.check_packages(report, extras, where.is_here)
    machine.check_port(report, options.master_port)
    for fault in faults:
        report.stop("recipe", fault)
    first = next((stage.settings.get("model_name_or_path") for stage in curriculum.stages), None)
    for stage in curriculum.stages:
        wrong = find_faults(curriculum, stage)
        for fault in wrong:
            report.stop(stage.name, fault)
        if stage.run != "train" or wrong:
            if not wrong:
                unknown = "; its memory is not estimated" if stage.run == "sft" else ""
                report.ok(stage.name, f"{stage.run}, {stage.processes} process(es){unknown}")
            continue
        if where.gpus and stage.processes > where.gpus:
            report.stop(
                stage.name,
                f"it has {stage.processes} processes for {where.gpus} GPU(s): set `processes` of the stage.",
            )
            continue
        with report.attempt(stage.name):
            # its own model is not there yet, and is of the first one's shape
            own: Any = Recipe({**stage.settings, "model_name_or_path": first}, recipe.path)
            script, training, model = parse_training(own)
            gpus = Machine(min(where.gpus, stage.processes), where.gpu_bytes, where.is_here)
            plan = plan_of(own, script, training, model, stage.processes, where.gpu_bytes or 80 * 2**30)
            report.ok(stage.name, str(plan.batch))
            compare_memory(report, plan, gpus)
            check_servers(report, training)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
