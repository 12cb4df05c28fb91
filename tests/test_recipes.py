# SPDX-License-Identifier: Apache-2.0
"""Every recipe parses, names what exists, and says where its values come from."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from trl import ModelConfig, SFTConfig

from open_r1_vision.arguments import ScriptArguments, WarmUpArguments, parse_recipe, read_recipe
from open_r1_vision.data.loading import FILE_SUFFIXES
from open_r1_vision.importing import import_callable, is_dotted_path
from open_r1_vision.prompts import load_prompt
from open_r1_vision.rewards.loading import load_rewards
from open_r1_vision.trainers import VisionGRPOTrainer

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
PUBLISHED = [path for path in RECIPES if "starter" not in path.parts]
SECTIONS = ["model", "data", "method", "generation", "optimisation", "output"]
MARK = re.compile(r" # (paper|authors' code|ours)(: .+)?$")
#: What the recipe is, and where it writes: no values that somebody could have chosen otherwise.
UNMARKED = {"trainer", "output_dir"}


def name(path):
    return str(path.relative_to(ROOT))


def is_warm_up(path):
    return "-m open_r1_vision.sft" in path.read_text()


def parse(path):
    """The dataclasses of a recipe, as its entry point would fill them on a machine without a GPU."""
    recipe = read_recipe(["--config", str(path)])
    if is_warm_up(path):
        recipe.settings.update(use_cpu=True, bf16=False)
        return parse_recipe(recipe, (WarmUpArguments, SFTConfig, ModelConfig))
    config_class = import_callable(recipe.settings["trainer"]).config_class
    return parse_recipe(recipe, (ScriptArguments, config_class, ModelConfig))


@pytest.fixture(params=RECIPES, ids=name)
def path(request):
    return request.param


def test_there_are_recipes():
    assert {name(path) for path in RECIPES} >= {
        "recipes/starter/visionary_r1.yaml",
        "recipes/starter/grpo.yaml",
        "recipes/starter/warm_up.yaml",
        "recipes/starter/hint_grpo.yaml",
        "recipes/starter/hint_visionary_r1.yaml",
        "recipes/starter/reasoner.yaml",
        "recipes/starter/racro_cro.yaml",
        "recipes/starter/racro_grpo.yaml",
        "recipes/starter/perception_r1.yaml",
        "recipes/qwen2_vl_7b/hint_grpo.yaml",
        "recipes/qwen2_5_vl_3b/hint_grpo.yaml",
        "recipes/qwen2_5_vl_3b/visionary_r1.yaml",
        "recipes/qwen2_5_vl_7b/racro_cro.yaml",
        "recipes/qwen2_5_vl_7b/racro_grpo.yaml",
        "recipes/qwen2_5_vl_7b/perception_r1.yaml",
    }


def test_a_recipe_parses(path):
    script, training, model = parse(path)
    settings = yaml.safe_load(path.read_text())
    assert model.model_name_or_path == settings["model_name_or_path"]
    assert script.dataset == settings["dataset"]
    assert training.learning_rate == settings["learning_rate"]
    assert training.output_dir == settings["output_dir"] == f"runs/{path.parent.name}/{path.stem}"
    if not is_warm_up(path):
        plan = training.batch_plan
        step = plan.num_processes * plan.per_device * plan.accumulation
        assert step == settings["prompts_per_step"] * settings["num_generations"]
        assert len(training.reward_weights) == len(script.reward_funcs)


def test_a_recipe_names_what_exists(path):
    script, training, model = parse(path)
    for prompt in (script.system_prompt, getattr(training, "reader_prompt", None)):
        assert prompt is None or load_prompt(prompt)
    for dataset in (script.dataset, script.eval_dataset):
        if dataset and is_dotted_path(dataset) and not dataset.endswith(FILE_SUFFIXES):
            import_callable(dataset)
    if is_dotted_path(model.model_name_or_path):
        import_callable(model.model_name_or_path)
    if not is_warm_up(path):
        assert issubclass(import_callable(script.trainer), VisionGRPOTrainer)
        assert len(load_rewards(script.reward_funcs, script.reward_kwargs, ())) == len(script.reward_funcs)
    if training.deepspeed:
        assert (ROOT / training.deepspeed).is_file()


def test_a_recipe_is_short_and_begins_with_its_command(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 80
    header = [line for line in lines[: lines.index("")] if line.startswith("#")]
    assert len(header) == lines.index("") >= 2
    (command,) = [line.removeprefix("#").strip() for line in header if f" {name(path)}" in line]
    if command.startswith("torchrun"):
        assert re.match(r"torchrun --nproc_per_node=\d+ -m open_r1_vision\.(train|sft) --config recipes/", command)
    else:
        assert (ROOT / command.split()[0]).is_file()
    sections = [line.removeprefix("# ") for line in lines[len(header) :] if line.startswith("#")]
    assert sections == [section for section in SECTIONS if section in sections]


def test_long_texts_are_not_in_recipes(path):
    settings = yaml.safe_load(path.read_text())
    assert max(len(value) for value in settings.values() if isinstance(value, str)) <= 200


@pytest.mark.parametrize("path", PUBLISHED, ids=name)
def test_values_say_where_they_come_from(path):
    lines = path.read_text().splitlines()
    settings = yaml.safe_load("\n".join(lines))
    defaults = {item.name: item.default for part in parse(path) for item in dataclasses.fields(part)}
    for line in lines:
        key, colon, rest = line.partition(":")
        # the value of a key without one stands on the lines below it
        if not re.fullmatch(r"\w+", key) or not rest or key in UNMARKED:
            continue
        assert settings[key] == defaults[key] or MARK.search(line), line
    header = "\n".join(lines[: lines.index("")])
    assert re.search(r"\barXiv \d{4}\.\d{5}\b", header)
    assert re.search(r"\d+ GPUs?\b|CPU", header)


@pytest.mark.parametrize(("file", "stage"), [("zero2", 2), ("zero3", 3), ("zero3_offload", 3)])
def test_deepspeed_settings(file, stage):
    settings = json.loads((ROOT / "recipes" / "deepspeed" / f"{file}.json").read_text())
    zero = settings["zero_optimization"]
    assert zero["stage"] == stage
    # otherwise `final` would hold no weights
    assert stage == 2 or zero["stage3_gather_16bit_weights_on_model_save"]
    assert ("offload_optimizer" in zero) == ("offload" in file)
    # what the trainer decides must be left to it
    for key in ("gradient_clipping", "gradient_accumulation_steps", "train_batch_size"):
        assert settings[key] == "auto"
