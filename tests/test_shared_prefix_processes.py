# SPDX-License-Identifier: Apache-2.0
"""Two processes whose groups share prompts, under DDP and ZeRO-3, against processes whose completions don't."""

import json

import pytest
from processes import run_train, write_deepspeed, write_recipe


def steps(folder, model, engine, **settings):
    """Logs of two steps with 3 groups of 4 completions each, the second of them on both processes.

    Row 0 fills half of process 0's first micro-batch, so that one with images stands beside one without; in step 2
    only process 1 has images.
    """
    if engine == "zero3":
        folder.mkdir(parents=True, exist_ok=True)
        settings["deepspeed"] = write_deepspeed(folder, 3)
    recipe = write_recipe(
        folder,
        model,
        dataset_options={"count": 6, "texts": [1, 3, 4]},
        prompts_per_step=3,
        max_completions_per_device=6,
        max_steps=2,
        **settings,
    )
    outcome = run_train(recipe, timeout=400)
    assert outcome.code == 0, outcome.log[-5000:]
    state = json.loads((folder / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    return [entry for entry in state["log_history"] if "grad_norm" in entry]


@pytest.mark.parametrize("engine", ["ddp", "zero3"])
def test_both_ways_agree(tiny_model, tmp_path, engine):
    names = ("grad_norm", "reward", "kl", "entropy", "completions/mean_length")
    shared = steps(
        tmp_path / "shared", tiny_model, engine, shared_prefix=True, gradient_checkpointing=engine == "zero3"
    )
    separate = steps(tmp_path / "separate", tiny_model, engine, shared_prefix=False)
    assert len(shared) == len(separate) == 2
    for measured, wanted in zip(shared, separate, strict=True):
        expected = [wanted[name] for name in names]
        assert [measured[name] for name in names] == pytest.approx(expected, rel=2e-4, abs=1e-6)
        # process 0 logs: four completions of one prompt and two of another in six rows
        assert 0.4 < measured["shared_prefix/tokens_saved"] < 0.7
        assert "shared_prefix/tokens_saved" not in wanted
    assert min(entry["grad_norm"] for entry in shared) > 0.1
