# SPDX-License-Identifier: Apache-2.0
"""Runs of `open_r1_vision.train` in one process: recipes, refusals, resuming, and what a run leaves behind."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from processes import rows, text_reward, write_recipe
from safetensors.torch import load_file
from tiny_models import image
from transformers import AutoModelForImageTextToText, GenerationConfig

from open_r1_vision import train
from open_r1_vision.arguments import read_recipe
from open_r1_vision.generation import GreedyGenerator
from open_r1_vision.held_out import evaluate, read_evaluations
from open_r1_vision.models import load_processor
from open_r1_vision.trainers import VisionGRPOTrainer

#: What `stumbling_reward` does in the step with this number.
STUMBLE = {"step": None}


@pytest.fixture
def recipe(tiny_model, tmp_path):
    """`recipe(**settings)` writes a recipe of 2 steps on 4 rows that saves nothing on its way."""

    def write(**settings):
        defaults = {
            "trainer": "open_r1_vision.trainers.VisionGRPOTrainer",
            "dataset_options": {"count": 4},
            "max_completions_per_device": 8,
            "max_steps": 2,
            "save_strategy": "no",
        }
        return str(write_recipe(tmp_path, tiny_model, **{**defaults, **settings}))

    return write


def run(path, *words):
    return train.main(["--config", path, *words])


def refusal(capsys, monkeypatch, path, *words):
    """The message with which the command line refuses to start."""
    monkeypatch.setattr(sys, "argv", ["train", "--config", path, *words])
    with pytest.raises(SystemExit) as caught:
        train.run_command_line()
    assert caught.value.code == 2
    (line,) = re.findall(r"^error: .*", capsys.readouterr().out, re.MULTILINE | re.DOTALL)
    return line


def logs(folder, *names):
    state = json.loads((folder / "trainer_state.json").read_text())
    return [tuple(entry[name] for name in names) for entry in state["log_history"] if "grad_norm" in entry]


# ---- recipes and the command line


def test_help_is_there_at_once():
    def measure():
        start = time.monotonic()
        command = [sys.executable, "-m", "open_r1_vision.train", "--help"]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert "--reward_funcs" in result.stdout
        return time.monotonic() - start

    assert min(measure(), measure()) < 3


def test_all_help(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "--help_all"])
    train.run_command_line()
    text = capsys.readouterr().out
    for name in ("--check_rows", "--prompts_per_step", "--num_generations", "--learning_rate", "--lora_r"):
        assert name in text


def test_the_command_line_wins_over_the_recipe(recipe, tmp_path):
    words = ["--max_steps", "1", "--learning-rate=1e-4", "--reward_weights", "0.5"]
    results = run(recipe(max_steps=9, num_generations=2), *words, "--output_dir", str(tmp_path / "b"))
    assert results["steps"] == 1
    args = torch.load(tmp_path / "b" / "final" / "training_args.bin", weights_only=False)
    assert (args.max_steps, args.learning_rate, args.reward_weights) == (1, 1e-4, [0.5])
    assert (args.num_generations, args.per_device_train_batch_size) == (2, 4)
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_of_the_recipe(recipe, capsys, monkeypatch, tmp_path):
    message = refusal(capsys, monkeypatch, recipe(num_generation=4))
    assert "Unknown key `num_generation`" in message
    assert "Did you mean `num_generations`?" in message
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_of_the_command_line(recipe):
    command = [sys.executable, "-m", "open_r1_vision.train", "--config", recipe(), "--learnin_rate", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "Unknown key `learnin_rate`" in result.stdout
    assert "Did you mean `learning_rate`?" in result.stdout
    assert "Traceback" not in result.stdout


def test_no_such_recipe(capsys, monkeypatch):
    assert "There is no recipe 'nowhere.yaml'" in refusal(capsys, monkeypatch, "nowhere.yaml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_generations": 1}, "num_generations is 1, but GRPO compares the completions of one prompt"),
        ({"trainer": "open_r1_vision.trainers.VisonGRPOTrainer"}, "has no 'VisonGRPOTrainer'"),
        ({"trainer": "open_r1_vision.importing.is_dotted_path"}, "which has no `config_class`"),
        ({"reward_funcs": ["processes.texts_reward"]}, "module 'processes' has no 'texts_reward'"),
        ({"dataset": "nowhere.jsonl", "dataset_options": None}, "nowhere.jsonl"),
        ({"system_prompt": "r2"}, "There is no prompt 'r2'"),
        ({"reward_weights": [1.0] * 7}, "reward_weights has 7 numbers, but there are"),
        ({"beta_schedule": "cosin"}, "Unknown beta_schedule 'cosin'"),
        ({"eval_every": 0}, "eval_every is 0"),
        ({"per_device_train_batch_size": 4}, "prompts_per_step and per_device_train_batch_size are both set"),
    ],
)
def test_settings_that_cannot_work(recipe, capsys, monkeypatch, tmp_path, settings, message):
    assert message in refusal(capsys, monkeypatch, recipe(**settings))
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_batch_is_derived_and_printed(recipe, capsys):
    job = train.prepare(read_recipe(["--config", recipe(prompts_per_step=3, max_completions_per_device=5)]))
    # 12 completions: at most 5 at a time that divide them are 4
    assert (job.trainer.args.per_device_train_batch_size, job.trainer.args.gradient_accumulation_steps) == (4, 3)
    plan = "3 prompts x 4 completions = 12 completions per step = 1 process(es) x 4 per device x 3 "
    assert plan in capsys.readouterr().out


# ---- rows


def bad_rows(split="train", kind=""):
    """Four rows of which the third can't be trained on."""
    table = rows(split, 4)
    table[2]["images"] = {
        "corrupt": [{"bytes": b"no picture", "path": None}],
        "one pixel": [Image.new("RGB", (1, 1))],
        "missing": [{"bytes": None, "path": "/nowhere/a.png"}],
    }.get(kind, [image()])
    if kind == "long":
        table[2]["problem"] = "word " * 200
    return table


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("corrupt", "train-2: image unreadable: image 1 of 1"),
        ("one pixel", "train-2: image too small: image 1 of 1: 1 x 1 has a side under 28 pixels"),
        ("missing", "train-2: image unreadable: image 1 of 1 (/nowhere/a.png)"),
        ("long", "train-2: prompt too long"),
    ],
)
def test_a_row_that_cannot_be_trained_on(recipe, capsys, monkeypatch, kind, message):
    settings = {"dataset": "test_train.bad_rows", "dataset_options": {"kind": kind}, "max_prompt_tokens": 200}
    text = refusal(capsys, monkeypatch, recipe(**settings))
    assert message in text
    assert "1 of the 4 rows that were checked" in text
    assert "train-1" not in text
    assert "check_data --config RECIPE --write-clean PATH" in text


