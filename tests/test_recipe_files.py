# SPDX-License-Identifier: Apache-2.0
"""Recipes that build on others: who wins, and which file a message names."""

import os
from dataclasses import dataclass, field

import pytest

from open_r1_vision.arguments import ScriptArguments, parse_recipe, read_recipe
from open_r1_vision.curriculum import read_curriculum
from open_r1_vision.recipe_files import read_files


@dataclass
class Options:
    """Keys of a method."""

    rate: float = field(default=0.5, metadata={"help": "Rate."})
    steps: int = field(default=1, metadata={"help": "Steps."})
    name: str | None = field(default=None, metadata={"help": "Name."})


@pytest.fixture
def write(tmp_path):
    """`write("a/b.yaml", text)` gives the path as text."""

    def put(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return put


def parse(*words):
    return parse_recipe(read_recipe(words), (ScriptArguments, Options))


def test_a_later_file_wins_and_the_command_line_over_all(write):
    method = write("method.yaml", "dataset: a.jsonl\nrate: 0.1\nsteps: 2\nname: method\n")
    machine = write("machine.yaml", "steps: 4\nname: machine\n")
    script, options = parse("--config", method, machine, "--name", "mine")
    assert (script.dataset, options.rate, options.steps, options.name) == ("a.jsonl", 0.1, 4, "mine")
    _, options = parse("--config", machine, "--config", method)
    assert (options.steps, options.name) == (2, "method")


def test_null_takes_a_value_back(write):
    method = write("method.yaml", "dataset: a.jsonl\nname: method\n")
    _, options = parse("--config", method, write("none.yaml", "name: null\n"))
    assert options.name is None


def test_a_file_wins_over_what_it_extends(write):
    write("base/base.yaml", "dataset: a.jsonl\nrate: 0.1\nsteps: 2\n")
    write("base/middle.yaml", "extends: base.yaml\nsteps: 3\nname: middle\n")
    last = write("model/last.yaml", "name: last\nextends: ../base/middle.yaml\n")
    script, options = parse("--config", last)
    assert (script.dataset, options.rate, options.steps, options.name) == ("a.jsonl", 0.1, 3, "last")
    assert "extends" not in read_recipe(["--config", last]).settings
    _, options = parse("--config", last, write("machine.yaml", "steps: 9\n"))
    assert options.steps == 9


def test_of_several_that_are_extended_the_later_wins(write):
    write("one.yaml", "dataset: one.jsonl\nsteps: 1\nrate: 0.1\n")
    write("two.yaml", "dataset: two.jsonl\nsteps: 2\n")
    script, options = parse("--config", write("both.yaml", "extends: [one.yaml, two.yaml]\n"))
    assert (script.dataset, options.steps, options.rate) == ("two.jsonl", 2, 0.1)


def test_mappings_are_replaced_as_a_whole(write):
    method = write("method.yaml", "dataset: a.b\ndataset_options: {count: 3, seed: 1}\n")
    script, _ = parse("--config", method, write("rows.yaml", "dataset_options: {count: 4}\n"))
    assert script.dataset_options == {"count": 4}


def test_environments_are_merged(write, monkeypatch):
    monkeypatch.setenv("ORV_ONE", "0")
    monkeypatch.setenv("ORV_TWO", "0")
    method = write("method.yaml", "env: {ORV_ONE: 1, ORV_TWO: 1}\n")
    read_recipe(["--config", method, write("machine.yaml", "env: {ORV_TWO: 2}\n")])
    assert (os.environ["ORV_ONE"], os.environ["ORV_TWO"]) == ("1", "2")


def test_an_unknown_key_names_its_own_file(write):
    write("base.yaml", "dataset: a.jsonl\nstepz: 2\n")
    method = write("method.yaml", "extends: base.yaml\nrate: 0.1\n")
    machine = write("machine.yaml", "nam: x\n")
    with pytest.raises(ValueError) as raised:
        parse("--config", method, machine, "--raet", "1")
    lines = str(raised.value).splitlines()
    folder = os.path.dirname(machine)
    assert f"Unknown key `stepz` in {folder}/base.yaml. Did you mean `steps`?" in lines
    assert f"Unknown key `nam` in {machine}. Did you mean `name`?" in lines
    assert "Unknown key `raet`. Did you mean `rate`?" in lines
    assert len(lines) == 3


def test_a_recipe_that_extends_itself(write):
    write("one.yaml", "extends: two.yaml\n")
    two = write("two.yaml", "extends: one.yaml\n")
    with pytest.raises(ValueError, match=r"two\.yaml' extends itself \(.*two\.yaml -> .*one\.yaml -> .*two\.yaml\)"):
        read_files([two])


def test_the_same_base_twice_is_no_circle(write):
    write("base.yaml", "dataset: a.jsonl\nsteps: 2\n")
    one = write("one.yaml", "extends: base.yaml\nsteps: 3\n")
    two = write("two.yaml", "extends: base.yaml\nrate: 0.1\n")
    assert read_files([one, two]).settings == {"dataset": "a.jsonl", "steps": 2, "rate": 0.1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: nowhere.yaml", r"There is no recipe '.*nowhere.yaml', which '.*recipe.yaml' extends: name it from"),
        ("extends: 3", r"`extends` in '.*recipe.yaml' is 3: give the path of a recipe"),
        ("extends: [1]", r"`extends` in '.*recipe.yaml' is \[1\]: give the path"),
        ("extends: list.yaml", r"The recipe '.*list.yaml' must consist of `key: value` lines"),
        ("extends: broken.yaml", r"The recipe '.*broken.yaml' is not YAML"),
        ("extends: environment.yaml", r"`env` in a recipe must be a mapping .*'.*environment.yaml' it is 3"),
    ],
)
def test_what_is_wrong_names_the_file(write, text, message):
    write("list.yaml", "[1, 2]")
    write("broken.yaml", "a: [1")
    write("environment.yaml", "env: 3")
    with pytest.raises(ValueError, match=message):
        read_files([write("recipe.yaml", text)])


