# SPDX-License-Identifier: Apache-2.0
"""The command: finished stages are skipped, interrupted ones go on, changes are refused; the table."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from open_r1_vision.curriculum import __main__ as command
from open_r1_vision.curriculum import read_curriculum
from open_r1_vision.curriculum.launch import MARK
from open_r1_vision.curriculum.state import STATE_FILE, CurriculumState

HERE = Path(__file__).parent
#: The command with stages that take no time, in a process of its own.
RUN = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from open_r1_vision.curriculum import __main__ as command
command.build_command = lambda module, recipe, processes: [
    sys.executable, {str(HERE / "fake_stage.py")!r}, "--config", str(recipe)
]
sys.exit(command.main(sys.argv[1:]))
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`run(stages, *words)` gives exit code and output; `run.folder` is the curriculum's."""
    fake = [sys.executable, str(HERE / "fake_stage.py"), "--config"]
    monkeypatch.setattr(command, "build_command", lambda module, recipe, processes: [*fake, str(recipe)])

    def run(stages, *words):
        config = tmp_path / "curriculum.yaml"
        config.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "runs"), "stages": stages}))
        code = command.main([*words, "--config", str(config)])
        return code, capsys.readouterr().out

    run.config, run.folder = tmp_path / "curriculum.yaml", tmp_path / "runs"
    return run


def stages(*changes):
    names = ("warm_up", "perceive", "reason")
    plain = []
    for index, name in enumerate(names):
        model = "base" if not index else f"{{{names[index - 1]}.final}}"
        change = changes[index] if index < len(changes) else {}
        plain.append({"name": name, "run": "train", "settings": {"model_name_or_path": model, **change}})
    return plain


def starts(run, name):
    return len((run.folder / name / "starts.txt").read_text().splitlines())


def test_stages_run_once_each_and_hand_over_their_models(run):
    code, out = run(stages())
    assert code == 0
    assert (run.folder / "reason" / "final" / "weights.txt").read_text() == f"{run.folder}/perceive/final"
    code, out = run(stages())
    assert code == 0
    assert out.count("finished already") == 3
    assert [starts(run, name) for name in ("warm_up", "perceive", "reason")] == [1, 1, 1]


def test_a_stage_that_fails_ends_the_command_and_goes_on_in_the_next(run):
    code, out = run(stages({}, {"failures": 1}))
    assert code == 3
    assert "perceive: ended with exit code 3. The same command goes on from here." in out
    assert not (run.folder / "reason").exists()
    code, out = run(stages({}, {"failures": 1}))
    assert code == 0
    assert "perceive: going on with" in out
    assert [starts(run, name) for name in ("warm_up", "perceive", "reason")] == [1, 2, 1]


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
    assert [starts(run, name) for name in ("warm_up", "perceive", "reason")] == [1, 1, 1]
    assert json.loads((run.folder / STATE_FILE).read_text())["stages"]["perceive"]["settings"]["learning_rate"] == 0.5


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
