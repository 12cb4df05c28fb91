# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from open_r1_vision.checkpoints import mark_complete
from open_r1_vision.runs import RESULTS_FILE, RUN_FILE, RunState, clear_run, open_run, write_run

SETTINGS = {"model_name_or_path": "policy", "learning_rate": 1e-4, "num_processes": 2, "output_dir": "runs/a"}


@pytest.fixture
def run(tmp_path):
    """A folder of a run with a checkpoint."""
    folder = tmp_path / "run"
    write_run(folder, SETTINGS)
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "model.safetensors").write_bytes(b"weights")
    mark_complete(folder / "checkpoint-5")
    return folder


@pytest.mark.parametrize("exists", [True, False])
def test_a_new_folder(tmp_path, exists):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    assert open_run(folder, SETTINGS, overwrite=False) == RunState(finished=False, checkpoint=None)
    assert folder.exists() == exists


def test_writing_makes_the_folder_and_leaves_one_file(tmp_path):
    write_run(tmp_path / "a" / "b", SETTINGS)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [RUN_FILE]
    kept = {"model_name_or_path": "policy", "learning_rate": 1e-4, "num_processes": 2}
    assert json.loads((tmp_path / "a" / "b" / RUN_FILE).read_text()) == kept


def test_going_on(run):
    assert open_run(run, SETTINGS, overwrite=False) == RunState(finished=False, checkpoint=run / "checkpoint-5")


def test_a_run_without_checkpoint_starts_again(tmp_path):
    write_run(tmp_path, SETTINGS)
    assert open_run(tmp_path, SETTINGS, overwrite=False) == RunState(finished=False, checkpoint=None)


def test_a_torn_checkpoint_is_left_out(run):
    (run / "checkpoint-7").mkdir()
    assert open_run(run, SETTINGS, overwrite=False).checkpoint == run / "checkpoint-5"


def test_a_finished_run(run):
    (run / RESULTS_FILE).write_text("{}")
    assert open_run(run, SETTINGS, overwrite=False).finished


def test_settings_that_may_change(run):
    changed = {**SETTINGS, "output_dir": "moved", "report_to": "wandb", "logging_steps": 5, "save_total_limit": 1}
    assert open_run(run, changed, overwrite=False).checkpoint == run / "checkpoint-5"


def test_another_run_is_left_alone(run):
    other = {"learning_rate": 1e-5, "num_processes": 2, "max_steps": 9}
    message = (
        "holds another run; it differs in learning_rate: 0.0001 -> 1e-05; max_steps: unset -> 9; "
        "model_name_or_path: policy -> unset. Set another output_dir, or overwrite_output: true to delete that run."
    )
    with pytest.raises(ValueError, match=message):
        open_run(run, other, overwrite=False)
    assert (run / "checkpoint-5" / "model.safetensors").read_bytes() == b"weights"


def test_overwriting(run):
    other = {**SETTINGS, "learning_rate": 1e-5}
    assert open_run(run, other, overwrite=True) == RunState(finished=False, checkpoint=None, obsolete=True)
    # nothing is deleted before the new run is ready to start
    assert (run / "checkpoint-5" / "model.safetensors").read_bytes() == b"weights"
    clear_run(run)
    assert not run.exists()


def test_overwriting_lets_the_same_run_go_on(run):
    assert open_run(run, SETTINGS, overwrite=True) == RunState(finished=False, checkpoint=run / "checkpoint-5")
    (run / RESULTS_FILE).write_text("{}")
    assert open_run(run, SETTINGS, overwrite=True).obsolete


def test_a_folder_without_files_is_free(tmp_path):
    (tmp_path / "completions").mkdir()
    assert open_run(tmp_path, SETTINGS, overwrite=False) == RunState(finished=False, checkpoint=None)


def test_files_that_are_no_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    message = "holds files, but no run.json of a run, and only runs are ever deleted: set another output_dir"
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=message):
            open_run(tmp_path, SETTINGS, overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_values_that_json_does_not_know(tmp_path):
    settings = {"dataset": tmp_path / "rows.jsonl", "seeds": (1, 2)}
    write_run(tmp_path / "run", settings)
    assert open_run(tmp_path / "run", settings, overwrite=False) == RunState(finished=False, checkpoint=None)


def test_a_run_file_cut_short(run):
    (run / RUN_FILE).write_text('{"model_na')
    with pytest.raises(
        ValueError,
        match="run.json can't be read, so it is unknown whose run that is: set another output_dir",
    ):
        open_run(run, SETTINGS, overwrite=False)


def test_a_list_of_one_is_its_element(tmp_path):
    write_run(tmp_path, {"reward_funcs": ["a.b"]})
    assert open_run(tmp_path, {"reward_funcs": "a.b"}, overwrite=False) == RunState(finished=False, checkpoint=None)
