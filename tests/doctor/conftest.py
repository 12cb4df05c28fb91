# SPDX-License-Identifier: Apache-2.0
"""A recipe that would start, and the doctor's lines about one."""

import pytest
import yaml

from open_r1_vision.doctor.__main__ import main


@pytest.fixture
def recipe(tmp_path, model_folder):
    """`recipe(key=value)` gives the path of a recipe that would start."""

    def write(**settings):
        path = tmp_path / "recipe.yaml"
        plain = {
            "trainer": "open_r1_vision.trainers.VisionGRPOTrainer",
            "model_name_or_path": model_folder("qwen2_5_vl"),
            "dataset": "open_r1_vision.starter.digits.rows",
            "dataset_options": {"count": 8},
            "reward_funcs": ["open_r1_vision.rewards.accuracy_reward"],
            "prompts_per_step": 4,
            "num_generations": 2,
            "output_dir": str(tmp_path / "run"),
            "save_total_limit": 1,
            "report_to": "none",
            **settings,
        }
        path.write_text(yaml.safe_dump(plain))
        return str(path)

    return write


@pytest.fixture
def ask(capsys):
    """`ask(*words)` gives the exit code and what was said about each topic, by level."""

    def run(*words):
        code = main([*map(str, words)])
        said = {}
        for line in capsys.readouterr().out.splitlines():
            level, topic, text = line[:4].strip(), line[6:17].strip(), line[19:]
            if level in ("ok", "note", "STOP"):
                said.setdefault(topic, []).append((level, text))
        return code, said

    return run
