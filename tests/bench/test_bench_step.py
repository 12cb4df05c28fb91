# SPDX-License-Identifier: Apache-2.0
import pytest
from running import TINY, check_times, run_bench


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_take_the_same_steps(tmp_path, dtype):
    sizes = ["--prompts", 2, "--generations", 4, "--tokens", 6, "--repeats", 2, "--dtype", dtype]
    rows = run_bench(tmp_path, "step", *TINY, *sizes)
    check_times(rows, "stock")
    assert list(rows) == ["stock", "ours"]
    for row in rows.values():
        # 2 prompts, 4 completions of 6 tokens
        assert row["tokens/s"] * row["seconds"] == pytest.approx(48)
        assert all(row[part] > 0 for part in ("generation", "scoring", "rewards", "update"))
    assert rows["stock"]["share of peak"] == 1
    assert rows["ours"]["equal"] == 1 if dtype == "float32" else 0 <= rows["ours"]["equal"] <= 1
    if dtype == "float32":
        assert rows["ours"]["loss gap"] < 1e-6
        assert rows["ours"]["gradient norm gap"] < 1e-4


def test_a_change_of_the_update_shows(tmp_path, monkeypatch):
    from open_r1_vision.trainers import VisionGRPOTrainer

    stock_loss = VisionGRPOTrainer.compute_loss
    monkeypatch.setattr(
        VisionGRPOTrainer, "compute_loss", lambda self, *args, **kwargs: 2 * stock_loss(self, *args, **kwargs)
    )
    sizes = ["--prompts", 1, "--generations", 4, "--tokens", 6, "--repeats", 1, "--optimizer", "sgd"]
    rows = run_bench(tmp_path, "step", *TINY, *sizes, "--gradient-checkpointing")
    assert rows["ours"]["equal"] == 1
    assert rows["ours"]["gradient norm gap"] == pytest.approx(1, abs=1e-3)
