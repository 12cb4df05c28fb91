# SPDX-License-Identifier: Apache-2.0
"""Held-out measures of finished runs, before and after, as a Markdown table.

    python eval/table.py runs/starter/visionary_r1_seed0 runs/starter/grpo_seed0

Intervals are Wilson's at 95 %, p is McNemar's exact test on the same rows.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="output folders of finished runs")
    args = parser.parse_args(argv)

    from open_r1_vision.held_out import MEASURES
    from open_r1_vision.report import read_results
    from open_r1_vision.statistics import Proportion

    lines = ["| run | measure | before | after | points | p |", "|---|---|---|---|---|---|"]
    for run in args.runs:
        for name, measure in read_results(run)["held_out"]["measures"].items():
            before, after = (Proportion(**measure[when]) for when in ("before", "after"))
            change = measure["change"]
            points = f"{100 * change['difference']:+.1f}"
            lines.append(
                f"| {run.name} | {MEASURES[name]} | {before} | {after} | {points} | {change['p_value']:.1g} |"
            )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
