# SPDX-License-Identifier: Apache-2.0
import pytest
from running import TINY, check_times, run_bench

SIZES = ["--prompts", 4, "--generations", 2, "--tokens", 5, "--repeats", 1]


@pytest.mark.parametrize(
    ("settings", "ours"),
    [
        # 4 groups of 2 completions of 5 tokens, and 2 of them again
        ([], 40 + 20),
        # and once more, at the last of 3 levels, in vain
        (["--solved-at", 3], 40 + 20 + 20),
        (["--all-wrong", 0], 40),
        (["--all-wrong", 1, "--levels", 2], 40 + 40),
    ],
)
def test_tokens_of_a_step(tmp_path, settings, ours):
    rows = run_bench(tmp_path, "hint", *TINY, *SIZES, *settings)
    check_times(rows, "authors")
    levels = 2 if "--levels" in settings else 3
    assert {name: row["tokens"] for name, row in rows.items()} == {
        "authors": 40 * levels,
        "parallel": 40 * levels,
        "ours": ours,
    }
    assert [row["equal levels"] for row in rows.values()] == [1, 1, 1]
    assert rows["ours"]["tokens/s"] * rows["ours"]["seconds"] == pytest.approx(ours)
