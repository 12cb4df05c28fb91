# SPDX-License-Identifier: Apache-2.0
import pytest
from running import TINY, check_times, run_bench

from open_r1_vision.bench.caption import NotingCaptionTrainer

SIZES = ["--prompts", 2, "--generations", 3, "--tokens", 6, "--reply-tokens", 4, "--repeats", 1]


def test_both_read_the_same_captions_alike(tmp_path):
    rows = run_bench(tmp_path, "caption", *TINY, *SIZES)
    check_times(rows, "stock")
    for row in rows.values():
        # 6 completions of 6 tokens, and a reply of 4 tokens to each
        assert row["tokens/s"] * row["seconds"] == pytest.approx(60)
        assert all(row[part] > 0 for part in ("generation", "reading", "scoring", "rewards"))
        assert row["equal completions"] == row["equal replies"] == 1
    # rewards of 0 would be equal whatever was read
    assert 0 < rows["ours"]["reward"] < 1
    assert rows["ours"]["reward"] == pytest.approx(rows["stock"]["reward"])
    assert rows["ours"]["advantage gap"] < 1e-5


def test_other_replies_show(tmp_path, monkeypatch):
    generate = NotingCaptionTrainer.generate_greedy
    monkeypatch.setattr(
        NotingCaptionTrainer,
        "generate_greedy",
        # the captions of the other completions
        lambda self, prompts, count: generate(self, prompts[::-1], count),
    )
    ours = run_bench(tmp_path, "caption", *TINY, *SIZES)["ours"]
    assert ours["equal completions"] == 1
    assert ours["equal replies"] < 1
