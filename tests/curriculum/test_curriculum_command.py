# SPDX-License-Identifier: Apache-2.0
"""The command: finished stages are skipped, interrupted ones go on, changes are refused; the table."""

import json
import os
import signal
import subprocess
import sys

import pytest
import yaml
from fake_curriculum import RUN, stages, starts

from open_r1_vision.curriculum import read_curriculum
from open_r1_vision.curriculum.launch import MARK
from open_r1_vision.curriculum.state import RUNNING, STATE_FILE, CurriculumState


def test_stages_run_once_each_and_hand_over_their_models(run):
    code, out = run(stages())
    assert code == 0
    assert (run.folder / "reason" / "final" / "weights.txt").read_text() == f"{run.folder}/perceive/final"
    code, out = run(stages())
    assert code == 0
    assert out.count("finished already") == 3
    assert [starts(run.folder, name) for name in ("warm_up", "perceive", "reason")] == [1, 1, 1]


def test_a_stage_that_fails_ends_the_command_and_goes_on_in_the_next(run):
    code, out = run(stages({}, {"failures": 1}))
    assert code == 3
    assert "perceive: ended with exit code 3. The same command goes on from here." in out
    assert not (run.folder / "reason").exists()
    code, out = run(stages({}, {"failures": 1}))
    assert code == 0
    assert "perceive: going on with" in out
    assert [starts(run.folder, name) for name in ("warm_up", "perceive", "reason")] == [1, 2, 1]


def test_a_command_that_is_killed_goes_on(run):
    run.config.write_text(yaml.safe_dump({"output_dir": str(run.folder), "stages": stages({}, {"kill_parent": True})}))
    killed = subprocess.run([sys.executable, "-c", RUN, "--config", str(run.config)], capture_output=True)
    assert killed.returncode == -9
    state = CurriculumState(read_curriculum(run.config))
    assert [state.of(stage) for stage in state.curriculum.stages] == ["finished", "interrupted", "waiting"]
    code, out = run(stages({}, {"kill_parent": True}))
    assert code == 0
    assert "warm_up: finished already" in out
    assert (run.folder / "reason" / "final" / "weights.txt").read_text() == f"{run.folder}/perceive/final"


def test_parts_of_a_curriculum(run):
    code, out = run(stages(), "--from", "perceive")
    assert code == 2
    assert "takes something from 'warm_up', not finished yet: run it first, with --from warm_up" in out
    assert run(stages(), "--until", "perceive")[0] == 0
    assert not (run.folder / "reason").exists()
    assert run(stages(), "--from", "reason")[0] == 0
    assert run(stages(), "--from", "reason", "--until", "warm_up")[0] == 2
    assert "did you mean 'reason'?" in run(stages(), "--from", "reson")[1]


def test_the_table(run):
    code, out = run(stages(), "status")
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["stage", "run", "state"],
        ["warm_up", "train", "waiting"],
        ["perceive", "train", "waiting"],
        ["reason", "train", "waiting"],
    ]
    run(stages({}, {"accuracy": 0.625}), "--until", "perceive")
    line = run(stages({}, {"accuracy": 0.625}), "status")[1].splitlines()[2]
    assert line.split()[:4] == ["perceive", "train", "finished", "5"]
    assert "accuracy 62.5 % at step 5" in line
    assert line.endswith(str(run.folder / "perceive"))


def test_the_table_of_a_stage_that_runs(run):
    """What a killed command left looks the same, but for the lock."""
    run(stages(), "--until", "warm_up")
    state = CurriculumState(read_curriculum(run.config))
    state.note(state.curriculum.stage("perceive"), RUNNING)
    with state.locked():
        lines = run(stages(), "status")[1].splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["finished", "running", "waiting"]
    assert run(stages(), "status")[1].splitlines()[2].split()[2] == "interrupted"


