# SPDX-License-Identifier: Apache-2.0
"""Evaluate a model on a benchmark, and exchange results with VLMEvalKit and lmms-eval.

    python -m open_r1_vision.evaluate run --benchmark mathvista --data MathVista_MINI.tsv \\
        --model runs/my_model/final --recipe recipes/qwen2_5_vl_3b/visionary_r1.yaml --output runs/evaluation
    python -m open_r1_vision.evaluate run --benchmark mmstar --data MMStar.tsv --backend endpoint \\
        --base_url http://127.0.0.1:8000/v1 --model Qwen/Qwen2.5-VL-3B-Instruct --output runs/base
    python -m open_r1_vision.evaluate list

A run that was stopped goes on when its command is given again.
"""

import argparse
import importlib
import signal
import sys
import typing
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from open_r1_vision.evaluate.options import RunOptions, output_folder, read_training_recipe

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 1 when samples or verdicts failed, 2 when nothing could be done, 130 when interrupted."""
    args = _build_parser().parse_args(argv)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return args.command(args)
    except (ValueError, OSError) as error:
        # what the libraries find wrong with a model folder or a file is an OSError
        sys.stderr.write(f"error: {error}\n")
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)


def run(args: argparse.Namespace) -> int:
    """Evaluate."""
    given = {item.name: value for item in fields(RunOptions) if (value := getattr(args, item.name)) is not None}
    options = RunOptions(**{**(read_training_recipe(args.recipe) if args.recipe else {}), **given})
    from open_r1_vision.evaluate.benchmarks import find

    benchmark = find(options.benchmark)
    folder = output_folder(options, benchmark.name)
    from open_r1_vision.evaluate.runner import evaluate

    try:
        summary = evaluate(options, benchmark, _say)
    except KeyboardInterrupt:
        # the second one ends the process at once
        count = _count_lines(folder / "samples.jsonl")
        sys.stderr.write(f"\nStopped. {count} samples are kept in {folder}; give the same command to go on.\n")
        return _INTERRUPTED
    sys.stdout.write(f"{summary}\nwritten {folder}\n")
    return 1 if summary.num_unfinished else 0


def list_benchmarks(args: argparse.Namespace) -> int:
    """List the benchmarks."""
    from open_r1_vision.evaluate import benchmarks
    from open_r1_vision.evaluate.benchmarks import find, names

    width = max(map(len, names()))
    for name in names():
        benchmark = find(name)
        about = (importlib.import_module(f"{benchmarks.__name__}.{benchmarks.FILES[name]}").__doc__ or "").strip()
        sys.stdout.write(f"{name:<{width}}  {about.splitlines()[0]}\n")
        if kit := ", ".join(getattr(benchmark, "kit_names", ())):
            sys.stdout.write(f"{'':<{width}}  VLMEvalKit: {kit}\n")
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m open_r1_vision.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="run|list|export|import")
    running = commands.add_parser("run", help="evaluate a model on a benchmark", allow_abbrev=False)
    running.set_defaults(command=run)
    running.add_argument(
        "--recipe", metavar="FILE", help="a training recipe, for its prompts, pixels and limits; asks in style method"
    )
    hints = typing.get_type_hints(RunOptions)
    for item in fields(RunOptions):
        text = str(item.metadata["help"]).replace("%", "%%")
        if item.default is False:
            running.add_argument(f"--{item.name}", action="store_true", default=None, help=text)
            continue
        kinds = [kind for kind in typing.get_args(hints[item.name]) or (hints[item.name],) if kind is not type(None)]
        default = "" if item.default in (None, MISSING) else f" (default {item.default})"
        running.add_argument(
            f"--{item.name}", type=kinds[0], required=item.default is MISSING, help=text + default, metavar="X"
        )
    listing = commands.add_parser("list", help="the benchmarks that there are", allow_abbrev=False)
    listing.set_defaults(command=list_benchmarks)
    return parser


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _interrupt(number: int, frame: Any) -> None:
    # torchrun, schedulers and `timeout` end a process in this way
    raise KeyboardInterrupt


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


if __name__ == "__main__":
    sys.exit(main())
