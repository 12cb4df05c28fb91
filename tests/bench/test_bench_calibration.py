# SPDX-License-Identifier: Apache-2.0
import pytest
from running import TINY, check_times, run_bench


def test_ours_replies_as_the_authors_code_does(tmp_path):
    sizes = ["--prompts", 3, "--tokens", 7, "--repeats", 1, "--scale", 2]
    rows = run_bench(tmp_path, "calibration", *TINY, *sizes)
    check_times(rows, "authors")
    assert rows["ours"]["equal"] == 1
    # else it would show nothing that they are equal
    assert rows["plain"]["equal"] < 1
    for row in rows.values():
        assert row["tokens/s"] * row["seconds"] == pytest.approx(21)


def test_without_calibration_all_are_equal(tmp_path):
    sizes = ["--prompts", 2, "--tokens", 7, "--repeats", 1, "--scale", 0]
    rows = run_bench(tmp_path, "calibration", *TINY, *sizes)
    assert [row["equal"] for row in rows.values()] == [1, 1, 1]