def test_the_table_tells_how_far_each_kind_of_stage_is(run):
    """Rows that are sampled, sizes of splits, and steps before the first checkpoint as well as after it."""
    plain = [{"name": name, "run": name, "settings": {}} for name in ("sample", "split", "sft", "train")]
    names = {"sample/settings.json": json.dumps({"num_rows": 8, "num_generations": 2})}
    lines = [{"id": "a", "sample": 0}, {"id": "a", "sample": 1}, {"id": "b", "refused": "too long"}]
    names["sample/shard-00000.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines)
    splits = {"easy": ["a"] * 92, "medium": ["b"] * 887, "hard": ["c"] * 557, "incomplete": []}
    names["split/splits.json"] = json.dumps({"splits": splits})
    names["sft/checkpoint-12/x"] = names["train/completions/completions_00003.parquet"] = ""
    for name, text in names.items():
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).write_text(text)
    words = [line.split(maxsplit=3)[3] for line in run(plain, "status")[1].splitlines()[1:]]
    assert words[0].startswith("2/8 rows ")
    assert words[1].startswith("easy 92, medium 887, hard 557 ")
    assert words[2].split()[0] == "12"
    assert words[3].split()[0] == "3"


def test_the_table_of_a_recipe_with_faults(run):
    run(stages(), "--until", "warm_up")
    plain = [*stages({}, {"dataset": "{nobody.final}"}), {"name": "last", "run": "tain"}]
    code, out = run(plain, "status")
    assert code == 0
    assert [line.split()[2] for line in out.splitlines()[1:4]] == ["finished", "waiting", "waiting"]
    assert "The recipe has 2 fault(s), and stages may be missing here: --dry_run tells which." in out


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")])
def test_a_command_that_gets_a_signal_was_interrupted_and_did_not_fail(run, number, name):
    plain = stages({}, {"signal_parent": int(number)})
    run.config.write_text(yaml.safe_dump({"output_dir": str(run.folder), "stages": plain}))
    ended = subprocess.run([sys.executable, "-c", RUN, "--config", str(run.config)], capture_output=True, text=True)
    assert ended.returncode == 128 + number
    assert f"perceive: interrupted. Stopped by {name}." in ended.stdout
    noted = json.loads((run.folder / STATE_FILE).read_text())["stages"]["perceive"]
    assert (noted["state"], noted["exit_code"]) == ("interrupted", -signal.SIGTERM)
    assert run(plain)[0] == 0


def test_no_stage_is_started_after_a_signal_in_spite_of_which_one_came_to_its_end(run):
    plain = stages({}, {"signal_parent": int(signal.SIGTERM), "deaf": True})
    run.config.write_text(yaml.safe_dump({"output_dir": str(run.folder), "stages": plain}))
    ended = subprocess.run([sys.executable, "-c", RUN, "--config", str(run.config)], capture_output=True, text=True)
    assert ended.returncode == 128 + signal.SIGTERM
    assert "perceive: finished. Stopped by SIGTERM." in ended.stdout
    assert not (run.folder / "reason").exists()
    assert run(plain)[1].count("finished already") == 2


def test_two_commands_in_one_folder(run):
    run(stages(), "--until", "warm_up")
    state = CurriculumState(read_curriculum(run.config))
    with state.locked():
        code, out = run(stages())
        assert code == 2
        assert "is being worked in by another command" in out
    assert run(stages())[0] == 0


def test_what_a_killed_command_left_alive_is_ended_before_anything_is_started(run):
    """Two workers in one folder would tear each other's files; another folder's are left alone."""
    run(stages(), "--until", "warm_up")
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    left, other = (
        subprocess.Popen(sleep, env={**os.environ, MARK: str(folder)}) for folder in (run.folder, run.folder.parent)
    )
    try:
        assert run(stages())[0] == 0
        assert left.wait(5) == -signal.SIGTERM
        assert other.poll() is None
    finally:
        for process in (left, other):
            process.kill()
            process.wait()


def test_a_state_file_that_can_not_be_read(run):
    run(stages(), "--until", "warm_up")
    (run.folder / STATE_FILE).write_text("{")
    code, out = run(stages())
    assert code == 2
    assert "can't be read, so it is unknown which stages are finished" in out


def test_settings_of_the_command_line_are_given_to_every_stage(run):
    code, _ = run(stages({"seed": 3}), "--seed", "7", "--until", "perceive")
    assert code == 0
    settings = json.loads((run.folder / STATE_FILE).read_text())["stages"]
    assert [settings[name]["settings"]["seed"] for name in ("warm_up", "perceive")] == [7, 7]
    code, out = run(stages({"seed": 3}))
    assert code == 2
    assert "warm_up.seed: 7 -> 3" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--dry-runn"], "did you mean --dry"), (["5"], "Unexpected argument '5': settings are given as `--key value`")],
)
def test_words_that_are_no_settings(run, words, message):
    code, out = run(stages(), *words)
    assert code == 2
    assert message in out
    assert not run.folder.exists()
