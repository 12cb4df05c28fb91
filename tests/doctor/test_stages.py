# SPDX-License-Identifier: Apache-2.0
"""Curricula: for the machine once, for each stage what is its own, whatever else is wrong with it."""

from pathlib import Path

import pytest
import yaml
from findings import stops

ROOT = Path(__file__).parent.parent.parent
#: Of a curriculum of PeBR-R1 on 8 GPUs of 80 GiB.
PEBR_7B = ["--config", ROOT / "recipes" / "qwen2_5_vl_7b" / "pebr_r1.yaml", "--gpus", 8, "--gpu_memory", 80]


@pytest.fixture
def curriculum(tmp_path, model_folder):
    """`curriculum(warm_up={...}, reason={...})` gives the path of one, its stages changed by these settings."""

    def write(warm_up=None, reason=None, model=None):
        path = tmp_path / "curriculum.yaml"
        lessons = {
            "model_name_or_path": model or model_folder("qwen2_5_vl"),
            "dataset": "open_r1_vision.starter.warm_up.rows",
            "dataset_options": {"count": 8},
            "save_total_limit": 1,
        }
        training = {
            "model_name_or_path": "{warm_up.final}",
            "dataset": "open_r1_vision.starter.digits.rows",
            "dataset_options": {"count": 8},
            "reward_funcs": ["open_r1_vision.rewards.accuracy_reward"],
            "prompts_per_step": 4,
            "num_generations": 2,
            "save_total_limit": 1,
        }
        stages = [
            {"name": "warm_up", "run": "sft", "settings": {**lessons, **(warm_up or {})}},
            {"name": "reason", "run": "train", "settings": {**training, **(reason or {})}},
        ]
        path.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "run"), "stages": stages}))
        return path

    return write


def test_a_curriculum_is_looked_at_stage_by_stage(ask):
    words = ["--config", ROOT / "recipes" / "qwen2_5_vl_3b" / "pebr_r1.yaml"]
    code, said = ask(*words, "--gpus", 8, "--gpu_memory", 80)
    assert code == 1
    for stage, name in (("warm_up", "mulberry_sft.json"), ("difficulty", "pebr_grpo_dataset.json")):
        assert any(name in text for level, text in said[stage] if level == "STOP"), stage
    assert said["reason"][0][0] == "ok" and said["splits"] == [("ok", "split, 8 process(es)")]
    overlay = ROOT / "recipes" / "hardware" / "pebr_r1_4_gpus.yaml"
    _, said = ask(*words, overlay, "--gpus", 4, "--gpu_memory", 80)
    assert "4 process(es)" in said["reason"][0][1]
    _, said = ask(*words, "--gpus", 4, "--gpu_memory", 80)
    assert stops(said)["reason"].startswith("it has 8 processes for 4 GPU(s)")


def test_a_warm_up(ask, tmp_path):
    recipe = ROOT / "recipes" / "starter" / "warm_up.yaml"
    few = ["--config", recipe, "--dataset_options", '{"count": 8}']
    code, said = ask(*few)
    assert code == 0 and "keys of open_r1_vision.sft" in said["recipe"][0][1]
    code, said = ask(*few, "--dataset", "nowhere.parquet")
    assert code == 1 and "nowhere.parquet" in stops(said)["recipe"]


def test_a_curriculum_that_would_start(ask, curriculum):
    code, said = ask("--config", curriculum(), "--rows", 3)
    assert code == 0, said
    assert said["recipe"] == [("ok", "2 stages: warm_up, reason")]
    assert said["gpus"][0][0] == "note" and said["memory"] == [
        ("note", "estimated for GPUs alone: --gpus and --gpu_memory say which")
    ]
    assert said["disk"][0][0] == "ok" and "the stages together need" in said["disk"][0][1]
    assert said["output"][0][1].startswith("a new curriculum in")
    assert said["warm_up"][0] == ("ok", "sft, 1 process(es)")
    assert any(text.startswith("model: ") and "config, processor" in text for _, text in said["warm_up"])
    assert ("ok", "data: 8 rows; columns are there") in said["warm_up"]
    # the later stage takes its model from the earlier one
    assert not any(text.startswith("model: ") for _, text in said["reason"])
    assert ("ok", "data: 8 rows; columns are there, the first 3 are good") in said["reason"]


