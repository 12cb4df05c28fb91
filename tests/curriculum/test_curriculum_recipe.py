# SPDX-License-Identifier: Apache-2.0
"""What a curriculum's recipe may say, and what its stages take from one another."""

import pytest
import yaml

from open_r1_vision.curriculum import read_curriculum

STAGES = [
    {"name": "warm_up", "run": "sft", "settings": {"model_name_or_path": "base", "learning_rate": 0.1}},
    {
        "name": "perceive",
        "run": "train",
        "processes": 3,
        "settings": {
            "model_name_or_path": "{warm_up.final}",
            "dataset_options": {"path": "{warm_up.folder}/easy.json", "names": ["{warm_up.final}", 1]},
        },
    },
]


@pytest.fixture
def write(tmp_path):
    def write(stages=STAGES, **keys):
        path = tmp_path / "curriculum.yaml"
        path.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "runs"), "stages": stages, **keys}))
        return path

    return write


def test_references_become_paths(write, tmp_path):
    curriculum = read_curriculum(write(processes=2))
    warm_up, perceive = curriculum.stages
    runs = tmp_path / "runs"
    assert perceive.settings == {
        "model_name_or_path": f"{runs}/warm_up/final",
        "dataset_options": {"path": f"{runs}/warm_up/easy.json", "names": [f"{runs}/warm_up/final", 1]},
        "output_dir": f"{runs}/perceive",
    }
    assert (warm_up.needs, perceive.needs) == ((), ("warm_up",))
    assert (warm_up.processes, perceive.processes, curriculum.processes) == (None, 3, 2)
    assert (warm_up.module, perceive.module) == ("open_r1_vision.sft", "open_r1_vision.train")


def test_settings_go_over_the_recipe_and_that_over_what_is_shared(write, tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("learning_rate: 0.2\nmax_steps: 7\n")
    stages = [{"name": "a", "run": "train", "recipe": str(base), "settings": {"max_steps": 9}}]
    (stage,) = read_curriculum(write(stages, shared={"learning_rate": 0.5, "seed": 4}), output_dir="elsewhere").stages
    assert stage.settings == {"learning_rate": 0.2, "max_steps": 9, "seed": 4, "output_dir": "elsewhere/a"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Warm up"}, "name of lower-case letters"),
        ({"name": "warm_up"}, "Two stages are called 'warm_up'"),
        ({"run": "tain"}, r"'tain': set it to sft, sample, split, train"),
        ({"setings": {}}, r"unknown key 'setings'; did you mean 'settings'\?"),
        (
            {"settings": {"dataset": "{warmup.final}"}},
            r"no earlier stage is called 'warmup'; did you mean 'warm_up'\?",
        ),
        ({"settings": {"dataset": "{reason.final}"}}, "no earlier stage is called 'reason'"),
        ({"settings": {"dataset": "{warm_up.best}"}}, "a stage leaves folder, final"),
        ({"settings": 3}, "is a int: give a mapping"),
        ({"recipe": "nowhere.yaml"}, "There is no recipe 'nowhere.yaml'"),
        ({"processes": 0}, "processes is 0"),
    ],
)
def test_what_can_not_be_run_is_refused(write, change, message):
    second = {"name": "reason", "run": "train", "settings": {}, **change}
    with pytest.raises(ValueError, match=message):
        read_curriculum(write([STAGES[0], second]))


def test_no_stages_no_folder_no_file(write, tmp_path):
    with pytest.raises(ValueError, match="has no stages"):
        read_curriculum(write([]))
    (tmp_path / "x.yaml").write_text("stages: [1]")
    with pytest.raises(ValueError, match="has no `output_dir`"):
        read_curriculum(tmp_path / "x.yaml")
    with pytest.raises(ValueError, match="There is no recipe"):
        read_curriculum(tmp_path / "y.yaml")
