# SPDX-License-Identifier: Apache-2.0
"""Every recipe parses, names what exists, and says where its values come from."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from transformers import TrainingArguments
from trl import ModelConfig, SFTConfig

from open_r1_vision.arguments import Recipe, ScriptArguments, WarmUpArguments, parse_recipe, read_recipe
from open_r1_vision.batching import plan_batch
from open_r1_vision.curriculum import read_curriculum
from open_r1_vision.data.loading import FILE_SUFFIXES
from open_r1_vision.importing import import_callable, is_dotted_path
from open_r1_vision.prompts import load_prompt
from open_r1_vision.rewards.loading import load_rewards
from open_r1_vision.sampling.options import SampleArguments, check_sampling_keys, read_part
from open_r1_vision.split import SplitArguments
from open_r1_vision.trainers import VisionGRPOTrainer

ROOT = Path(__file__).parent.parent
#: Overlays for machines, and recipes that extend others, are in test_recipe_overlays.py.
FILES = [
    path
    for path in sorted((ROOT / "recipes").rglob("*.yaml"))
    if path.parent.name != "hardware" and ("\nextends:" not in path.read_text() or "\nstages:" in path.read_text())
]
#: Several runs in one recipe, each with settings of its own.
CURRICULA = [path for path in FILES if "\nstages:" in path.read_text()]
RECIPES = [path for path in FILES if path not in CURRICULA]
#: It trains no policy, by an entry point of its own.
DUAL_ENCODER = ROOT / "recipes" / "starter" / "dual_encoder.yaml"
RECIPES.remove(DUAL_ENCODER)
PUBLISHED = [path for path in RECIPES if "starter" not in path.parts]
SECTIONS = ["model", "data", "method", "generation", "optimisation", "output"]
MARK = re.compile(r" # (paper|authors' code|ours)(: .+)?$")
#: What the recipe is, and where it writes: no values that somebody could have chosen otherwise.
UNMARKED = {"trainer", "output_dir", "extends"}


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


def parse_stage(stage):
    """The dataclasses of a stage, as its entry point would fill them on a machine without a GPU."""
    settings = {key: value for key, value in stage.settings.items() if key != "deepspeed"}
    if stage.run == "sample":
        check_sampling_keys(Recipe(settings, None))
        return (read_part(Recipe(settings, None), SampleArguments),)
    if stage.run == "split":
        return (read_part(Recipe(settings, None), SplitArguments),)
    if stage.run == "sft":
        recipe = Recipe({**settings, "use_cpu": True, "bf16": False}, None)
        return parse_recipe(recipe, (WarmUpArguments, SFTConfig, ModelConfig))
    config_class = import_callable(settings["trainer"]).config_class
    return parse_recipe(Recipe(settings, None), (ScriptArguments, config_class, ModelConfig))


def texts_in(value):
    """Every string in settings, keys included."""
    if isinstance(value, dict):
        return [text for item in [*value, *value.values()] for text in texts_in(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts_in(item)]
    return [value] if isinstance(value, str) else []


@pytest.fixture(params=CURRICULA, ids=name)
def curriculum(request, monkeypatch):
    monkeypatch.chdir(ROOT)  # recipes are named from there
    read = read_curriculum(request.param)
    assert str(read.output_dir) == f"runs/{request.param.relative_to(ROOT / 'recipes').with_suffix('')}"
    return read


def test_there_are_curricula():
    assert {name(path) for path in CURRICULA} >= {
        "recipes/starter/pebr_r1.yaml",
        "recipes/qwen2_5_vl_3b/pebr_r1.yaml",
        "recipes/qwen2_5_vl_7b/pebr_r1.yaml",
    }


def test_a_curriculum_parses(curriculum):
    for stage in curriculum.stages:
        parts = parse_stage(stage)
        if stage.run != "train":
            continue
        script, training, _ = parts
        assert len(training.reward_weights) == len(script.reward_funcs), stage.name
        assert len(load_rewards(script.reward_funcs, script.reward_kwargs, ())) == len(script.reward_funcs)
        plan_batch(  # raises where the processes can't share the completions evenly
            training.prompts_per_step,
            training.num_generations,
            stage.processes or curriculum.processes,
            training.max_completions_per_device,
        )


def test_a_curriculum_names_what_exists(curriculum):
    for stage in curriculum.stages:
        for text in texts_in(stage.settings):
            if text.startswith("open_r1_vision."):
                import_callable(text)
        for key in ("system_prompt", "user_prompt"):
            assert not stage.settings.get(key) or load_prompt(stage.settings[key])
        deepspeed = stage.settings.get("deepspeed")
        assert not deepspeed or (ROOT / deepspeed).is_file()


@pytest.mark.parametrize("path", CURRICULA, ids=name)
def test_a_curriculum_is_short_and_begins_with_its_command(path):
    lines = path.read_text().splitlines()
    # five runs with settings of their own; three of them would have a recipe of 80 lines each
    assert len(lines) <= 150
    header = lines[: lines.index("")]
    assert all(line.startswith("#") for line in header)
    assert f"#   python -m open_r1_vision.curriculum --config {name(path)}" in header
    assert max(map(len, texts_in(yaml.safe_load(path.read_text())))) <= 200


@pytest.mark.parametrize("path", [path for path in CURRICULA if "starter" not in path.parts], ids=name)
def test_values_of_a_curriculum_say_where_they_come_from(path):
    lines = path.read_text().splitlines()
    for line in lines:
        match = re.fullmatch(r" *(?:- )?([\w.]+): +([^&].*)", line)
        # a stage's name and kind, and what an earlier stage left, could not be otherwise
        if match and match[1] not in UNMARKED | {"name", "run"} and not re.search(r'"\{\w+\.\w+\}"\}?$', match[2]):
            assert MARK.search(line), line
    header = "\n".join(lines[: lines.index("")])
    assert re.search(r"\barXiv \d{4}\.\d{5}\b", header)
    assert re.search(r"\d+ GPUs?\b", header) and "Not run." in header


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_the_numbers_of_pebr_r1(size):
    curriculum = read_curriculum(ROOT / "recipes" / f"qwen2_5_vl_{size}" / "pebr_r1.yaml")
    stages = {stage.name: (stage, parse_stage(stage)) for stage in curriculum.stages}
    assert list(stages) == ["warm_up", "difficulty", "splits", "perceive", "reason"]
    assert curriculum.processes == 8
    _, (lessons, warm_up, model) = stages["warm_up"]
    assert model.model_name_or_path == f"Qwen/Qwen2.5-VL-{size.upper()}-Instruct"
    assert lessons.freeze_vision_tower and lessons.freeze_projector
    assert warm_up.per_device_train_batch_size * warm_up.gradient_accumulation_steps * curriculum.processes == 128
    assert (warm_up.learning_rate, warm_up.num_train_epochs, warm_up.max_length) == (1e-5, 2, 4096)
    assert (warm_up.lr_scheduler_type, warm_up.get_warmup_steps(1000)) == ("cosine", 100)
    _, (draws,) = stages["difficulty"]
    assert (draws.num_generations, draws.temperature, draws.top_p) == (8, 1.2, 0.99)
    assert (draws.max_completion_length, draws.backend) == (2048, "vllm")
    _, (splits,) = stages["splits"]
    assert (splits.right_from, splits.easy_from, splits.hard_up_to, splits.answer_form) == (1, 1, 0, "sections")
    for key, split, gpus, updates, questions, epochs, model, weights in [
        ("perceive", "easy", 7, 5, 560, 1, "warm_up", {"clip": 0.4, "key_words": 0.4, "length": 0.1, "accuracy": 0}),
        ("reason", "medium", 8, 4, 512, 2, "perceive", {"accuracy": 0.9}),
    ]:
        stage, (script, training, base) = stages[key]
        assert (script.dataset_split, stage.processes or curriculum.processes) == (split, gpus)
        assert training.updates_per_sampling == updates
        # what TRL samples at once, in completions, on the one process of this test
        assert training.generation_batch_size == questions * 8 == training.prompts_per_step * updates * 8
        assert training.num_train_epochs == epochs
        assert base.model_name_or_path == str(curriculum.stage(model).folder / "final")
        names = [path.rsplit(".", 1)[1].removesuffix("_reward") for path in script.reward_funcs]
        assert dict(zip(names, training.reward_weights, strict=True)) == {**weights, "sections_format": 0.1}
        assert (training.loss_type, training.beta, training.delta) == ("bnpo", 0.01, 3.0)
        assert (training.epsilon, training.epsilon_high, training.num_iterations) == (0.2, 0.3, 1)
        assert (training.num_generations, training.temperature, training.top_p) == (8, 1.2, 0.99)
        assert (training.learning_rate, training.lr_scheduler_type, training.weight_decay) == (1e-6, "constant", 0.01)
        # rows are as hard in training as they were in the sampling
        for option in ("min_pixels", "max_pixels", "max_completion_length", "max_prompt_tokens", "user_prompt"):
            settings = {stages[name][0].settings[option] for name in ("difficulty", key)}
            assert len(settings) == 1, option
        assert (script.min_pixels, script.max_pixels, training.max_prompt_tokens) == (576, 802816, 2048)


def test_the_recipe_of_the_dual_encoder():
    from open_r1_vision.starter.train_dual_encoder import DualEncoderArguments

    recipe = read_recipe(["--config", str(DUAL_ENCODER)])
    arguments, training = parse_recipe(
        Recipe({**recipe.settings, "use_cpu": True}, None), (DualEncoderArguments, TrainingArguments)
    )
    settings = yaml.safe_load(DUAL_ENCODER.read_text())
    assert arguments.num_pages == settings["num_pages"]
    assert training.learning_rate == settings["learning_rate"]
    assert training.output_dir == settings["output_dir"] == "runs/starter/dual_encoder"
    lines = DUAL_ENCODER.read_text().splitlines()
    assert f"#   python -m open_r1_vision.starter.train_dual_encoder --config {name(DUAL_ENCODER)}" == lines[1]
    sections = [line.removeprefix("# ") for line in lines[lines.index("") :] if line.startswith("#")]
    assert sections == [section for section in SECTIONS if section in sections]


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
