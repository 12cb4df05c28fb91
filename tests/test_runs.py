# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import subprocess
import sys

import pytest

from open_r1_vision.checkpoints import mark_complete
from open_r1_vision.reasoners.config import DECIDING, ReasonerConfig
from open_r1_vision.runs import LOCK_FILE, RESULTS_FILE, RUN_FILE, RunState, open_run, take_run, write_run

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


JUDGE = {"kind": "endpoint", "model": "judge", "base_url": "http://old:1/v1", "max_tokens": 64}
MENDED = {
    **{"base_url": "http://new:2/v1", "api_key_env": "KEY", "concurrency": 2, "retries": 9, "breaker_failures": 9},
    **{"request_seconds": 9, "batch_seconds": 99, "start_seconds": 9, "backoff_seconds": 1, "outage_seconds": 9},
    **{"cache": "c.sqlite", "cache_sampled": True, "log": "l.jsonl", "max_failure_rate": 0.5, "failure_window": 9},
    **{"backend": "vllm", "device": "cuda:1", "batch_size": 1, "gpu_memory": 0.5, "context_tokens": 999},
}


@pytest.mark.parametrize("name", ["reasoner", "fact_judge", "description_judge"])
@pytest.mark.parametrize("first_as_text", [True, False])
@pytest.mark.parametrize("then_as_text", [True, False])
def test_a_server_that_moved_is_no_other_run(tmp_path, name, first_as_text, then_as_text):
    def given(block, as_text):
        return {**SETTINGS, name: json.dumps(block) if as_text else block}

    write_run(tmp_path, given(JUDGE, first_as_text))
    going_on = RunState(finished=False, checkpoint=None)
    assert open_run(tmp_path, given({**JUDGE, **MENDED}, then_as_text), overwrite=False) == going_on
    with pytest.raises(
        ValueError, match=rf"it differs in {name}.model: judge -> other; {name}.temperature: unset -> "
    ):
        open_run(tmp_path, given({**JUDGE, "model": "other", "temperature": 1}, then_as_text), overwrite=False)
    with pytest.raises(ValueError, match=f"{name}.on_failure: unset -> zero"):
        open_run(tmp_path, given({**JUDGE, "on_failure": "zero"}, then_as_text), overwrite=False)
    with pytest.raises(ValueError, match=f"{name}.kind: endpoint -> unset"):
        open_run(tmp_path, SETTINGS, overwrite=False)


def test_the_mended_settings_are_all_that_do_not_decide():
    assert {*MENDED, *DECIDING, "on_failure"} == {item.name for item in dataclasses.fields(ReasonerConfig)}


def test_a_block_may_leave_its_kind_out(tmp_path):
    write_run(tmp_path, {"description_judge": {"max_tokens": 8}})
    same = {"description_judge": {"kind": "policy", "max_tokens": 8}}
    assert open_run(tmp_path, same, overwrite=False) == RunState(finished=False, checkpoint=None)
    with pytest.raises(ValueError, match="description_judge.kind: policy -> unset"):
        open_run(tmp_path, {}, overwrite=False)


def test_a_run_that_was_begun_before_blocks_were_taken_apart(tmp_path):
    (tmp_path / RUN_FILE).write_text(json.dumps({"reasoner": JUDGE, "fact_judge": json.dumps(JUDGE), "seed": 1}))
    moved = {**JUDGE, "base_url": "http://new:2/v1"}
    now = {"reasoner": moved, "fact_judge": moved, "seed": 1}
    assert open_run(tmp_path, now, overwrite=False) == RunState(finished=False, checkpoint=None)


def test_an_address_is_not_kept(tmp_path):
    write_run(tmp_path, {"reasoner": JUDGE})
    assert json.loads((tmp_path / RUN_FILE).read_text()) == {
        **{"reasoner.kind": "endpoint", "reasoner.model": "judge", "reasoner.max_tokens": 64}
    }


@pytest.mark.parametrize("block", ["no JSON", "[1]", 3])
def test_a_block_that_is_none_is_compared_as_it_is(tmp_path, block):
    write_run(tmp_path, {"reasoner": block})
    assert open_run(tmp_path, {"reasoner": block}, overwrite=False) == RunState(finished=False, checkpoint=None)
    with pytest.raises(ValueError, match="it differs in reasoner"):
        open_run(tmp_path, {"reasoner": JUDGE}, overwrite=False)


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
    take_run(run, obsolete=True).close()
    assert [path.name for path in run.iterdir()] == [LOCK_FILE]
    assert open_run(run, other, overwrite=False) == RunState(finished=False, checkpoint=None)


def test_two_runs_do_not_share_a_folder(run):
    code = "import sys; from pathlib import Path; from open_r1_vision.runs import take_run; "
    code += "take_run(Path(sys.argv[1])); print('taken', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "taken\n"
    with pytest.raises(ValueError, match="is being written by another run: wait for it, end it, or set another"):
        take_run(run, obsolete=True)
    assert (run / "checkpoint-5" / "model.safetensors").read_bytes() == b"weights"
    # a resume does not mind the lock
    assert open_run(run, SETTINGS, overwrite=False).checkpoint == run / "checkpoint-5"
    other.communicate()
    # this process may take it several times, as a notebook does
    take_run(run)
    take_run(run).close()


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


@pytest.mark.parametrize("inner", [".", "deeper/run"])
def test_a_file_in_place_of_the_folder(tmp_path, inner):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"but .*results\.json is a file: set output_dir to a folder"):
        open_run(tmp_path / "results.json" / inner, SETTINGS, overwrite=True)
    assert (tmp_path / "results.json").read_text() == "{}"


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
