# SPDX-License-Identifier: Apache-2.0
"""Warm-up from a recipe: lessons with and without an image, frozen parts, adapters, and runs that were stopped."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lessons import rows
from processes import run_command, write_deepspeed
from safetensors.torch import load_file
from tiny_models import image
from transformers import AutoModelForImageTextToText
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from open_r1_vision import sft
from open_r1_vision.arguments import read_recipe
from open_r1_vision.checkpoints import find_damage, mark_incomplete
from open_r1_vision.data.lessons import as_lessons
from open_r1_vision.models import load_processor

RECIPE = Path(__file__).parents[1] / "recipes" / "starter" / "warm_up.yaml"


@pytest.fixture
def recipe(tiny_model, tmp_path):
    """`recipe(**settings)` writes a recipe of 4 steps that saves nothing on its way."""

    def write(**settings):
        defaults = {
            "model_name_or_path": tiny_model,
            "dtype": "float32",
            "dataset": "lessons.rows",
            "max_length": None,
            "per_device_train_batch_size": 4,
            "max_steps": 4,
            "learning_rate": 1.0e-2,
            "gradient_checkpointing": False,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "output_dir": str(tmp_path / "run"),
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({**defaults, **settings}))
        return str(path)

    return write


def weights(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).state_dict()


def changed(folder, other):
    """Names of the weights that differ."""
    before, after = weights(folder), weights(other)
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_warm_up_recipe_learns_and_saves_a_whole_folder(tmp_path):
    options = {"max_steps": 12, "logging_steps": 1, "warmup_steps": 2, "per_device_train_batch_size": 8}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    lessons = ["--dataset_options", '{"count": 96}', "--save_strategy", "steps", "--save_steps", "12"]
    folder = sft.main(["--config", str(RECIPE), "--output_dir", str(tmp_path), *words, *lessons])

    state = json.loads((tmp_path / "checkpoint-12" / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    # log(512) = 6.2 is what a model without a clue has
    assert 5.5 < losses[0] < 7.5
    assert losses[-1] < 4
    _, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert load_processor(folder).tokenizer.vocab_size <= 512
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["steps"] == 12 and list(results["loss"].values()) == losses


@pytest.mark.parametrize("as_messages", [False, True])
def test_the_loss_is_on_the_completion_alone(recipe, as_messages):
    path = recipe(dataset_options={"texts": [1], "as_messages": as_messages})
    trainer = sft.prepare(read_recipe(["--config", path])).trainer
    dataset = trainer.train_dataset
    tokenizer = trainer.processing_class.tokenizer
    batch = trainer.data_collator([dataset[0], dataset[1]])
    learned = [tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert learned == ["They are 0.<|im_end|>\n", "They are 1.<|im_end|>\n"]
    read = [
        tokenizer.decode(row[mask == 1]) for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert "How many of 0?" in read[0] and read[0].count("<|image_pad|>") == 4 and "<|image_pad|>" not in read[1]


def test_an_image_is_never_cut(recipe, tiny_model):
    def collate(max_length):
        path = recipe(max_length=max_length, dataset_options={"texts": [1]}, overwrite_output=True)
        trainer = sft.prepare(read_recipe(["--config", path])).trainer
        return trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]]), trainer

    whole, trainer = collate(None)
    length = whole["input_ids"].shape[1]
    cut, _ = collate(length - 3)
    stock = DataCollatorForVisionLanguageModeling(
        trainer.processing_class, max_length=length - 3, completion_only_loss=True
    )([trainer.train_dataset[0], trainer.train_dataset[1]])
    assert cut.keys() == stock.keys() == whole.keys()
    assert all(torch.equal(cut[name], stock[name]) for name in cut)
    last_image = (whole["input_ids"][0] == trainer.model.config.image_token_id).nonzero().max().item()
    collate(last_image + 2)
    with pytest.raises(
        ValueError, match=rf"The lesson '0' has {length} tokens, and max_length {last_image} would cut off"
    ):
        collate(last_image)


def test_frozen_parts_keep_their_weights(recipe, tiny_model, capsys):
    folder = sft.main(["--config", recipe(freeze_vision_tower=True, freeze_projector=True)])
    assert re.findall("Frozen: the (.*?),", capsys.readouterr().out) == ["vision tower", "projector"]
    names = changed(tiny_model, folder)
    assert names and not [name for name in names if ".visual." in name]
    folder = sft.main(["--config", recipe(freeze_vision_tower=True, overwrite_output=True)])
    visual = [name for name in changed(tiny_model, folder) if ".visual." in name]
    assert visual and all("merger" in name for name in visual)


def test_an_adapter_is_merged_into_the_final_model(recipe, tiny_model, tmp_path):
    settings = {"use_peft": True, "lora_target_modules": ["all-linear"], "lora_r": 4, "freeze_vision_tower": True}
    folder = sft.main(["--config", recipe(**settings, freeze_projector=True)])
    adapter = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    trained = {name for name, value in adapter.items() if "lora_B" in name and value.abs().max() > 0}
    assert trained and not [name for name in trained if "visual" in name]
    names = changed(tiny_model, folder)
    assert names == {name.removeprefix("base_model.model.").replace(".lora_B", "") for name in trained}
    assert load_processor(folder)


def test_the_starter_takes_an_adapter(tmp_path, recipe):
    settings = {"model_name_or_path": "open_r1_vision.starter.model.policy", "use_peft": True, "max_steps": 2}
    settings |= {"dataset": "open_r1_vision.starter.warm_up.rows", "dataset_options": {"count": 16}}
    folder = sft.main(["--config", recipe(**settings, lora_target_modules=["all-linear"])])
    assert not (Path(folder) / "adapter_config.json").exists()
    _, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def refusal(capsys, monkeypatch, path, *words):
    """The message with which the command line refuses to start."""
    monkeypatch.setattr(sys, "argv", ["sft", "--config", path, *words])
    with pytest.raises(SystemExit) as caught:
        sft.run_command_line()
    assert caught.value.code == 2
    (line,) = re.findall(r"^error: .*", capsys.readouterr().out, re.MULTILINE | re.DOTALL)
    return line


def test_packing_is_for_text(recipe, capsys, monkeypatch, tmp_path):
    for name in ("packing", "padding_free"):
        line = refusal(capsys, monkeypatch, recipe(**{name: True}))
        assert re.match(rf"error: {name} is true, .*have a column `images`.*Set {name}: false", line)
    assert not (tmp_path / "run").exists()
    path = recipe(packing=True, dataset="lessons.text_rows", max_length=128)
    assert sft.prepare(read_recipe(["--config", path])).trainer.args.packing


def test_bad_rows_and_keys(recipe, capsys, monkeypatch):
    assert "Did you mean `freeze_projector`?" in refusal(capsys, monkeypatch, recipe(freeze_projecter=True))
    line = refusal(capsys, monkeypatch, recipe(dataset="processes.rows"))
    assert "learns from `prompt` and `completion`, or from `messages`" in line and "id, images, problem" in line


def test_keys_that_have_no_effect_are_named(recipe, capsys):
    sft.prepare(read_recipe(["--config", recipe(system_prompt="r1", eval_dataset="processes.rows")]))
    assert "system_prompt and eval_dataset have no effect" in capsys.readouterr().out


def test_lessons_of_mulberry_beside_others(recipe, tmp_path):
    image(1).save(tmp_path / "a.png")
    turns = [{"role": "user", "content": "<image>How many?"}, {"role": "assistant", "content": "Nine."}]
    (tmp_path / "sft.json").write_text(json.dumps([{"messages": turns, "images": ["a.png"]}] * 4))
    mulberry = {"dataset": "open_r1_vision.data.mulberry.rows"}
    mulberry["dataset_options"] = {"path": str(tmp_path / "sft.json")}
    options = {"datasets": [mulberry, {"dataset": "lessons.rows", "dataset_options": {"count": 4, "texts": [2]}}]}
    path = recipe(dataset="open_r1_vision.data.merged.rows", dataset_options=options, max_steps=1)
    job = sft.prepare(read_recipe(["--config", path]))
    dataset, tokenizer = job.trainer.train_dataset, job.trainer.processing_class.tokenizer
    batch = job.trainer.data_collator([dataset[0], dataset[4], dataset[6]])
    learned = [tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert learned == ["Nine.<|im_end|>\n", "They are 0.<|im_end|>\n", "They are 2.<|im_end|>\n"]
    assert batch["image_grid_thw"].shape == (2, 3)
    sft.run(job)
    assert load_processor(str(tmp_path / "run" / "final"))


def test_a_conversation_has_to_end_on_a_reply():
    dataset = rows(count=2, as_messages=True)
    assert as_lessons(dataset).column_names == ["id", "images", "prompt", "completion"]
    assert as_lessons(dataset)[1]["completion"][0]["content"][0]["text"] == "They are 1."
    cut = dataset.remove_columns("messages").add_column("messages", [row["messages"][:1] for row in dataset])
    with pytest.raises(ValueError, match="Row '0': the roles of its `messages` are user, but a lesson ends on"):
        as_lessons(cut)


def test_a_run_that_was_killed_while_it_saved_ends_with_the_same_weights(recipe, tmp_path, capsys):
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 5, "save_total_limit": 3}
    whole = sft.main(["--config", recipe(**saving, output_dir=str(tmp_path / "whole"))])
    path = recipe(**saving)
    code = "import lessons, sys; lessons.die_while_saving(4); from open_r1_vision import sft; sft.main(sys.argv[1:])"
    killed = run_command(["-c", code, "--config", path], timeout=120)
    assert killed.code == -9, killed.log
    run = tmp_path / "run"
    assert sorted(folder.name for folder in run.glob("checkpoint-*") if not find_damage(folder)) == [
        "checkpoint-1",
        "checkpoint-2",
        "checkpoint-3",
    ]
    assert (run / "checkpoint-4" / "model.safetensors").is_file() and not (run / "results.json").exists()
    capsys.readouterr()
    resumed = sft.main(["--config", path])
    assert f"Resuming from {run / 'checkpoint-3'}" in capsys.readouterr().out
    assert not changed(whole, resumed)
    logs = [json.loads((folder / "results.json").read_text())["loss"] for folder in (run, tmp_path / "whole")]
    assert logs[0] == logs[1] and list(logs[0]) == ["1", "2", "3", "4", "5"]


@pytest.mark.slow
def test_two_processes_resume(recipe, tmp_path):
    """Lessons without an image beside others, and optimizers that torch.load could not place on cpu:0."""
    saving = {"save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2}
    path = recipe(**saving, dataset_options={"texts": [1, 2, 3, 7]}, freeze_vision_tower=True, freeze_projector=True)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "open_r1_vision.sft"]
    run, losses = tmp_path / "run", []
    for _ in range(2):
        outcome = run_command([*launch, "--config", path], timeout=180)
        assert outcome.code == 0, outcome.log
        losses.append(json.loads((run / "results.json").read_text())["loss"])
        mark_incomplete(run / "checkpoint-4")
        (run / "results.json").unlink()
    assert losses[0] == losses[1] and "Resuming from" in outcome.log


@pytest.mark.slow
def test_lessons_without_images_beside_others_under_zero_3(recipe, tmp_path):
    """A process that leaves the vision tower out would leave the others waiting, until they give up."""
    settings = {"deepspeed": write_deepspeed(tmp_path, 3), "dataset_options": {"count": 24, "texts": list(range(18))}}
    path = recipe(**settings, per_device_train_batch_size=2, ddp_timeout=30)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "open_r1_vision.sft"]
    outcome = run_command([*launch, "--config", path], timeout=180)
    assert outcome.code == 0, outcome.log
    sharded = json.loads((tmp_path / "run" / "results.json").read_text())["loss"]
    alone = recipe(**{**settings, "deepspeed": None}, output_dir=str(tmp_path / "alone"))
    sft.main(["--config", alone])
    whole = json.loads((tmp_path / "alone" / "results.json").read_text())["loss"]
    assert list(sharded.values()) == pytest.approx(list(whole.values()), abs=2e-3)


def test_a_finished_run_is_left_alone_and_another_is_refused(recipe, tmp_path, capsys, monkeypatch):
    folder = sft.main(["--config", recipe(max_steps=1)])
    before = (Path(folder) / "model.safetensors").stat().st_mtime_ns
    assert sft.main(["--config", recipe(max_steps=1)]) == folder
    assert "already finished" in capsys.readouterr().out
    assert (Path(folder) / "model.safetensors").stat().st_mtime_ns == before
    line = refusal(capsys, monkeypatch, recipe(max_steps=1, seed=3))
    assert "holds another run; it differs in seed: unset -> 3" in line
    sft.main(["--config", recipe(max_steps=1, seed=3), "--overwrite_output", "true"])
    assert (Path(folder) / "model.safetensors").stat().st_mtime_ns != before


def test_an_adapter_resumes_too(recipe, tmp_path):
    settings = {"use_peft": True, "lora_target_modules": ["all-linear"], "lora_dropout": 0.0}
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3}
    whole = sft.main(["--config", recipe(**settings, **saving, output_dir=str(tmp_path / "whole"))])
    stopped = sft.prepare(read_recipe(["--config", recipe(**settings, **saving)]))
    stopped.trainer.train()
    mark_incomplete(tmp_path / "run" / "checkpoint-3")
    resumed = sft.main(["--config", recipe(**settings, **saving)])
    assert not changed(whole, resumed)