def test_a_long_prompt_that_was_not_checked(recipe):
    options = {"dataset": "test_train.bad_rows", "dataset_options": {"kind": "long"}, "max_prompt_tokens": 200}
    with pytest.raises(ValueError, match="The prompt of row 'train-2' has .* tokens .* max_prompt_tokens is 200"):
        run(recipe(**options, check_rows=2))


def test_rows_without_images(recipe):
    results = run(recipe(dataset_options={"count": 4, "texts": [0, 1, 2, 3]}))
    assert results["steps"] == 2
    assert results["last_step"]["grad_norm"] > 0


def test_a_missing_column(recipe, capsys, monkeypatch):
    text = refusal(capsys, monkeypatch, recipe(reward_funcs=["processes.text_reward", "test_train.facts_reward"]))
    assert "The data set lacks columns: facts_reward needs 'visual_facts'" in text
    assert "'problem_type'" in text  # what it has


def facts_reward(completions, visual_facts, **columns):
    """Needs a column that is not there."""
    return [1.0] * len(completions)


# ---- rewards that fail


def stumbling_reward(completions, trainer_state, **columns):
    """Does something wrong in a step."""
    stumble = STUMBLE["how"] if trainer_state.global_step + 1 == STUMBLE["step"] else None
    rewards = text_reward(completions, **columns)
    if stumble == "raise":
        raise KeyError("colour")
    if stumble == "wrong length":
        return rewards[:-1]
    if stumble == "nan":
        return [*rewards[:-1], float("nan")]
    return rewards


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", "The reward 'stumbling_reward' raised KeyError for the rows with id 'train-2', 'train-3': 'colour'"),
        (
            "wrong length",
            "'stumbling_reward' returned 7 values for 8 completions, the rows with id 'train-2', 'train-3'",
        ),
        ("nan", r"'stumbling_reward' returned nan for the row with id 'train-3' \(completion 7\)"),
    ],
)
def test_a_reward_that_fails_is_named_and_loses_nothing(recipe, monkeypatch, tmp_path, how, message):
    monkeypatch.setitem(STUMBLE, "step", 2)
    monkeypatch.setitem(STUMBLE, "how", how)
    path = recipe(reward_funcs=["test_train.stumbling_reward"], save_strategy="steps")
    with pytest.raises((RuntimeError, ValueError), match=message):
        run(path)
    assert (tmp_path / "run" / "checkpoint-1" / "COMPLETE.json").is_file()
    monkeypatch.setitem(STUMBLE, "step", None)
    assert run(path)["steps"] == 2


