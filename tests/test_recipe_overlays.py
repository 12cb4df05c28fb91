# SPDX-License-Identifier: Apache-2.0
"""Recipes that extend others, overlays for machines, and the table of what they are estimated to need."""

import dataclasses
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from test_recipes import MARK, SECTIONS, UNMARKED, parse_stage
from trl import ModelConfig

from open_r1_vision.arguments import ScriptArguments, parse_recipe, read_recipe
from open_r1_vision.batching import plan_batch
from open_r1_vision.curriculum import read_curriculum
from open_r1_vision.importing import import_callable
from open_r1_vision.memory import KNOWN
from open_r1_vision.recipe_files import read_files

ROOT = Path(__file__).parent.parent
OVERLAYS = sorted((ROOT / "recipes" / "hardware").glob("*.yaml"))
OF_CURRICULA = [path for path in OVERLAYS if "\nstages:" in path.read_text()]
OF_RUNS = [path for path in OVERLAYS if path not in OF_CURRICULA]
EXTENDING = [
    path
    for path in sorted((ROOT / "recipes").rglob("*.yaml"))
    if path not in OVERLAYS and "\nextends:" in path.read_text() and "\nstages:" not in path.read_text()
]


def load_table():
    path = ROOT / "local_scripts" / "recipe_table.py"
    spec = importlib.util.spec_from_file_location("recipe_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLE = load_table()


def name(path):
    return str(path.relative_to(ROOT))


def parse(*paths):
    recipe = read_recipe(["--config", *map(str, paths)]).without("deepspeed")
    config_class = import_callable(recipe.settings["trainer"]).config_class
    return parse_recipe(recipe, (ScriptArguments, config_class, ModelConfig))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_every_method_is_there_for_every_model():
    for method in TABLE.METHODS:
        for model in TABLE.MODELS:
            assert TABLE.recipe_path(method, model).is_file(), (method, model)
    assert set(TABLE.HARDWARE) | {"vllm", "lora"} == {path.stem for path in OF_RUNS}
    assert {own for own in TABLE.CURRICULUM_HARDWARE.values() if own} == {path.stem for path in OF_CURRICULA}


@pytest.mark.parametrize("path", EXTENDING, ids=name)
def test_an_extending_recipe_parses(path):
    script, training, model = parse(path)
    assert training.output_dir == f"runs/{path.parent.name}/{path.stem}"
    folder = path.parent.name.removesuffix("b").rpartition("_")
    size = f"{folder[2]}B"
    family = folder[0].removesuffix("_vl").replace("_5", ".5").capitalize()
    assert model.model_name_or_path == f"Qwen/{family}-VL-{size}-Instruct"
    assert model.model_name_or_path in KNOWN
    assert len(training.reward_weights) == len(script.reward_funcs)


@pytest.mark.parametrize("path", EXTENDING, ids=name)
def test_an_extending_recipe_says_what_it_is_and_changes_little(path):
    lines = path.read_text().splitlines()
    header = lines[: lines.index("")]
    assert len(lines) <= 40 and all(line.startswith("#") for line in header)
    assert re.search(r"\barXiv \d{4}\.\d{5}\b", header[0]) and "Not run." in header[0]
    assert re.search(r"\b\d+ GPUs?\b", header[0])
    (command,) = [line.removeprefix("#").strip() for line in header if f" {name(path)}" in line]
    script, *words = command.split()
    assert (ROOT / script).is_file()
    assert all((ROOT / word).is_file() for word in words if word.startswith("recipes/"))
    sections = [line.removeprefix("# ") for line in lines[len(header) :] if line.startswith("#")]
    assert sections == [section for section in SECTIONS if section in sections]
    own = yaml.safe_load("\n".join(lines))
    base = read_files([path.parent / own["extends"]]).settings
    for key, value in own.items():
        if key != "extends":
            assert base.get(key, "unset") != value, f"{key} is that of the base"
    assert_marked(lines)


def assert_marked(lines):
    for line in lines:
        key, colon, rest = line.partition(":")
        if re.fullmatch(r" *\w+", key) and rest and key not in UNMARKED:
            assert MARK.search(line), line


@pytest.mark.parametrize("path", OVERLAYS, ids=name)
def test_an_overlay_says_what_it_needs_and_why(path):
    lines = path.read_text().splitlines()
    header = lines[: lines.index("")]
    assert len(lines) <= 45 and all(line.startswith("#") for line in header)
    text = " ".join(line.removeprefix("#").strip() for line in header)
    assert re.search(r"\bNot run\b", text) and "Memory" in text and re.search(r"\d bytes", text)
    assert f"recipes/hardware/{path.name}" in text or path.stem in ("vllm", "lora")
    for word in re.findall(r"(?:local_scripts|recipes)/[\w./]+", text):
        assert (ROOT / word.rstrip(".")).is_file(), word
    if path in OF_RUNS:
        assert_marked(lines)


@pytest.mark.parametrize("path", OF_RUNS, ids=name)
@pytest.mark.parametrize("recipe", ["qwen2_5_vl_3b/visionary_r1", "qwen2_5_vl_7b/racro_cro", "qwen2_vl_7b/hint_grpo"])
def test_an_overlay_on_a_recipe(path, recipe):
    recipe = ROOT / "recipes" / f"{recipe}.yaml"
    script, training, model = parse(recipe, path)
    own = read_files([path]).settings
    for key, value in own.items():
        if key in ("deepspeed", "lora_target_modules"):
            assert key != "deepspeed" or value is None or (ROOT / value).is_file()
            continue
        assert getattr(model if hasattr(model, key) else script if hasattr(script, key) else training, key) == value
    gpus, _ = TABLE.HARDWARE.get(path.stem, (8, 80))
    # a step has as many completions on any number of GPUs
    plan_batch(training.prompts_per_step, training.num_generations, gpus, training.max_completions_per_device)
    assert training.prompts_per_step == read_files([recipe]).settings["prompts_per_step"]
    if training.use_vllm:
        assert training.vllm_max_model_length >= training.max_prompt_tokens + training.max_completion_length


@pytest.mark.parametrize("model", TABLE.MODELS)
@pytest.mark.parametrize("path", OF_CURRICULA, ids=name)
def test_an_overlay_on_a_curriculum(path, model):
    recipe = ROOT / "recipes" / model / "pebr_r1.yaml"
    plain, changed = read_curriculum(recipe), read_curriculum([recipe, path])
    assert [stage.name for stage in changed.stages] == [stage.name for stage in plain.stages]
    for before, after in zip(plain.stages, changed.stages, strict=True):
        parse_stage(after)
        assert after.processes == changed.processes <= plain.processes
        if after.run == "sft":
            batches = [
                stage.settings["per_device_train_batch_size"]
                * stage.settings["gradient_accumulation_steps"]
                * stage.processes
                for stage in (before, after)
            ]
            assert batches[0] == batches[1] == 128
        if after.run == "train":
            assert after.settings["prompts_per_step"] == before.settings["prompts_per_step"]
            rewards = after.settings["reward_kwargs"]
            assert before.settings["reward_kwargs"].keys() == rewards.keys()
            plan_batch(after.settings["prompts_per_step"], 8, after.processes, 8)
            # no GPU is left for FG-CLIP
            assert all("device" not in options for options in rewards.values())


def test_the_values_of_cro_on_3b():
    """RACRO's own script, for 3B, differs from its successor's, for 7B."""
    recipes = ROOT / "recipes"
    _, small, _ = parse(recipes / "qwen2_5_vl_3b" / "racro_cro.yaml")
    _, large, _ = parse(recipes / "qwen2_5_vl_7b" / "racro_cro.yaml")
    assert (small.epsilon_high, small.max_steps, small.description_judge) == (0.2, 200, None)
    # their steps are samplings of 256 prompts, of two updates each, and every 50th is saved
    for recipe in (small, large, parse(recipes / "qwen2_5_vl_7b" / "racro_grpo.yaml")[1]):
        assert (recipe.prompts_per_step, recipe.updates_per_sampling, recipe.save_steps) == (128, 2, 100)
    changed = {
        item.name for item in dataclasses.fields(small) if getattr(small, item.name) != getattr(large, item.name)
    }
    assert changed <= {"epsilon_high", "max_steps", "description_judge", "output_dir", "run_name", "logging_dir"}


def test_launchers_take_overlays_in_place_of_their_own(tmp_path):
    fake = tmp_path / "torchrun"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)

    def command(script, *words):
        result = subprocess.run(
            ["bash", f"local_scripts/{script}.sh", *words],
            capture_output=True,
            text=True,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.split(" -m open_r1_vision.train ")[1].split()

    for script, zero in (("train_1_gpu", "zero2"), ("train_4_gpus", "zero3"), ("train_8_gpus", "zero3")):
        own = ["--deepspeed", f"local_scripts/../recipes/deepspeed/{zero}.json"]
        assert command(script, "a.yaml") == ["--config", "a.yaml", *own]
        assert command(script, "a.yaml", "--seed", "1") == ["--config", "a.yaml", *own, "--seed", "1"]
        assert command(script, "a.yaml", "b.yaml", "--seed", "1") == ["--config", "a.yaml", "b.yaml", "--seed", "1"]


def test_the_page_holds_what_the_formulas_give():
    page = TABLE.PAGE.read_text()
    assert TABLE.insert(page, TABLE.make()) == page, "run local_scripts/recipe_table.py --write"
    with pytest.raises(ValueError, match="The page has no lines"):
        TABLE.insert("nothing", "table")


@pytest.mark.parametrize("method", TABLE.METHODS)
def test_headers_hold_what_the_formulas_give(method):
    for model in TABLE.MODELS:
        text = TABLE.recipe_path(method, model).read_text()
        assert TABLE.with_header(text, TABLE.header(method, model)) == text, (
            "run local_scripts/recipe_table.py --write"
        )