def test_what_is_wrong_takes_no_other_line_away(ask):
    code, said = ask(*PEBR_7B)
    assert code == 1
    assert said["gpus"][0][0] == "note" and said["attention"] == [("ok", "flash_attention_2")]
    assert said["deepspeed"] == [("ok", "ZeRO-3")]
    texts = {name: "\n".join(text for _, text in said[name]) for name in ("warm_up", "perceive", "reason")}
    assert "model: Qwen/Qwen2.5-VL-7B-Instruct was not downloaded" in texts["warm_up"]
    # the peak that the recipe's header has, though the encoder of a reward is missing
    assert any(level == "STOP" and "fg-clip-large" in text for level, text in said["perceive"])
    assert "memory: 71.7 of 80.0 GiB on each GPU" in texts["perceive"]
    assert "7 process(es) x 4 per device" in texts["perceive"]
    assert "memory: 69.2 of 80.0 GiB on each GPU" in texts["reason"]


def test_a_key_that_is_none_leaves_the_estimate(ask, curriculum):
    path = curriculum(reason={"prompts_per_stepp": 4})
    code, said = ask("--config", path, "--gpus", 1, "--gpu_memory", 80)
    assert code == 1
    wrong = [text for level, text in said["reason"] if level == "STOP"]
    assert wrong == ["Unknown key `prompts_per_stepp`. Did you mean `prompts_per_step`?"]
    assert any("of 80.0 GiB on each GPU" in text for _, text in said["reason"])


def test_options_that_are_refused_are_said_once(ask, curriculum):
    code, said = ask("--config", curriculum(reason={"log_image_size": -1}))
    assert code == 1
    wrong = [text for level, text in said["reason"] if level == "STOP"]
    assert wrong == ["log_image_size is -1, which no image can have: set pixels, or 0 to keep none."]
    assert ("note", "memory: not estimated before its keys and values are right") in said["reason"]


def test_stages_that_differ_are_named(ask, curriculum, monkeypatch):
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: False)
    code, said = ask("--config", curriculum(reason={"attn_implementation": "flash_attention_2", "report_to": "wandb"}))
    assert code == 1
    assert ("STOP", "attention: flash_attention_2 needs a GPU: set attn_implementation: sdpa.") in said["reason"]
    missing = "report_to: report_to is 'wandb', but wandb is not installed here: `pip install wandb`"
    assert any(text.startswith(missing) for level, text in said["reason"] if level == "STOP")
    assert not [text for level, text in said["warm_up"] if level == "STOP"]


def test_keys_of_the_command_line_are_for_every_stage(ask, curriculum, tmp_path):
    code, said = ask("--config", curriculum(), "--seed", 3, "--output_dir", tmp_path / "other", "--processes", 2)
    assert code == 0, said
    assert said["output"] == [("ok", f"a new curriculum in {tmp_path / 'other'}")]
    assert said["warm_up"][0] == ("ok", "sft, 2 process(es)")
    assert "unknown key" not in str(said)


def test_data_set_functions_that_fail(ask, curriculum, tmp_path, monkeypatch):
    (tmp_path / "my_lessons.py").write_text("def rows(split):\n    return {}[split]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    code, said = ask("--config", curriculum(warm_up={"dataset": "my_lessons.rows", "dataset_options": {}}))
    assert code == 1
    wrong = [text for level, text in said["warm_up"] if level == "STOP"]
    assert wrong == ["KeyError: 'train' (my_lessons.py, line 2)"]


def test_a_disk_that_holds_one_stage_but_not_all(ask, curriculum, monkeypatch):
    _, said = ask("--config", curriculum())
    sizes = [
        text.split(" free at")[1].split(", ")[1] for _, text in said["warm_up"] + said["reason"] if "disk:" in text
    ]
    assert len(sizes) == 2
    needed = max(float(size.split(" MiB")[0]) for size in sizes) * 2**20
    free = int(1.1 * needed)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free})())
    code, said = ask("--config", curriculum())
    assert code == 1 and list(stops(said)) == ["disk"]
    assert "but the stages together need" in stops(said)["disk"]


def test_a_finished_stage_is_not_looked_at(ask, curriculum, tmp_path):
    from open_r1_vision.curriculum.recipe import read_curriculum
    from open_r1_vision.curriculum.state import FINISHED, CurriculumState

    path = curriculum(warm_up={"dataset": "nowhere.parquet", "dataset_options": {}})
    read = read_curriculum(path)
    (tmp_path / "run" / "warm_up").mkdir(parents=True)
    CurriculumState(read).note(read.stage("warm_up"), FINISHED)
    _, said = ask("--config", path)
    assert said["warm_up"] == [("ok", "finished, and would be skipped")]
    assert said["output"] == [("ok", f"goes on with reason in {tmp_path / 'run'}")]
    _, said = ask("--config", curriculum(warm_up={"dataset": "other.parquet", "dataset_options": {}}))
    assert "warm_up.dataset: nowhere.parquet -> other.parquet" in stops(said)["output"]