def interrupting_reward(completions, trainer_state, **columns):
    """Ctrl-C in a step."""
    if trainer_state.global_step + 1 == STUMBLE["step"]:
        signal.raise_signal(signal.SIGINT)
    return text_reward(completions, **columns)


@pytest.mark.parametrize(
    ("step", "message"),
    [(2, r"Stopped: the same command goes on from .*checkpoint-1\."), (1, "Stopped before the first checkpoint: ")],
)
def test_an_interruption_says_what_is_left(recipe, monkeypatch, capsys, step, message):
    monkeypatch.setitem(STUMBLE, "step", step)
    path = recipe(reward_funcs=["test_train.interrupting_reward"], save_strategy="steps")
    monkeypatch.setattr(sys, "argv", ["train", "--config", path])
    with pytest.raises(SystemExit) as caught:
        train.run_command_line()
    assert caught.value.code == 130
    assert re.search(message, capsys.readouterr().out)
    monkeypatch.setitem(STUMBLE, "step", None)
    assert run(path)["steps"] == 2


def test_an_interruption_before_training(recipe, monkeypatch, capsys):
    def interrupted(recipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "prepare", interrupted)
    monkeypatch.setattr(sys, "argv", ["train", "--config", recipe()])
    with pytest.raises(SystemExit) as caught:
        train.run_command_line()
    assert caught.value.code == 130
    assert "Stopped before training began." in capsys.readouterr().out


# ---- models


def test_a_model_folder_without_processor(recipe, capsys, monkeypatch, tiny_model, tmp_path):
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        (tmp_path / "bare").mkdir(exist_ok=True)
        shutil.copy(Path(tiny_model) / name, tmp_path / "bare" / name)
    text = refusal(capsys, monkeypatch, recipe(model_name_or_path=str(tmp_path / "bare")))
    assert f"No processor of a vision-language model could be loaded from '{tmp_path}/bare'" in text
    assert "processor.save_pretrained" in text


# ---- whose folder it is


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory):
    """A run of 4 steps with held-out rows: its folder, recipe, trainer, results and what the terminal showed."""
    folder = tmp_path_factory.mktemp("finished")
    path = write_recipe(
        folder,
        tiny_model,
        trainer="open_r1_vision.trainers.CaptionGRPOTrainer",
        reward_funcs=["processes.text_reward", "open_r1_vision.rewards.accuracy_reward"],
        dataset_options={"count": 8, "texts": [3]},
        eval_dataset="processes.rows",
        eval_dataset_options={"count": 5},
        eval_every=3,
        system_prompt="r1",
        max_steps=4,
        save_steps=2,
        disable_tqdm=False,
        log_completions=True,
    )
    output = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.stdout, "write", output.append)
        patch.setattr(sys.stderr, "write", output.append)
        job = train.prepare(read_recipe(["--config", str(path)]))
        results = train.run(job)
    return {
        "folder": folder / "run",
        "recipe": str(path),
        "trainer": job.trainer,
        "results": results,
        "terminal": "".join(output),
    }


