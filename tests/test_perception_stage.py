# SPDX-License-Identifier: Apache-2.0
"""A step of PeBR-R1's perception stage from a recipe: its four rewards, and the accuracy that is only logged."""

import json
import sys
from pathlib import Path

import pytest
from processes import write_recipe
from tiny_models import image

sys.path.append(str(Path(__file__).parent / "rewards"))

from dual_encoders import save_clip

from open_r1_vision import train

REWARDS = ["clip_reward", "key_words_reward", "sections_format_reward", "length_reward", "accuracy_reward"]


def rows(split="train"):
    """Two rows with an image and one without, which CLIP can't score."""
    return [
        {
            "id": str(index),
            "images": [] if index == 1 else [image(index)],
            "problem": "How many?",
            "solution": "7",
            "problem_type": "number",
            "key_words": ["a", "e"],
        }
        for index in range(3)
    ]


def test_the_rewards_of_a_step(tiny_model, tmp_path):
    paths = [f"open_r1_vision.rewards.{name}" for name in REWARDS]
    path = write_recipe(
        tmp_path,
        tiny_model,
        trainer="open_r1_vision.trainers.VisionGRPOTrainer",
        dataset="test_perception_stage.rows",
        reward_funcs=paths,
        reward_weights=[0.4, 0.4, 0.1, 0.1, 0.0],
        reward_kwargs={
            paths[0]: {"encoder": save_clip(tmp_path / "clip"), "use_images": "mean"},
            paths[1]: {"where": "response", "whole_words": False},
            paths[3]: {"limit": 3},
        },
        answer_form="sections",
        prompts_per_step=3,
        max_completions_per_device=12,
        max_completion_length=6,
        max_steps=1,
        save_strategy="no",
    )
    train.main(["--config", str(path)])
    results = json.loads((tmp_path / "run" / "results.json").read_text())["last_step"]
    means = {name: results[f"rewards/{name}/mean"] for name in REWARDS}
    assert 0 <= means["key_words_reward"] <= 1
    assert 0.5 <= means["length_reward"] <= 1
    assert means["clip_reward"] == means["sections_format_reward"] == means["accuracy_reward"] == 0
    total = 0.4 * means["key_words_reward"] + 0.1 * means["length_reward"]
    assert results["reward"] == pytest.approx(total, abs=1e-6)
