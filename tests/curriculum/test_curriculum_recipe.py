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
    assert (warm_up.processes, perceive.processes, curriculum.processes) == (2, 3, 2)
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
        ({"processes": 0}, "`processes` of stage 'reason' is 0: set a whole number"),
        (
            {"settings": {"dataset": "{warm_up}"}},
            r"has \{warm_up\}, which is no reference .*: write \{warm_up.final\}",
        ),
        ({"settings": {"dataset": ["{ warm_up.final }"]}}, r"has \{ warm_up.final \}, which is no reference"),
        ({"settings": {"dataset": "{reason}/x"}}, r"has \{reason\}, which is no reference"),
    ],
)
def test_what_can_not_be_run_is_refused(write, change, message):
    second = {"name": "reason", "run": "train", "settings": {}, **change}
    with pytest.raises(ValueError, match=message):
        read_curriculum(write([STAGES[0], second]))


def test_braces_that_are_no_references_stay(write):
    settings = {"user_prompt": "{problem}", "options": '{"warm_up": 1}', "template": "{{ messages }}"}
    (_, stage) = read_curriculum(write([STAGES[0], {"name": "reason", "run": "train", "settings": settings}])).stages
    assert {key: stage.settings[key] for key in settings} == settings


def test_processes_of_the_command_line_win(write):
    curriculum = read_curriculum(write(processes=2), processes=5)
    assert [stage.processes for stage in curriculum.stages] == [5, 5]
    assert curriculum.processes == 5
    with pytest.raises(ValueError, match="--processes is 0: set a whole number of at least 1"):
        read_curriculum(write(processes=2), processes=0)
    with pytest.raises(ValueError, match="`processes` is 0: set a whole number of at least 1"):
        read_curriculum(write(processes=0))


def test_a_setting_of_the_command_line_cuts_no_stage_off(write):
    with pytest.raises(ValueError) as caught:
        read_curriculum(write(), overrides={"model_name_or_path": "other", "seed": 3})
    assert str(caught.value) == (
        "--model_name_or_path is given to every stage, but stage 'perceive' takes its model_name_or_path from an "
        "earlier one, as {warm_up.final}, and would no longer build on it: set model_name_or_path in the recipe, in "
        "the stage that is to have it."
    )
    with pytest.raises(ValueError, match=r"takes its dataset_options.path from an earlier one, as \{warm_up.folder\}"):
        read_curriculum(write(), overrides={"dataset_options": {}})
    assert read_curriculum(write(), overrides={"learning_rate": 3}).stages[1].needs == ("warm_up",)


def test_what_stages_take_and_what_was_written(write):
    curriculum = read_curriculum(write(), output_dir="here", overrides={"seed": 1})
    warm_up, perceive = curriculum.stages
    assert warm_up.takes == []
    assert sorted(perceive.takes) == [
        ("dataset_options.names", "{warm_up.final}"),
        ("dataset_options.path", "{warm_up.folder}"),
        ("model_name_or_path", "{warm_up.final}"),
    ]
    assert perceive.written == {**STAGES[1]["settings"], "seed": 1}


def test_no_stages_no_folder_no_file(write, tmp_path):
    with pytest.raises(ValueError, match="has no stages"):
        read_curriculum(write([]))
    (tmp_path / "x.yaml").write_text("stages: [1]")
    with pytest.raises(ValueError, match="has no `output_dir`"):
        read_curriculum(tmp_path / "x.yaml")
    with pytest.raises(ValueError, match="There is no recipe"):
        read_curriculum(tmp_path / "y.yaml")