def test_another_run_is_refused(finished, capsys, monkeypatch):
    weights = (finished["folder"] / "final" / "model.safetensors").read_bytes()
    text = refusal(capsys, monkeypatch, finished["recipe"], "--learning_rate", "0.5", "--seed", "3")
    assert "holds another run; it differs in learning_rate: 0.001 -> 0.5; seed: unset -> 3." in text
    assert "overwrite_output: true" in text
    assert (finished["folder"] / "final" / "model.safetensors").read_bytes() == weights


def test_the_same_value_on_the_command_line_is_the_same_run(finished):
    for words in (["--max_steps=4"], ["--learning_rate", "1e-3"], ["--log_completions"], ["--log_completions=true"]):
        assert train.prepare(read_recipe(["--config", finished["recipe"], *words])).trainer is None


def test_overwriting_is_allowed_by_its_flag(recipe, tmp_path):
    path = recipe(max_steps=1)
    run(path)
    (tmp_path / "run" / "mine.txt").write_text("old")
    results = run(path, "--overwrite_output", "--seed", "3")
    assert results["settings"]["seed"] == 3
    assert not (tmp_path / "run" / "mine.txt").exists()


def test_a_finished_run_is_shown_and_not_trained_again(finished, capsys, monkeypatch):
    monkeypatch.setattr(train, "build_trainer", lambda *args: pytest.fail("it trains again"))
    before = {path: path.stat().st_mtime_ns for path in finished["folder"].rglob("*")}
    assert run(finished["recipe"]) == json.loads(json.dumps(finished["results"]))
    text = capsys.readouterr().out
    assert "already finished; --overwrite_output true trains it again" in text
    assert "held-out rows: 5" in text
    assert "change" in text
    assert {path: path.stat().st_mtime_ns for path in finished["folder"].rglob("*")} == before


# ---- resuming


