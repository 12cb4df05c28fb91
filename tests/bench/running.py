# SPDX-License-Identifier: Apache-2.0
"""Running a benchmark's command as a user does."""

import json

from open_r1_vision.bench.__main__ import main

#: Of models of 0.2 million parameters and images of 16 tokens.
TINY = ("--shape", "tiny", "--pixels", "112", "--device", "cpu")


def run_bench(folder, *words):
    """The rows of a benchmark, by the value of their first column."""
    path = folder / "bench.json"
    main([*map(str, words), "--json", str(path)])
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {next(iter(row.values())): row for row in rows}


def check_times(rows, first):
    """What holds for the columns of times, whatever the times are."""
    for row in rows.values():
        assert 0 < row["least"] <= row["seconds"] <= row["most"]
        assert abs(row["times as fast"] * row["seconds"] / rows[first]["seconds"] - 1) < 1e-9
