# SPDX-License-Identifier: Apache-2.0
"""Answer the questions of a data set in RACRO's three steps.

    python -m open_r1_vision.three_step --model Qwen/Qwen2.5-VL-7B-Instruct --dataset rows.parquet \\
        --reasoner '{"kind": "local", "model": "Qwen/Qwen3-8B"}' --output runs/answers.jsonl
    python -m open_r1_vision.three_step --captions runs/answers.jsonl --dataset rows.parquet \\
        --reasoner reasoner.yaml --output runs/other_reasoner.jsonl

The first has the model write tentative responses and captions, and a reasoner answer from them. The second lets
another reasoner read the same ones. A command that was stopped goes on when it is given again.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from open_r1_vision.three_step.options import StepOptions


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 1 when rows failed, 2 when nothing could be done."""
    args = _build_parser().parse_args(argv)
    try:
        summary = _run(args)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{summary}\nresults {args.output}\n")
    return 1 if summary.num_failed else 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m open_r1_vision.three_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", help="folder, hub id or dotted path; not needed with --captions")
    parser.add_argument("--device", help="of the model; by default a GPU where there is one")
    parser.add_argument("--dataset", required=True, help="rows, named as in a recipe")
    parser.add_argument("--dataset_split", default="test", help="default test")
    parser.add_argument(
        "--dataset_options", type=_mapping, default={}, metavar="JSON", help="arguments of a data set's dotted path"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N rows only")
    parser.add_argument(
        "--reasoner",
        required=True,
        metavar="JSON|FILE",
        help="its block of a recipe, or a YAML or JSON file: of the block, or a recipe",
    )
    parser.add_argument("--output", required=True, type=Path, help="JSONL file, a line for each row")
    parser.add_argument("--overwrite", action="store_true", help="replace the output instead of going on with it")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="an earlier output: take its steps 1 and 2")
    parser.add_argument("--batch_size", type=int, default=8, help="rows that are worked on together (default 8)")
    parser.add_argument("--no_tentative", dest="tentative", action="store_false", help="leave step 1 out")
    for item in fields(StepOptions):
        if item.name != "tentative":
            kind: Any = int if isinstance(item.default, int) else str
            default = "" if item.default is None else f" (default {item.default})"
            text = (item.metadata["help"] + default).replace("%", "%%")
            parser.add_argument(f"--{item.name}", type=kind, default=item.default, help=text)
    return parser


def _run(args: argparse.Namespace) -> Any:
    from open_r1_vision.data.loading import load_rows
    from open_r1_vision.reasoners.config import read_block
    from open_r1_vision.three_step.pipeline import ThreeStep

    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit is {args.limit}: set at least 1 row, or leave it out.")
    if args.model is None and args.captions is None:
        raise ValueError("There is no --model to write captions: name one, or an earlier output with --captions.")
    options = {item.name: getattr(args, item.name) for item in fields(StepOptions)}
    # an empty word on the command line is no prompt
    options = {name: None if value == "" else value for name, value in options.items()}
    pipeline = ThreeStep(args.model, read_block(args.reasoner), device=args.device, **options)
    rows = load_rows(args.dataset, args.dataset_split, **args.dataset_options)
    if args.limit is not None:
        rows = rows.select(range(min(args.limit, len(rows))))
    try:
        return pipeline.run(
            rows,
            args.output,
            batch_size=args.batch_size,
            captions=args.captions,
            source=[args.dataset, args.dataset_split, args.dataset_options],
            overwrite=args.overwrite,
            progress=True,
        )
    finally:
        pipeline.close()


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error}): give a mapping") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no mapping: give one, such as '{{\"count\": 8}}'")
    return value


if __name__ == "__main__":
    sys.exit(main())
