# SPDX-License-Identifier: Apache-2.0
"""The doctor in real conditions: what would stop a run is said before it starts, with what to do about it."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from findings import stops
from scripted_server import ScriptedServer

from open_r1_vision.doctor.__main__ import main
from open_r1_vision.doctor.files import check_disk, find_damage
from open_r1_vision.doctor.machine import Machine, check_packages, find_machine, is_free, read_constraints
from open_r1_vision.doctor.report import Report
from open_r1_vision.memory import shapes

ROOT = Path(__file__).parent.parent.parent


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
    assert code == 1 and "acuracy_reward" in stops(said)["rewards"]
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
    assert list(stops(said)) == ["deepspeed"]  # and not once more where memory is estimated


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


def test_the_command(recipe, tmp_path):
    words = [sys.executable, "-m", "open_r1_vision.doctor", "--config"]
    result = subprocess.run([*words, recipe()], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("Nothing found that would stop the run.\n")
    result = subprocess.run([*words, recipe(dataset="nowhere.parquet")], capture_output=True, text=True)
    assert result.returncode == 1 and "1 thing(s) would stop the run." in result.stdout
    # nothing was trained or written
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "code", "message"),
    [
        ("dataset", "def it(split):\n    return {}['rows']\n", "KeyError: 'rows' (mine.py, line 2)"),
        ("dataset", "def it(split):\n    return int('abc')\n", "ValueError: invalid literal for int()"),
        ("dataset", "import sys\n\nsys.exit('no rows here')\n", "SystemExit: no rows here (mine.py, line 3)"),
        ("reward_funcs", "1 / 0\n", "ZeroDivisionError: division by zero (mine.py, line 1)"),
        ("trainer", "def it(:\n", "SyntaxError: invalid syntax (mine.py, line 1)"),
        ("model_name_or_path", "def it():\n    raise RuntimeError\n", "RuntimeError (mine.py, line 2)"),
    ],
)
def test_code_of_the_recipe_that_fails(ask, recipe, key, code, message, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    value = ["mine.it"] if key == "reward_funcs" else "mine.it"
    exit_code, said = ask("--config", recipe(**{key: value, **({"dataset_options": {}} if key == "dataset" else {})}))
    assert exit_code == 1 and message in str(stops(said).values()), said
    # what has nothing to do with it is looked at nevertheless
    assert {"gpus", "packages"} <= set(said)


def test_a_broken_parquet_file(ask, recipe, tmp_path):
    rows = tmp_path / "rows.parquet"
    rows.write_bytes(b"PA")
    code, said = ask("--config", recipe(dataset=str(rows), dataset_options={}))
    assert code == 1
    assert f"{str(rows)!r} is no whole parquet file (Parquet file size is 2 bytes" in stops(said)["data"]
    assert "Fetch or write it anew, or set `dataset` to another one." in stops(said)["data"]


@pytest.mark.parametrize("value", ["abc", "70000", "-1"])
def test_a_port_that_is_none(ask, recipe, value, monkeypatch):
    monkeypatch.setenv("MASTER_PORT", value)
    code, said = ask("--config", recipe())
    assert code == 1
    assert stops(said) == {
        "port": f"MASTER_PORT is {value!r}, which is no port: set a number from 1024 to 65535, or unset it."
    }


def test_ports_that_are_chosen_or_left_out(ask, recipe, monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "0")
    assert ask("--config", recipe())[1]["port"] == [("ok", "0: a free one is taken")]
    monkeypatch.setenv("MASTER_PORT", "")
    assert ask("--config", recipe())[1]["port"][0][1].startswith("29500")
    stopped = stops(ask("--config", recipe(), "--master_port", 70000)[1])
    assert stopped == {
        "port": "--master_port is '70000', which is no port: set a number from 1024 to 65535, or leave it out."
    }


def test_options_that_a_config_refuses(ask, recipe, monkeypatch):
    from open_r1_vision.trainers.config import VisionGRPOConfig

    def refuse(self):
        raise ValueError("top_p is 0.9, but vllm_importance_sampling_correction is on: set one of them.")

    monkeypatch.setattr(VisionGRPOConfig, "__post_init__", refuse)
    monkeypatch.setattr("open_r1_vision.importing._is_users", lambda file: False)
    code, said = ask("--config", recipe(top_p=0.9, use_vllm=True))
    assert code == 1
    assert stops(said)["recipe"] == "top_p is 0.9, but vllm_importance_sampling_correction is on: set one of them."
    assert {"gpus", "model", "packages", "port"} <= set(said)


def test_an_architecture_that_is_not_estimated_stops_nothing(ask, recipe, monkeypatch):
    known = {name: sizes for name, sizes in shapes._VISION_BLOCK.items() if name != "qwen2_5_vl"}
    monkeypatch.setattr(shapes, "_VISION_BLOCK", known)
    shapes.read_shape.cache_clear()
    code, said = ask("--config", recipe(), "--gpus", "1", "--gpu_memory", "80")
    assert code == 0, said
    ((level, text),) = said["memory"]
    assert level == "note" and text.startswith("not estimated. Memory is estimated for")
    assert said["batch"][0][0] == "ok"


def test_a_run_that_goes_on_has_written_a_part_already(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    report = Report(lambda line: None)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "weights").write_bytes(b"x" * 1000)
    # 2 x 400 + 200 = 1000 bytes of 1100
    assert check_disk(report, tmp_path / "run", 400, 1, 200) == 1000
    # 2 x 500 + 200 = 1200 bytes of 1100
    check_disk(report, tmp_path / "run", 500, 1, 200)
    assert [level for level, _, _ in report.findings] == ["ok", "STOP"]
    # no checkpoint at all
    assert check_disk(report, tmp_path / "new", 400, 0, 90) == 90
    assert report.findings[-1][0] == "ok"


@pytest.mark.parametrize(("words", "message"), [(("-1", "80"), "--gpus is -1"), (("1", "0"), "--gpu_memory is 0")])
def test_machines_that_there_are_not(ask, recipe, words, message):
    _, said = ask("--config", recipe(), "--gpus", words[0], "--gpu_memory", words[1])
    assert message in stops(said)["recipe"]


def test_a_tracker_that_is_not_installed(ask, recipe, monkeypatch):
    monkeypatch.setattr("transformers.integrations.integration_utils.is_trackio_available", lambda: False)
    code, said = ask("--config", recipe(report_to="trackio"))
    assert code == 1
    assert stops(said)["report_to"].startswith("report_to is 'trackio', but trackio is not installed here: `pip inst")
    _, said = ask("--config", recipe(report_to="none"))
    assert "report_to" not in stops(said)
