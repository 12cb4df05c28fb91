# SPDX-License-Identifier: Apache-2.0
"""The scripts in eval/ that make tables of finished runs."""

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest

from open_r1_vision.held_out import Sample, write_samples

EVAL = Path(__file__).parent.parent / "eval"


def load(name):
    spec = importlib.util.spec_from_file_location(f"eval_{name}", EVAL / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_run(folder, scores, metric):
    """A finished run whose last evaluation has these accuracies."""
    for step, values in ((0, [0.0] * len(scores)), (5, scores)):
        samples = [Sample(f"row-{i}", "text", value, None, None, None, value) for i, value in enumerate(values)]
        write_samples(folder, step, samples)
    (folder / "results.json").write_text(json.dumps({"means": {"hints/utilisation": metric}}))
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    """Two seeds of each. Seed 0: 2 against 8 of 10 right, 7 gained and 1 lost. Seed 1: 5 against 5, the same rows."""
    scores = {
        "a0": [1.0, 1.0] + [0.0] * 8,
        "a1": [1.0] * 5 + [0.0] * 5,
        "b0": [1.0, 0.0] + [1.0] * 7 + [0.0],
        "b1": [1.0] * 5 + [0.0] * 5,
    }
    return {name: write_run(tmp_path / name, values, len(name) / 4) for name, values in scores.items()}


def test_pairs(runs, capsys):
    first, second = [runs["a0"], runs["a1"]], [runs["b0"], runs["b1"]]
    words = ["--measure", "accuracy", "--metric", "hints/utilisation"]
    load("pairs").main(["--first", *first, "--second", *second, *words])
    lines = capsys.readouterr().out.splitlines()
    # 2 (C(8,0) + C(8,1)) / 2^8 = 0.0703; over both seeds the same 7 and 1 of twenty rows
    assert lines[2:] == [
        "| a0, b0 | accuracy | 20.0 % [5.7, 51.0] | 80.0 % [49.0, 94.3] | +60.0 | 0.07 |",
        "| a1, b1 | accuracy | 50.0 % [23.7, 76.3] | 50.0 % [23.7, 76.3] | +0.0 | 1 |",
        "| all | accuracy | 35.0 % [18.1, 56.7] | 65.0 % [43.3, 81.9] | +30.0 | 0.07 |",
        "| a0, b0 | hints/utilisation | 0.500 | 0.500 | | |",
        "| a1, b1 | hints/utilisation | 0.500 | 0.500 | | |",
    ]


def test_pairs_at_an_earlier_evaluation(runs, capsys):
    pairs = load("pairs")
    pairs.main(["--first", runs["a0"], "--second", runs["b0"], "--measure", "accuracy", "--steps", "0", "5"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["accuracy after 0 steps", "accuracy after 5 steps"]
    assert "| 0.0 % [0.0, 27.8] | 0.0 % [0.0, 27.8] | +0.0 | 1 |" in lines[2]
    with pytest.raises(SystemExit, match="was not evaluated after 3 steps, only after 0, 5"):
        pairs.main(["--first", runs["a0"], "--second", runs["b0"], "--steps", "3"])


def test_groups_with_signal(runs, capsys, tmp_path):
    for name, rewards in (("a0", [0.0, 0.0, 1.0, 0.0]), ("b0", [0.0, 1.0, 1.0, 0.0])):
        folder = tmp_path / name / "completions"
        folder.mkdir()
        pd.DataFrame({"accuracy_reward": rewards}).to_parquet(folder / "completions_00001.parquet")
        results = {"means": {}, "settings": {"num_generations": "2"}}
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    main = load("pairs").main
    main(["--first", runs["a0"], "--second", runs["b0"], "--measure", "--signal", "accuracy_reward"])
    (line,) = capsys.readouterr().out.splitlines()[2:]
    assert line == "| a0, b0 | groups with signal | 50.0 % [9.5, 90.5] | 100.0 % [34.2, 100.0] | x 2.00 | |"
    for name in ("a0", "b0"):
        later = pd.DataFrame({"accuracy_reward": [0.0, 1.0] if name == "a0" else [0.0, 0.0]})
        later.to_parquet(tmp_path / name / "completions" / "completions_00002.parquet")
    for word, shares in (("--signal_steps", ("50.0 %", "100.0 %")), ("--signal_last", ("100.0 %", "0.0 %"))):
        main(["--first", runs["a0"], "--second", runs["b0"], "--measure", "--signal", "accuracy_reward", word, "1"])
        cells = capsys.readouterr().out.splitlines()[2].split(" | ")
        assert cells[2].startswith(shares[0]) and cells[3].startswith(shares[1])
    with pytest.raises(SystemExit, match="has no reward 'other'"):
        main(["--first", runs["a0"], "--second", runs["b0"], "--signal", "other"])


@pytest.mark.parametrize("words", [["starter", "--calibration", "-1"], ["calibration", "--scales", "-1"]])
def test_a_bad_scale_is_one_line(words, tmp_path):
    script, *options = words
    with pytest.raises(SystemExit, match="error: scale is -1.0, but the weight of what the image adds must be"):
        load(script).main([*options, "--output", str(tmp_path / "out"), "--count", "2"])


def test_pairs_that_do_not_fit(runs, tmp_path, capsys):
    main = load("pairs").main
    with pytest.raises(SystemExit):
        main(["--first", runs["a0"], "--second", runs["b0"], runs["b1"]])
    assert "1 runs can't be paired with 2" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="holds no evaluations"):
        main(["--first", runs["a0"], "--second", str(tmp_path / "nothing")])
    other = write_run(tmp_path / "other", [1.0] * 3, 0.5)
    with pytest.raises(SystemExit, match="were evaluated on different rows"):
        main(["--first", runs["a0"], "--second", other])
    with pytest.raises(SystemExit, match="has not logged 'loss', only hints/utilisation"):
        main(["--first", runs["a0"], "--second", runs["b0"], "--metric", "loss"])
