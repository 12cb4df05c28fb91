# SPDX-License-Identifier: Apache-2.0
"""Compare evaluation runs on the same items, with statistics that hold.

In a notebook:

    from open_r1_vision.compare import compare_runs, draw_forest, to_rows

    comparison = compare_runs(["runs/base", "runs/grpo"])
    print(comparison)
    draw_forest(comparison, "forest.png")
    pandas.DataFrame(to_rows(comparison))

The functions below it take plain lists of scores: `estimate`, `paired_difference`, `pass_at_k`, `smallest_difference`
and `holm`. The statistics are scipy's and statsmodels': pip install 'open_r1_vision[eval]'.
"""

from open_r1_vision.compare.comparison import Comparison, Pair, Table, compare_runs
from open_r1_vision.compare.differences import PairedDifference, holm, paired_difference, smallest_difference
from open_r1_vision.compare.estimates import Estimate, estimate, pass_at_k
from open_r1_vision.compare.forest import draw_forest
from open_r1_vision.compare.table import items_to_csv, to_csv, to_json, to_rows

__all__ = [
    "Comparison",
    "Estimate",
    "Pair",
    "PairedDifference",
    "Table",
    "compare_runs",
    "draw_forest",
    "estimate",
    "holm",
    "items_to_csv",
    "paired_difference",
    "pass_at_k",
    "smallest_difference",
    "to_csv",
    "to_json",
    "to_rows",
]
