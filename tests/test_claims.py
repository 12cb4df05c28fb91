# SPDX-License-Identifier: Apache-2.0
"""The study of all methods against plain GRPO: which runs it makes, and what it makes of them."""

import json
import sys

import pandas as pd
import pytest
from test_eval_scripts import load

from open_r1_vision.held_out import Sample, write_samples

pytest.importorskip("statsmodels")


@pytest.fixture(scope="module")
def claims():
    sys.modules["eval_claims"] = module = load("claims")
    return module


def option(command, name):
    return command[command.index(f"--{name}") + 1]


class FakeLaunch:
    """Leaves what a run leaves: the scores that `accuracies` gives it, by the name of its folder."""

    def __init__(self, accuracies, signals=None):
        self.accuracies, self.signals = accuracies, signals or {}
        self.commands = []

    def __call__(self, command):
        from pathlib import Path

        self.commands.append(command)
        folder = Path(option(command, "output_dir"))
        for step, scores in ((0, [0.0] * 4), (2, self.accuracies.get(folder.name, [0.0] * 4))):
            named = [(f"row-{index}", score) for index, score in enumerate(scores)]
            write_samples(folder, step, [Sample(row, "text", s, "caption", None, None, s, s) for row, s in named])
        (folder / "completions").mkdir()
        for step, groups in enumerate(self.signals.get(folder.name, [])):
            rows = [(f"page-{step}-{i}", value) for i, values in enumerate(groups) for value in values]
            table = pd.DataFrame(rows, columns=["id", "accuracy_reward"])
            table.to_parquet(folder / "completions" / f"completions_{step:05d}.parquet")
        (folder / "results.json").write_text(json.dumps({"settings": {"num_generations": 2}}))


def choose(claims, method, measure):
    return [claim for claim in claims.CLAIMS if (claim.method, claim.measure) == (method, measure)]


def test_rows_are_paired_and_count_once(claims, tmp_path):
    # means over the seeds: plain 0.5, 0, 0.5, 1 and captions 1, 1, 0.5, 1: +0.5, +1, 0, 0
    launch = FakeLaunch(
        {
            "plain_seed0": [1, 0, 0, 1],
            "plain_seed1": [0, 0, 1, 1],
            "captions_seed0": [1, 1, 0, 1],
            "captions_seed1": [1, 1, 1, 1],
        }
    )
    study = claims.Study(tmp_path, (0, 1), quick=True, launch=launch)
    chosen = choose(claims, "Visionary-R1", "accuracy")
    study.run_all(chosen)
    assert claims.collect(chosen[0], study) == ([0.5, 0.0, 0.5, 1.0], [1.0, 1.0, 0.5, 1.0], None)
    row = claims.format_table(chosen, study)[2].strip("| ").split(" | ")
    assert row[0] == "Visionary-R1"
    assert (row[3].split(" [")[0], row[4].split(" [")[0]) == ("50.0 %", "87.5 %")
    assert row[5].startswith("+37.5 [")
    # both differing rows go up: of the 4 patterns of signs 2 are as far from 0
    assert row[6] == "0.5"
    assert row[8] == "`--only Visionary-R1`"


def test_groups_are_paired_by_step_and_place(claims, tmp_path):
    signals = {
        "hard_seed0": [[(0, 0), (0, 1)], [(1, 1), (0, 0)]],
        "hints_seed0": [[(0, 1), (0, 1)], [(1, 1), (1, 0)]],
    }
    study = claims.Study(tmp_path, (0,), quick=True, launch=FakeLaunch({}, signals))
    chosen = choose(claims, "Hint-GRPO", "signal")
    study.run_all(chosen)
    rows = ["page-0-0", "page-0-1", "page-1-0", "page-1-1"]
    assert claims.collect(chosen[0], study) == ([0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0], rows)


def test_groups_of_other_rows_are_refused(claims, tmp_path):
    signals = {"hard_seed0": [[(0, 0)]], "hints_seed0": [[(0, 1)], [(1, 0)]]}
    study = claims.Study(tmp_path, (0,), quick=True, launch=FakeLaunch({}, signals))
    chosen = choose(claims, "Hint-GRPO", "signal")
    study.run_all(chosen)
    with pytest.raises(SystemExit, match="hard and hints met other rows with seed 0"):
        claims.collect(chosen[0], study)


