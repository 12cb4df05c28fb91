# SPDX-License-Identifier: Apache-2.0
"""Warm-up from a recipe, with lessons that have an image and lessons that have none."""

import json
from pathlib import Path

from transformers import AutoModelForImageTextToText

from open_r1_vision import sft
from open_r1_vision.models import load_processor

RECIPE = Path(__file__).parents[1] / "recipes" / "starter" / "warm_up.yaml"


def test_the_warm_up_recipe_learns_and_saves_a_whole_folder(tmp_path):
    options = {"max_steps": 12, "logging_steps": 1, "warmup_steps": 2, "per_device_train_batch_size": 8}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    rows = ["--dataset_options", '{"count": 96}', "--save_strategy", "steps", "--save_steps", "12"]
    folder = sft.main(["--config", str(RECIPE), "--output_dir", str(tmp_path), *words, *rows])

    state = json.loads((tmp_path / "checkpoint-12" / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    # log(512) = 6.2 is what a model without a clue has
    assert 5.5 < losses[0] < 7.5
    assert losses[-1] < 4
    _, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert load_processor(folder).tokenizer.vocab_size <= 512