def test_resuming_equals_going_straight_on(recipe, monkeypatch, tmp_path, capsys):
    settings = {
        "reward_funcs": ["test_train.stumbling_reward"],
        "dataset_options": {"count": 4, "texts": [1]},
        "shuffle_dataset": True,
        "beta_schedule": "cosine",
        "lr_scheduler_type": "linear",
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    path = recipe(**settings)
    run(path)
    straight = tmp_path / "run"
    straight.rename(tmp_path / "straight")
    monkeypatch.setitem(STUMBLE, "step", 3)
    monkeypatch.setitem(STUMBLE, "how", "raise")
    with pytest.raises(RuntimeError):
        run(path)
    monkeypatch.setitem(STUMBLE, "step", None)
    capsys.readouterr()
    results = run(path)
    assert f"Resuming from {tmp_path}/run/checkpoint-2." in capsys.readouterr().out
    names = ("step", "loss", "grad_norm", "learning_rate", "kl", "kl_weight", "reward", "epoch")
    measured, expected = (logs(tmp_path / name / "checkpoint-4", *names) for name in ("run", "straight"))
    assert len(expected) == 4
    assert measured == expected
    assert results["steps"] == 4
    weights = load_file(tmp_path / "straight" / "final" / "model.safetensors")
    for name, value in load_file(tmp_path / "run" / "final" / "model.safetensors").items():
        assert torch.equal(value, weights[name]), name


def test_a_run_that_ended_before_its_report_goes_no_step_further(finished, tmp_path, monkeypatch):
    """Killed after the last checkpoint: the second start only saves and reports."""
    copy = tmp_path / "run"
    shutil.copytree(finished["folder"], copy)
    (copy / "results.json").unlink()
    shutil.rmtree(copy / "final")
    monkeypatch.setattr(VisionGRPOTrainer, "training_step", lambda *args: pytest.fail("a step too many"))
    results = run(finished["recipe"], "--output_dir", str(copy))
    assert results["steps"] == 4
    assert results["held_out"] == finished["results"]["held_out"]
    weights = load_file(finished["folder"] / "final" / "model.safetensors")
    for name, value in load_file(copy / "final" / "model.safetensors").items():
        assert torch.equal(value, weights[name]), name


# ---- what a run leaves behind


def test_the_final_folder_loads_and_is_the_trained_model(finished, tiny_model):
    final = str(finished["folder"] / "final")
    model = AutoModelForImageTextToText.from_pretrained(final).eval()
    processor = load_processor(final)
    assert set(GenerationConfig.from_pretrained(final).eos_token_id) == {258, 256}
    assert processor.tokenizer.padding_side == "left"
    chat = [{"role": "user", "content": [{"type": "image", "image": image(3)}, {"type": "text", "text": "How many?"}]}]
    inputs = processor.apply_chat_template(
        [chat], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    trained, start = finished["trainer"].model.eval(), AutoModelForImageTextToText.from_pretrained(tiny_model).eval()
    with torch.inference_mode():
        logits, expected, before = (part(**inputs).logits for part in (model, trained, start))
    assert torch.equal(logits, expected)
    assert (expected - before).abs().max() > 0.01


def test_the_held_out_evaluation(finished, tiny_model):
    evaluations = read_evaluations(finished["folder"])
    assert list(evaluations) == [0, 3, 4]
    trainer = finished["trainer"]
    held_out = next(callback.rows for callback in trainer.callback_handler.callbacks if hasattr(callback, "rows"))
    for step, model in ((0, tiny_model), (4, str(finished["folder"] / "final"))):
        samples = evaluate(GreedyGenerator(model), held_out, max_new_tokens=6)
        assert [sample.completion for sample in evaluations[step]] == [sample.completion for sample in samples]
        assert [sample.id for sample in evaluations[step]] == [f"test-{index}" for index in range(5)]
        # a random model writes no caption, and a reader asked nothing is never right
        assert {sample.reader_accuracy for sample in evaluations[step]} == {0.0}
        assert {sample.caption_exact for sample in evaluations[step]} == {None}


def test_results(finished):
    results = json.loads((finished["folder"] / "results.json").read_text())
    assert list(results) == ["steps", "train_seconds", "held_out", "last_step", "means", "settings", "versions"]
    assert results["steps"] == 4
    assert results["train_seconds"] > 0
    held_out = results["held_out"]
    assert held_out["rows"] == 5
    assert list(held_out["measures"]) == ["accuracy", "reader_accuracy"]
    assert list(held_out["curve"]) == ["0", "3", "4"]
    accuracy = held_out["measures"]["accuracy"]
    assert accuracy["before"]["count"] == accuracy["after"]["count"] == 5
    assert set(accuracy["change"]) == {"difference", "gained", "lost", "p_value"}
    for name in ("reward", "kl", "grad_norm", "rewards/accuracy_reward/mean", "seconds/generation", "seconds/reading"):
        assert name in results["last_step"]
    assert results["settings"]["system_prompt"] == "r1"
    assert results["settings"]["num_processes"] == 1
    assert {"torch", "trl", "transformers", "open_r1_vision"} <= results["versions"].keys()


def test_the_picture(finished):
    with Image.open(finished["folder"] / "learning_curve.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (1692, 1008)
        assert len(picture.convert("RGB").getcolors(2**24)) > 10  # lines in colours


def test_the_terminal(finished):
    text = finished["terminal"]
    # tqdm shows the time left and what the callback adds
    assert re.search(r"4/4 \[00:\d\d<00:00.*reward=\d\.\d\d, accuracy=\d\.\d\d, reader=\d\.\d\d", text)
    assert "2 prompts x 4 completions = 8 completions per step" in text
    assert "held-out rows: 5" in text
    for name in ("final", "learning_curve.png", "results.json"):
        assert str(finished["folder"] / name) in text


def test_no_bar_where_none_is_wanted(recipe, capsys):
    run(recipe(max_steps=1, disable_tqdm=True))
    captured = capsys.readouterr()
    assert "reward=" not in captured.err + captured.out
    assert "There were no held-out rows to evaluate: set eval_dataset to see a change." in captured.out
