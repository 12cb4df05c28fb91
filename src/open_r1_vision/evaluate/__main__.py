# SPDX-License-Identifier: Apache-2.0
"""Evaluate a model on a benchmark, and exchange results with VLMEvalKit and lmms-eval.

    python -m open_r1_vision.evaluate run --benchmark mathvista --data MathVista_MINI.tsv \\
        --model runs/my_model/final --recipe recipes/qwen2_5_vl_3b/visionary_r1.yaml --output runs/evaluation
    python -m open_r1_vision.evaluate run --benchmark mmstar --data MMStar.tsv --backend endpoint \\
        --base_url http://127.0.0.1:8000/v1 --model Qwen/Qwen2.5-VL-3B-Instruct --output runs/base
    python -m open_r1_vision.evaluate list
    python -m open_r1_vision.evaluate export runs/base/mmstar --to vlmevalkit
    python -m open_r1_vision.evaluate import Base_MMStar.tsv --from vlmevalkit --benchmark mmstar --data MMStar.tsv \\
        --model base --output runs/imported

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
    try:
        return args.command(args)
    except (ValueError, OSError) as error:
        # what the libraries find wrong with a model folder or a file is an OSError
        sys.stderr.write(f"error: {error}\n")
        return 2


def run(args: argparse.Namespace) -> int:
    """Evaluate."""
    given = {item.name: value for item in fields(RunOptions) if (value := getattr(args, item.name)) is not None}
    backend = given.get("backend", RunOptions.backend)
    asked = read_training_recipe(args.recipe, backend) if args.recipe else {}
    options = RunOptions(**{**asked, **given})
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


def export(args: argparse.Namespace) -> int:
    """Write a run for another kit."""
    from open_r1_vision.evaluate.transfer import export_run

    written = export_run(args.run, args.output, data=args.data, sample=args.sample, raw=args.raw)
    sys.stdout.write(f"written {written.path}: {written.rows} rows, {written.unanswered} without answer\n")
    if written.read_as_missing:
        count, first = len(written.read_as_missing), written.read_as_missing[0]
        sys.stdout.write(f"VLMEvalKit will read {count} answers as empty cells, such as that of item {first}\n")
    return 0


def import_(args: argparse.Namespace) -> int:
    """Make a run of another kit's file."""
    from open_r1_vision.evaluate.transfer import import_run

    summary, folder = import_run(
        args.file,
        args.source,
        args.benchmark,
        args.data,
        args.model,
        args.output,
        metric=args.metric,
        judged_by=args.judged_by,
        partial=args.partial,
        overwrite=args.overwrite,
    )
    sys.stdout.write(f"{summary}\nwritten {folder}\n")
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
    _add_exchange(commands)
    return parser


def _add_exchange(commands: Any) -> None:
    exporting = commands.add_parser("export", help="write a run for another kit", allow_abbrev=False)
    exporting.set_defaults(command=export)
    exporting.add_argument("run", type=Path, help="OUTPUT/BENCHMARK of a run")
    exporting.add_argument("--to", choices=("vlmevalkit",), required=True, help="the kit")
    exporting.add_argument("--output", type=Path, metavar="X", help="a .tsv or a folder; by default the run's")
    exporting.add_argument("--data", metavar="X", help="the benchmark's data file, if it has moved")
    exporting.add_argument("--sample", type=int, default=0, metavar="N", help="which of several samples (default 0)")
    exporting.add_argument(
        "--raw", action="store_true", help="the model's whole text in `prediction`, instead of the bare answer"
    )
    importing = commands.add_parser("import", help="make a run of another kit's file", allow_abbrev=False)
    importing.set_defaults(command=import_)
    importing.add_argument("file", type=Path, help="VLMEvalKit's table, or the samples of lmms-eval")
    importing.add_argument("--from", dest="source", choices=("vlmevalkit", "lmms_eval"), required=True, help="the kit")
    importing.add_argument("--benchmark", required=True, metavar="X", help="name of a benchmark, see `list`")
    importing.add_argument("--data", metavar="X", help="the benchmark's data file")
    importing.add_argument("--model", required=True, metavar="X", help="what the run's model is called")
    importing.add_argument("--output", type=Path, required=True, metavar="X", help="folder, as of `run`")
    importing.add_argument("--metric", metavar="X", help="lmms_eval: the key of the score; by default our rule scores")
    importing.add_argument(
        "--judged_by", choices=("rule", "llm"), default="llm", help="lmms_eval: who gave that metric (default llm)"
    )
    importing.add_argument("--partial", action="store_true", help="items may be left out")
    importing.add_argument("--overwrite", action="store_true", help="forget what the folder holds")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _interrupt(number: int, frame: Any) -> None:
    # torchrun, schedulers and `timeout` end a process in this way
    raise KeyboardInterrupt


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())
