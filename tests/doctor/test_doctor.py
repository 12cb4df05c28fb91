# SPDX-License-Identifier: Apache-2.0
"""The doctor in real conditions: what would stop a run is said before it starts, with what to do about it."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from scripted_server import ScriptedServer

from open_r1_vision.doctor.__main__ import main
from open_r1_vision.doctor.files import find_damage
from open_r1_vision.doctor.machine import Machine, check_packages, find_machine, is_free, read_constraints
from open_r1_vision.doctor.report import Report

ROOT = Path(__file__).parent.parent.parent


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


def stops(said):
    return {topic: text for topic, lines in said.items() for level, text in lines if level == "STOP"}


def test_a_recipe_that_would_start(ask, recipe):
    code, said = ask("--config", recipe(), "--rows", 3)
    assert code == 0 and not stops(said)
    assert set(said) == {
        *("python", "packages", "port", "recipe", "gpus", "model", "batch", "memory", "disk", "rewards", "data"),
        "output",
    }
    assert said["batch"][0][1].startswith("4 prompts x 2 completions = 8 completions per step = 1 process(es)")
    assert said["data"] == [("ok", "8 rows; columns are there, the first 3 are good")]
    assert said["rewards"] == [("ok", "accuracy_reward")]
    assert "config, processor," in said["model"][0][1]


def test_a_typing_error_names_its_file(ask, recipe, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("max_completions_per_devise: 2\n")
    code, said = ask("--config", recipe(), overlay)
    assert code == 1
    assert f"`max_completions_per_devise` in {overlay}. Did you mean `max_completions_per_device`?" in str(stops(said))


def test_no_recipe(ask):
    assert ask("--rows", 3) == (
        1,
        {"recipe": [("STOP", "no recipe is named: give --config RECIPE, and overlays behind it.")]},
    )
    assert "There is no recipe 'nowhere.yaml'" in stops(ask("--config", "nowhere.yaml")[1])["recipe"]


def test_a_key_that_is_required(ask, tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("output_dir: runs/x\n")
    assert "--dataset" in stops(ask("--config", path)[1])["recipe"]


def test_a_busy_port(ask, recipe, monkeypatch):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        assert not is_free(port)
        code, said = ask("--config", recipe(), "--master_port", port)
        assert code == 1 and stops(said)["port"].startswith(f"{port} is taken by another program")
        monkeypatch.setenv("MASTER_PORT", str(port))
        assert "port" in stops(ask("--config", recipe())[1])
    assert is_free(port)
    assert "port" not in stops(ask("--config", recipe(), "--master_port", port)[1])


def test_a_server_that_is_down_and_one_that_answers(ask, recipe):
    server = ScriptedServer()
    with server:
        block = {"kind": "endpoint", "model": "judge", "base_url": server.url, "start_seconds": 2}
        settings = {
            "trainer": "open_r1_vision.trainers.CaptionGRPOTrainer",
            "reward_funcs": ["open_r1_vision.rewards.caption_reward"],
            "reasoner": block,
        }
        code, said = ask("--config", recipe(**settings))
        assert code == 0 and said["reasoner"] == [("ok", f"judge answers at {server.url}")]
    code, said = ask("--config", recipe(**settings))
    assert code == 1 and "does not answer within start_seconds 2" in stops(said)["reasoner"]


def test_a_vllm_server_that_is_down(ask, recipe):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code, said = ask("--config", recipe(use_vllm=True, vllm_mode="server", vllm_server_port=port))
    assert code == 1
    assert any(f"does not answer at http://0.0.0.0:{port}" in text for _, text in said["vllm"]), said


def copy_model(model_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_folder("qwen2_5_vl"), folder)
    return folder


def test_a_truncated_model(ask, recipe, model_folder, tmp_path):
    folder = copy_model(model_folder, tmp_path)
    weights = folder / "model.safetensors"
    size = weights.stat().st_size
    with weights.open("r+b") as file:
        file.truncate(size - 1000)
    code, said = ask("--config", recipe(model_name_or_path=str(folder)))
    assert code == 1
    assert f"model.safetensors has {size - 1000} bytes, but its header tells of {size}" in stops(said)["model"]
    # the rows are looked at nevertheless, as far as they can be
    assert "not looked at without a processor" in said["data"][0][1]


def test_damage_of_safetensors(model_folder, tmp_path):
    folder = copy_model(model_folder, tmp_path)
    assert find_damage(folder) is None
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:5])
    assert "was cut off in its header (5 bytes)" in find_damage(folder)
    weights.write_bytes(whole[:100])
    assert "was cut off in its header (100 bytes)" in find_damage(folder)
    weights.write_bytes(whole[:8] + b"x" * (len(whole) - 8))
    assert "the header of model.safetensors can't be read" in find_damage(folder)
    weights.write_bytes(whole + b"more")
    assert "its header tells of" in find_damage(folder)
    weights.unlink()
    assert find_damage(folder) == "model.safetensors is missing"
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "3.safetensors"}}))
    (folder / "1.safetensors").write_bytes(whole)
    assert find_damage(folder) == "2.safetensors is missing, and 1 more"
    for name in ("2", "3"):
        (folder / f"{name}.safetensors").write_bytes(whole)
    assert find_damage(folder) is None
    (folder / "3.safetensors").write_bytes(whole[:-1])
    assert find_damage(folder).startswith("3.safetensors has")
    index.write_text("{")
    assert "index.json can't be read" in find_damage(folder)


def test_a_folder_that_is_no_model(ask, recipe, model_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    _, said = ask("--config", recipe(model_name_or_path=str(tmp_path / "empty")))
    assert "has no config.json" in stops(said)["model"]
    folder = copy_model(model_folder, tmp_path)
    for path in folder.glob("*processor*"):
        path.unlink()
    _, said = ask("--config", recipe(model_name_or_path=str(folder)))
    assert "No processor of a vision-language model could be loaded" in stops(said)["model"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/name/more", "and it is no hub id"),
        ("Qwen/Qwen2-VL-2B-Instruct", "was not downloaded, and HF_HUB_OFFLINE is set: hf download Qwen/Qwen2-VL-2B"),
    ],
)
def test_a_model_that_is_not_there(ask, recipe, name, message, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    _, said = ask("--config", recipe(model_name_or_path=name))
    assert message in stops(said)["model"]


def test_a_missing_column(ask, recipe, tmp_path):
    rows = tmp_path / "rows.jsonl"
    row = {"id": "a", "images": [], "problem": "2 + 2?", "solution": "4", "problem_type": "number", "source": "x"}
    rows.write_text(json.dumps(row) + "\n")
    settings = {"dataset": str(rows), "dataset_options": {}}
    assert ask("--config", recipe(**settings))[0] == 0
    code, said = ask("--config", recipe(**settings, reward_funcs=["open_r1_vision.rewards.key_words_reward"]))
    assert code == 1 and "key_words" in stops(said)["data"]


def test_a_bad_row(ask, recipe, tmp_path):
    rows = tmp_path / "rows.jsonl"
    row = {"id": "a", "problem": "<image>2 + 2?", "solution": "4", "problem_type": "number", "source": "x"}
    rows.write_text(json.dumps({**row, "images": [str(tmp_path / "nowhere.png")]}) + "\n")
    code, said = ask("--config", recipe(dataset=str(rows), dataset_options={}))
    assert code == 1 and "1 of the 1 rows that were checked can't be trained on" in stops(said)["data"]


def test_a_reward_that_cannot_be_imported(ask, recipe):
    code, said = ask("--config", recipe(reward_funcs=["open_r1_vision.rewards.acuracy_reward"]))
    assert code == 1 and "acuracy_reward" in stops(said)["data"]
    _, said = ask("--config", recipe(reward_weights=[1.0, 0.5]))
    assert "reward_weights has 2 numbers, but there are 1 reward_funcs" in stops(said)["rewards"]


def test_a_gpu_that_is_too_small(ask, capsys):
    recipes = ROOT / "recipes"
    words = ["--config", recipes / "qwen2_5_vl_7b" / "racro_grpo.yaml", recipes / "hardware" / "1_gpu_lora.yaml"]
    code, said = ask(*words, "--gpus", 1, "--gpu_memory", 24)
    assert code == 1
    assert "but there are 24.0: lower max_completions_per_device" in stops(said)["memory"]
    assert "0 tokens, but the longest prompt and completion are 16384" in stops(said)["vllm"]
    _, said = ask(*words, "--gpus", 1, "--gpu_memory", 80)
    assert said["memory"][0][0] == said["vllm"][0][0] == "ok"
    main([*map(str, words), "--gpus", "1", "--gpu_memory", "80", "--verbose"])
    assert "optimizer              1.54  2 x 4 B x 0.21e9" in capsys.readouterr().out
    assert said["gpus"][0][0] == "note"


def test_completions_that_gpus_cannot_share(ask, recipe):
    code, said = ask("--config", recipe(), "--gpus", 3, "--gpu_memory", 80)
    assert code == 1 and "can't be shared evenly by 3 processes" in stops(said)["batch"]


def test_gpus_that_are_not_here():
    with pytest.raises(ValueError, match="--gpus is 64, but this machine has .*give --gpu_memory too"):
        find_machine(64, None)
    assert find_machine(2, 1.5) == Machine(2, 3 * 2**29, is_here=False)


def test_flash_attention_without_a_gpu(ask, recipe):
    code, said = ask("--config", recipe(attn_implementation="flash_attention_2"))
    assert code == 1 and "needs a GPU: set attn_implementation: sdpa" in stops(said)["attention"]


def test_deepspeed_without_its_tools(ask, recipe, monkeypatch, tmp_path):
    zero = str(ROOT / "recipes" / "deepspeed" / "zero3.json")
    monkeypatch.setenv("PATH", str(tmp_path))
    code, said = ask("--config", recipe(deepspeed=zero))
    assert code == 1
    assert "lacks ninja on PATH (pip install ninja) and a C++ compiler (g++)" in stops(said)["deepspeed"]
    code, said = ask("--config", recipe(deepspeed="nowhere.json"))
    assert "'nowhere.json', but there is no such file" in str(stops(said))


def test_a_full_disk(ask, recipe, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    code, said = ask("--config", recipe())
    assert code == 1 and "2 checkpoints and the model need" in stops(said)["disk"]
    assert "lower save_total_limit" in stops(said)["disk"]


def test_an_output_folder_of_another_run(ask, recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    code, said = ask("--config", recipe())
    assert code == 1 and "holds files, but no run.json" in stops(said)["output"]


def test_packages_outside_their_range(monkeypatch):
    report = Report(lambda line: None)
    monkeypatch.setattr("open_r1_vision.doctor.machine.find_version", lambda name: "0.1")
    check_packages(report, [])
    ((level, _, text),) = report.findings
    assert level == "STOP" and "trl is 0.1: pip install -c constraints.txt 'trl<1.17,>=1.16'" in text
    assert "vllm" not in text
    report.findings.clear()
    monkeypatch.setattr("open_r1_vision.doctor.machine.find_version", lambda name: None)
    check_packages(report, ["vllm"], is_here=False)
    ((level, _, text),) = report.findings
    assert level == "note" and "vllm is missing: pip install" in text


def test_packages_that_were_not_tested_together(monkeypatch):
    from open_r1_vision.doctor import machine

    tested = read_constraints()
    assert tested["trl"] == "1.16.0"
    monkeypatch.setattr(machine, "read_constraints", lambda: {**tested, "datasets": "5.1.9"})
    report = Report(lambda line: None)
    check_packages(report, [])
    ((level, _, text),) = report.findings
    assert level == "note" and f"datasets {machine.find_version('datasets')} (tested 5.1.9)" in text


def test_a_curriculum_is_looked_at_stage_by_stage(ask):
    words = ["--config", ROOT / "recipes" / "qwen2_5_vl_3b" / "pebr_r1.yaml"]
    code, said = ask(*words, "--gpus", 8, "--gpu_memory", 80)
    found = stops(said)
    assert code == 1 and "mulberry_sft.json" in found["warm_up"] and "pebr_grpo_dataset.json" in found["difficulty"]
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


def test_the_command(recipe, tmp_path):
    words = [sys.executable, "-m", "open_r1_vision.doctor", "--config"]
    result = subprocess.run([*words, recipe()], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("Nothing found that would stop the run.\n")
    result = subprocess.run([*words, recipe(dataset="nowhere.parquet")], capture_output=True, text=True)
    assert result.returncode == 1 and "1 thing(s) would stop the run." in result.stdout
    # nothing was trained or written
    assert not (tmp_path / "run").exists()
