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

from open_r1_vision.arguments import Recipe, read_recipe
from open_r1_vision.doctor import machine
from open_r1_vision.doctor.machine import Machine
from open_r1_vision.doctor.quiet import keep_quiet
from open_r1_vision.doctor.report import Report


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 1 when something would stop the run."""
    options, words = _build_parser().parse_known_args(argv)
    with keep_quiet(not options.verbose) as say:
        report = Report(say, options.verbose)
        with report.attempt("recipe"):
            if options.rows < 1:
                raise ValueError(f"--rows is {options.rows}: set at least 1.")
            recipe = read_recipe(words)
            if recipe.path is None:
                raise ValueError("no recipe is named: give --config RECIPE, and overlays behind it.")
            where = machine.find_machine(options.gpus, options.gpu_memory)
            _check(report, recipe, where, options)
        count = report.num_stops
        say(f"\n{count} thing(s) would stop the run." if count else "\nNothing found that would stop the run.")
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
    parser.add_argument(
        "--verbose", action="store_true", help="show every part of the memory estimate, and what other libraries say"
    )
    parser.add_argument("--master_port", type=int, help="the port that torchrun is to use")
    return parser


def _check(report: Report, recipe: Recipe, where: Machine, options: argparse.Namespace) -> None:
    from open_r1_vision.doctor.run import check_run, is_warm_up, needed_extras
    from open_r1_vision.doctor.stages import check_curriculum, check_warm_up, read_stages

    machine.check_python(report)
    curriculum, recipes = None, [recipe]
    if isinstance(recipe.settings.get("stages"), list):
        curriculum = read_stages(report, recipe)
        recipes = [Recipe(stage.settings, None) for stage in curriculum.stages]
    machine.check_packages(report, {extra for part in recipes for extra in needed_extras(part)}, where.is_here)
    machine.check_port(report, options.master_port, where.is_here)
    if curriculum is not None:
        check_curriculum(report, curriculum, where, options.rows)
    elif is_warm_up(recipe):
        check_warm_up(report, recipe, where, options.rows)
    else:
        check_run(report, recipe, where, options.rows)


if __name__ == "__main__":
    sys.exit(main())
