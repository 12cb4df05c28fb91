# SPDX-License-Identifier: Apache-2.0
"""Calibrated decoding in evaluation: the scripts in eval/, on the starter."""

import importlib.util
import json
from pathlib import Path

import pytest

EVAL = Path(__file__).parents[2] / "eval"


def run(script, *arguments):
    spec = importlib.util.spec_from_file_location(f"eval_{script}", EVAL / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(argument) for argument in arguments])


def read_samples(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_starters_evaluation_takes_a_calibration(tmp_path, capsys):
    common = ("--count", 6, "--split", "warm_up")
    run("starter", *common, "--output", tmp_path / "plain.jsonl")
    assert capsys.readouterr().out.splitlines()[0].endswith("6 warm_up rows of digits, greedy")
    # far enough that the whole reply must suffer
    run("starter", *common, "--calibration", 30, "--output", tmp_path / "whole.jsonl")
    assert "greedy, Calibration(scale=30.0, plausibility=0.0, span=None)" in capsys.readouterr().out
    answer = ("--calibration", 30, "--calibration_span", "answer", "--plausibility", 0.05)
    run("starter", *common, *answer, "--output", tmp_path / "answer.jsonl")
    plain, whole, span = (read_samples(tmp_path / f"{name}.jsonl") for name in ("plain", "whole", "answer"))
    assert [sample["id"] for sample in plain] == [sample["id"] for sample in whole]
    assert sum(a["completion"] != b["completion"] for a, b in zip(plain, whole, strict=True)) >= 4
    for a, b in zip(plain, span, strict=True):
        assert a["completion"].split("<answer>")[0] == b["completion"].split("<answer>")[0]


def test_the_calibration_script_writes_a_table_and_a_plot(tmp_path, capsys):
    common = ("--count", 4, "--scales", 0, 0.8, "--repeats", 1, "--output", tmp_path)
    run("calibration", *common)
    table = capsys.readouterr().out
    assert (tmp_path / "calibration.md").read_text(encoding="utf-8") == table
    assert [line.split(" | ")[:2] for line in table.splitlines()[2:]] == [
        ["| 0", "nothing"],
        ["| 0.8", "whole reply"],
        ["| 0.8", "info"],
    ]
    results = json.loads((tmp_path / "calibration.json").read_text(encoding="utf-8"))
    assert [result["cost"] for result in results["results"]][0] == 1
    assert results["rows"] == 4
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="--overwrite"):
        run("calibration", *common)
