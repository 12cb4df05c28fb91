# SPDX-License-Identifier: Apache-2.0
"""Turn LLaVA-CoT-100k into rows once, images included, as a folder that `dataset: FOLDER` in a recipe reads.

python local_scripts/prepare_llava_cot.py --input LLaVA-CoT-100k/train.jsonl --images LLaVA-CoT-100k --output rows

Each image is opened, and one that can't be used drops its row. Ends with a table of what was kept and dropped.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from open_r1_vision.data.images import ImageLimits
from open_r1_vision.data.llava_cot import CHOICES, GEOMETRY, convert
from open_r1_vision.data.loading import read_json
from open_r1_vision.data.rows import rows_from_list
from open_r1_vision.data.steps import WAYS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 1 when nothing was written."""
    options = _build_parser().parse_args(argv)
    try:
        _refuse_existing(options.output, options.overwrite)
        conversion = convert(
            read_json(options.input),
            options.images or options.input.parent,
            parts="all" if "all" in options.parts else options.parts,
            steps=options.steps,
            choices=options.choices,
            numbers_only=not options.all_answers,
            limits=ImageLimits(min_side=options.min_side),
        )
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.output.exists():
        shutil.rmtree(options.output)
    rows_from_list(conversion.rows, "llava_cot").save_to_disk(str(options.output))
    print(f"{options.output}: {conversion.report()}")
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="train.jsonl of LLaVA-CoT-100k")
    parser.add_argument(
        "--images", type=Path, help="folder in which the images' paths start; default: that of --input"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace --output if it holds a data set")
    parser.add_argument("--parts", nargs="+", default=list(GEOMETRY), help="first folders of the images, or all")
    parser.add_argument("--steps", choices=WAYS, default="auto", help="how the reasoning is split")
    parser.add_argument("--choices", choices=CHOICES, default=CHOICES[0], help="what becomes of multiple choice")
    parser.add_argument("--all-answers", action="store_true", help="keep answers without a number, too")
    parser.add_argument("--min-side", type=int, default=ImageLimits.min_side, help="shortest side of an image, pixels")
    return parser


def _refuse_existing(output: Path, overwrite: bool) -> None:
    if output.exists() and not overwrite:
        raise ValueError(f"{str(output)!r} exists already: give another --output, or allow this with --overwrite.")
    if output.exists() and not (output / "state.json").is_file():
        raise ValueError(f"{str(output)!r} holds no data set, so --overwrite won't replace it: give another --output.")


if __name__ == "__main__":
    sys.exit(main())