def test_finished_runs_are_not_run_again(claims, tmp_path):
    launch = FakeLaunch({})
    study = claims.Study(tmp_path, (0, 1), quick=True, launch=launch)
    chosen = choose(claims, "Visionary-R1", "accuracy") + choose(claims, "RACRO", "read")
    study.run_all(chosen)
    names = ["plain_seed0", "captions_seed0", "reader_captions_seed0"]
    assert [option(command, "output_dir") for command in launch.commands] == [
        str(tmp_path / name.replace("0", seed)) for seed in "01" for name in names
    ]
    study.run_all(chosen)
    assert len(launch.commands) == 6
    (tmp_path / "captions_seed1" / "results.json").unlink()
    for kind in ("completions", "evaluations"):
        for path in sorted((tmp_path / "captions_seed1").rglob("*"), reverse=True):
            if kind in str(path):
                path.rmdir() if path.is_dir() else path.unlink()
    study.run_all(chosen)
    assert [option(command, "output_dir") for command in launch.commands[6:]] == [str(tmp_path / "captions_seed1")]
    assert set(study.seconds()) == {name.replace("0", seed) for seed in "01" for name in names}


def test_commands(claims, tmp_path):
    study = claims.Study(tmp_path, (0, 1, 2), processes=3)
    command = study.command("without_facts", 2)
    assert command[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3", "-m"]
    start = command.index("--reward_weights")
    assert command[start + 1 : start + 5] == ["0.9", "0.1", "0", "1"]
    assert (option(command, "max_steps"), option(command, "eval_every"), option(command, "seed")) == ("40", "40", "2")
    assert option(command, "eval_dataset_options") == '{"count": 512}'
    # the stages of PeBR-R1 have one seed, one warm-up and one split
    command = study.command("one_stage", 2)
    assert option(command, "config") == str(tmp_path / "curriculum_seed0" / "recipes" / "reason.yaml")
    assert option(command, "model_name_or_path") == str(tmp_path / "curriculum_seed0" / "warm_up" / "final")
    budget = {name: option(study.command(name, 2), "max_steps") for name in ("perceive", "reason", "one_stage")}
    assert budget == {"perceive": "10", "reason": "20", "one_stage": "30"}
    assert option(study.command("reason", 2), "model_name_or_path") == str(tmp_path / "perceive_seed0" / "final")
    assert option(study.command("reason", 2), "seed") == "0"
    command = study.command("curriculum", 2)
    assert command[2:3] == ["open_r1_vision.curriculum"]
    assert option(command, "until") == "splits"


def test_the_curriculum_runs_once(claims, tmp_path):
    launch = FakeLaunch({})
    claims.Study(tmp_path, (0, 1), launch=launch).run_all(choose(claims, "PeBR-R1", "accuracy"))
    assert [option(command, "output_dir").rpartition("/")[2] for command in launch.commands] == [
        "curriculum_seed0",
        *(f"{name}_seed0" for name in ("perceive", "reason", "one_stage")),
    ]


def test_a_failed_command_stops_the_study(claims, tmp_path):
    study = claims.Study(
        tmp_path, (0,), quick=True, launch=lambda _: claims.launch([sys.executable, "-c", "raise SystemExit(3)"])
    )
    with pytest.raises(SystemExit, match="ended with 3"):
        study.run_all(choose(claims, "Visionary-R1", "accuracy"))
    assert list(study.seconds()) == ["plain_seed0"]


def test_the_document(claims):
    document = f"before\n{claims.BEGIN}\nold\n{claims.END}\nafter\n"
    assert claims.between_marks(document, "new") == f"before\n{claims.BEGIN}\n\nnew\n\n{claims.END}\nafter\n"
    with pytest.raises(ValueError, match="lacks the lines"):
        claims.between_marks("no marks", "new")
    assert claims.BEGIN in (claims.ROOT / "docs" / "results.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_quick_study(claims, tmp_path, capsys):
    """Every run for real, of a few steps; PeBR-R1 needs a policy that has learnt its sections."""
    claims.main(["--quick", "--output_dir", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("| ") and "%" in line]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [
        claim.method for claim in claims.CLAIMS if claim.method != "PeBR-R1"
    ]