def test_config_without_a_file():
    with pytest.raises(ValueError, match="--config stands without a file"):
        read_recipe(["--config", "--steps", "3"])


CURRICULUM = """
output_dir: runs/base
processes: 8
shared: {dtype: bfloat16, seed: 1}
stages:
  - {name: learn, run: sft, settings: {model_name_or_path: base, dataset: a.jsonl}}
  - {name: reason, run: train, settings: {model_name_or_path: "{learn.final}", dataset: b.jsonl, beta: 0.1}}
"""


def test_a_curriculum_is_changed_by_stage(write):
    base = write("base.yaml", CURRICULUM)
    changed = write(
        "changed.yaml",
        "extends: base.yaml\noutput_dir: runs/changed\nshared: {seed: 2}\n"
        "stages:\n  learn: {settings: {model_name_or_path: other}}\n  reason: {processes: 4, settings: {beta: 0.0}}\n",
    )
    curriculum = read_curriculum(changed)
    learn, reason = curriculum.stages
    assert (learn.settings["model_name_or_path"], learn.settings["dataset"]) == ("other", "a.jsonl")
    assert learn.settings["dtype"] == "bfloat16" and learn.settings["seed"] == 2
    assert (learn.processes, reason.processes) == (8, 4)
    assert reason.settings["beta"] == 0.0 and reason.settings["dataset"] == "b.jsonl"
    assert reason.settings["model_name_or_path"] == "runs/changed/learn/final"
    machine = write("machine.yaml", "processes: 2\nstages: {reason: {settings: {beta: 0.5}}}\n")
    curriculum = read_curriculum([changed, machine])
    assert [stage.processes for stage in curriculum.stages] == [2, 4]
    assert curriculum.stages[1].settings["beta"] == 0.5
    # the base is as it was
    assert read_curriculum(base).stages[1].settings["beta"] == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: base.yaml\nstages: {raeson: {}}", "changes 'raeson', but there is no such stage: learn, reason"),
        ("extends: base.yaml\nstages: {reason: 3}", "changes 'reason' by 3: give a mapping such as"),
        ("extends: base.yaml\nstages: {reason: {settings: 3}}", "changes 'reason' by .*: give a mapping such as"),
        ("stages: {reason: {}}", "changes stages by name, but nothing before it has a list of stages"),
    ],
)
def test_changes_of_stages_that_cannot_be(write, text, message):
    write("base.yaml", CURRICULUM)
    with pytest.raises(ValueError, match=message):
        read_curriculum(write("changed.yaml", text))
