# SPDX-License-Identifier: Apache-2.0
"""CurriculumGRPOTrainer ends with the command's weights; a curriculum of captions and hints runs in real processes."""

import json
from pathlib import Path

import pytest
from miniature import curriculum_command, write_curriculum
from processes import rows, text_reward
from safetensors.torch import load_file

from open_r1_vision.data.rows import add_prompts, rows_from_list
from open_r1_vision.trainers import VisionGRPOConfig
from open_r1_vision.trainers.curriculum import CurriculumGRPOTrainer, TrainStage

#: The starter's own model; seeded sampling, so that every number of a run is the same again.
STARTER = "open_r1_vision.starter.model.policy"
SETTINGS = {
    "num_generations": 4,
    "prompts_per_step": 2,
    "max_completions_per_device": 8,
    "max_completion_length": 6,
    "max_steps": 2,
    "learning_rate": 1.0e-3,
    "gradient_checkpointing": False,
    "beta": 0.04,
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "num_completions_to_print": 0,
    "seed": 3,
}


def stage(name, model, **settings):
    plain = {**SETTINGS, "model_name_or_path": model, "dataset": "processes.rows", "dataset_options": {"count": 6}}
    return {"name": name, "run": "train", "settings": {**plain, "reward_funcs": ["processes.text_reward"], **settings}}


@pytest.mark.slow
def test_the_notebook_s_trainer_ends_with_the_command_s_weights(tmp_path):
    stages = [stage("perceive", STARTER), stage("reason", "{perceive.final}", learning_rate=2.0e-3)]
    curriculum_command(write_curriculum(tmp_path, stages)).finish()

    from open_r1_vision.starter.model import policy

    data = add_prompts(rows_from_list(rows(count=6), "processes.rows"))
    folder = tmp_path / "together"
    CurriculumGRPOTrainer(
        policy(),
        [
            TrainStage(_options(folder / "perceive"), [text_reward], data),
            TrainStage(_options(folder / "reason", learning_rate=2.0e-3), [text_reward], data),
        ],
    ).train()
    weights = {}
    for name in ("perceive", "reason"):
        ours = (folder / name / "final" / "model.safetensors").read_bytes()
        theirs = (tmp_path / "runs" / name / "final" / "model.safetensors").read_bytes()
        assert ours == theirs, name
        weights[name] = load_file(folder / name / "final" / "model.safetensors")
    start = load_file(Path(policy()) / "model.safetensors")
    for before, after in ((start, weights["perceive"]), (weights["perceive"], weights["reason"])):
        assert any((before[key] != after[key]).any() for key in before)


def _options(folder, **settings):
    model = {"model_init_kwargs": {"dtype": "float32"}, "report_to": "none"}
    return VisionGRPOConfig(output_dir=str(folder), **{**SETTINGS, **model, **settings})


@pytest.mark.slow
def test_a_curriculum_of_captions_and_of_hints(tiny_model, tmp_path):
    hinted = {"dataset": "processes.hinted_rows", "dataset_options": {}, "hint_gate": "processes.level_gate"}
    stages = [
        stage(
            "describe",
            tiny_model,
            trainer="processes.CaptioningTrainer",
            reward_funcs=["processes.text_reward", "processes.answer_reward"],
            reward_weights=[1.0, 0.5],
            max_steps=1,
        ),
        stage(
            "reason",
            "{describe.final}",
            trainer="open_r1_vision.trainers.HintGRPOTrainer",
            **hinted,
            prompts_per_step=3,
            max_completions_per_device=12,
            shuffle_dataset=False,
            max_steps=1,
        ),
    ]
    command = curriculum_command(write_curriculum(tmp_path, stages))
    command.finish()
    results = {
        name: json.loads((tmp_path / "runs" / name / "results.json").read_text()) for name in ("describe", "reason")
    }
    assert [results[name]["steps"] for name in results] == [1, 1]
    # CaptioningTrainer gives two completions of three a caption; without one the reward is 0
    assert results["describe"]["last_step"]["rewards/answer_reward/mean"] > 0
    # the first three rows are right from levels 0, 1 and 2 on
    levels = [results["reason"]["last_step"][f"hints/level_{level}"] for level in (0, 1, 2)]
    assert levels == pytest.approx([1 / 3] * 3)
    assert results["reason"]["settings"]["model_name_or_path"] == str(tmp_path / "runs" / "describe" / "final")
    before, after = (load_file(tmp_path / "runs" / name / "final" / "model.safetensors") for name in results)
    assert any((before[key] != after[key]).any() for key in before)
