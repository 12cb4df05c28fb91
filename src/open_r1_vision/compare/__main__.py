# SPDX-License-Identifier: Apache-2.0
"""Compare two or more evaluation runs on the same items.

    python -m open_r1_vision.compare runs/base runs/grpo
    python -m open_r1_vision.compare runs/base runs/grpo runs/racro --pairs all --output runs/comparison

A run is the output folder of `python -m open_r1_vision.evaluate`, or the folder of one benchmark in it. The tables go
to the terminal; with `--output` a folder gets comparison.json, comparison.csv, items.csv and forest.png.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from open_r1_vision.compare import Comparison


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 2 when the runs can't be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m open_r1_vision.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folders of evaluations")
    parser.add_argument("--names", nargs="+", help="what to call the runs, in their order")
    parser.add_argument("--benchmarks", nargs="+", metavar="NAME", help="compare these alone")
    parser.add_argument("--intersect", action="store_true", help="compare what all runs share, where they differ")
    parser.add_argument(
        "--pairs", default="first", choices=("first", "all"), help="all with the first, or each with each"
    )
    parser.add_argument(
        "--pass_at", nargs="*", type=int, metavar="K", help="k of pass@k (2, 4, 8, … as samples allow)"
    )
    parser.add_argument("--test", default="auto", help="auto, mcnemar, permutation or clustered")
    parser.add_argument(
        "--whole_clusters", action="store_true", help="a cluster is one item, right where all of its items are"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where JSON, CSV and the forest plot go")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier comparison left there")
    args = parser.parse_args(argv)
    try:
        _check_output(args.output, args.overwrite)
        from open_r1_vision.compare import compare_runs

        comparison = compare_runs(
            args.runs,
            names=args.names,
            benchmarks=args.benchmarks,
            intersect=args.intersect,
            pairs=args.pairs,
            pass_at=args.pass_at,
            test=args.test,
            whole_clusters=args.whole_clusters,
        )
        sys.stdout.write(f"{comparison}\n")
        if args.output is not None:
            _write(args.output, comparison)
            sys.stdout.write(f"Written: {', '.join(_FILES)} in {args.output}\n")
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


_FILES = ("comparison.json", "comparison.csv", "items.csv", "forest.png")


def _check_output(folder: Path | None, overwrite: bool) -> None:
    if folder is None:
        return
    there = [name for name in _FILES if (folder / name).exists()]
    if there and not overwrite:
        raise ValueError(
            f"{folder} holds {', '.join(there)} of an earlier comparison: set another --output, or --overwrite to "
            "replace them."
        )


def _write(folder: Path, comparison: "Comparison") -> None:
    from open_r1_vision.compare import draw_forest, items_to_csv, to_csv, to_json

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(comparison), indent=1, allow_nan=False)
    (folder / "comparison.json").write_text(text + "\n", encoding="utf-8")
    for name, table in (("comparison.csv", to_csv(comparison)), ("items.csv", items_to_csv(comparison))):
        (folder / name).write_text(table, encoding="utf-8", newline="")
    draw_forest(comparison, folder / "forest.png")


if __name__ == "__main__":
    raise SystemExit(main())
