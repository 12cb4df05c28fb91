# SPDX-License-Identifier: Apache-2.0
"""What may change after a curriculum was begun: its place, and stages that left nothing; not what others build on."""

import json
import shutil

import pytest
from fake_curriculum import stages, starts

from open_r1_vision.curriculum import read_curriculum
from open_r1_vision.curriculum.state import STATE_FILE, CurriculumState


def test_a_changed_recipe_is_refused_with_the_difference(run):
    run(stages())
    code, out = run(stages({}, {"learning_rate": 0.5}))
    assert code == 2
    assert "perceive.learning_rate: unset -> 0.5" in out
    assert "--accept_changes" in out
    code, out = run(stages({}, {"learning_rate": 0.5}), "--accept_changes")
    assert code == 0
    assert "Deleted, to be run anew: perceive, reason." in out
    # deleted folders begin their counts anew; the first stage was left alone
    assert [starts(run.folder, name) for name in ("warm_up", "perceive", "reason")] == [1, 1, 1]
    assert json.loads((run.folder / STATE_FILE).read_text())["stages"]["perceive"]["settings"]["learning_rate"] == 0.5


def test_a_deleted_folder_is_not_made_anew_under_stages_that_were_built_on_it(run):
    run(stages())
    shutil.rmtree(run.folder / "warm_up")
    code, out = run(stages())
    assert code == 2
    assert f"What a finished stage left in {run.folder}/warm_up is gone and would be made anew" in out
    assert "--accept_changes, which deletes perceive, reason, to be run anew" in out
    assert not (run.folder / "warm_up").exists()
    # where it is not needed any more, it is not missed
    assert run(stages(), "--from", "perceive")[0] == 0
    assert starts(run.folder, "perceive") == 1
    code, out = run(stages(), "--accept_changes")
    assert code == 0
    assert "Deleted, to be run anew: perceive, reason." in out
    assert "finished already" not in out


def test_a_deleted_folder_on_which_nothing_was_built_is_made_anew(run):
    run(stages(), "--until", "warm_up")
    shutil.rmtree(run.folder / "warm_up")
    assert run(stages())[0] == 0


def test_what_failed_in_between_is_no_reason_to_keep_a_deleted_folder(run):
    run(stages({}, {"failures": 1}))
    shutil.rmtree(run.folder / "warm_up")
    assert run(stages({}, {"failures": 1}))[0] == 0


def test_a_curriculum_that_was_moved_is_the_same(run, tmp_path, monkeypatch):
    run(stages())
    run.folder.rename(tmp_path / "elsewhere")
    run.folder = tmp_path / "elsewhere"
    code, out = run(stages())
    assert (code, out.count("finished already")) == (0, 3)
    monkeypatch.chdir(tmp_path)
    code, out = run(stages(), output_dir="elsewhere")
    assert (code, out.count("finished already")) == (0, 3)


def test_a_curriculum_that_was_moved_half_way_goes_on(run, tmp_path):
    """The entry points compare paths; the curriculum knows that those are other names of the same."""
    plain = stages({}, {"checkpoint": True, "failures": 1})
    assert run(plain)[0] == 3
    before = run.folder
    note = json.dumps({"model_name_or_path": f"{before}/warm_up/final", "learning_rate": 1, "num_processes": 1})
    (before / "perceive" / "run.json").write_text(note)
    before.rename(tmp_path / "elsewhere")
    run.folder = tmp_path / "elsewhere"
    code, out = run(plain)
    assert code == 0
    now = json.loads((run.folder / "perceive" / "run.json").read_text())
    assert now == {**json.loads(note), "model_name_or_path": f"{run.folder}/warm_up/final"}


def test_another_entry_point_is_a_change(run):
    run(stages())
    changed = stages()
    changed[1]["run"] = "sft"
    code, out = run(changed)
    assert code == 2
    assert "perceive.run: train -> sft" in out


def test_another_number_of_processes_is_a_change_of_what_is_not_finished(run):
    plain = stages({}, {"checkpoint": True, "failures": 1})
    run(plain)
    code, out = run(plain, "--processes", "2")
    assert code == 2
    assert "begun: perceive.processes: 1 -> 2. " in out  # and not warm_up's
    code, out = run(plain, "--processes", "2", "--accept_changes")
    assert "Deleted, to be run anew: perceive." in out
    assert json.loads((run.folder / STATE_FILE).read_text())["stages"]["perceive"]["processes"] == 2
    # samples go on on any number of processes
    sampled = [{"name": "draw", "run": "sample", "settings": {"sample": True, "failures": 1}}]
    run(sampled, output_dir=str(run.folder / "sampled"))
    assert run(sampled, "--processes", "2", output_dir=str(run.folder / "sampled"))[0] == 0


@pytest.mark.parametrize("left", [None, "run.json", "settings.json"])
def test_a_stage_that_failed_before_it_left_anything_may_be_mended(run, left):
    assert run(stages({}, {"failures": 1, "max_step": 5}))[0] == 3
    if left:  # a run that begins with another run's is refused by its entry point
        (run.folder / "perceive" / left).write_text("{}")
    code, out = run(stages({}, {"max_steps": 5}))
    assert code == 0
    assert not (run.folder / "perceive" / str(left)).exists()


@pytest.mark.parametrize("left", ["checkpoint", "sample"])
def test_a_stage_that_left_something_keeps_its_settings(run, left):
    run(stages({}, {left: True, "failures": 1}))
    code, out = run(stages({}, {left: True, "failures": 1, "max_steps": 5}))
    assert code == 2
    assert "perceive.max_steps: unset -> 5" in out


def test_the_state_says_as_what_stages_were_begun(run):
    run(stages(), "--until", "perceive")
    noted = json.loads((run.folder / STATE_FILE).read_text())["stages"]["perceive"]
    assert noted["settings"] == {"model_name_or_path": "{warm_up.final}"}
    assert (noted["run"], noted["processes"]) == ("train", 1)
    state = CurriculumState(read_curriculum(run.config))
    assert state.changed() == []
