# SPDX-License-Identifier: Apache-2.0
"""Run folders: what is read of them, and which are refused."""

import json

import pytest
from run_folders import write_run

from open_r1_vision.compare.reading import find_benchmarks, name_runs, read_run


def test_what_is_read(tmp_path):
    scores = [[1.0, 0.0], ["failed", 1.0], ["truncated", "no_answer"]]
    write_run(tmp_path / "grpo", "mathvista", scores, clusters=["a", "a", None])
    run = read_run(tmp_path / "grpo" / "mathvista", "grpo")
    assert (run.name, run.benchmark, run.num_samples, run.num_expected) == ("grpo", "mathvista", 6, 6)
    # all but ok score 0, whatever stands in their record
    assert [answers.scores for answers in run.items.values()] == [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]
    assert [answers.cluster for answers in run.items.values()] == ["a", "a", None]
    assert dict(run.statuses) == {"ok": 3, "failed": 1, "truncated": 1, "no_answer": 1}
    assert run.is_finished


def test_samples_in_any_order(tmp_path):
    write_run(tmp_path / "grpo", "mathvista", [[1.0, 0.0], [0.0, 1.0]])
    path = tmp_path / "grpo" / "mathvista" / "samples.jsonl"
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")
    assert read_run(path.parent).items["0"].scores == (1.0, 0.0)


def test_items_without_gold_are_left_out(tmp_path):
    write_run(tmp_path / "grpo", "mathvista", [1.0, None, 0.0], golds=["1", None, "3"])
    run = read_run(tmp_path / "grpo" / "mathvista")
    assert (list(run.items), run.no_gold) == (["0", "2"], ("1",))


def test_an_unfinished_run_knows(tmp_path):
    write_run(tmp_path / "a", "mathvista", [[1.0, 0.0], [1.0]], settings={"num_items": 3, "num_samples": 2})
    run = read_run(tmp_path / "a" / "mathvista")
    assert (run.is_finished, run.num_samples, run.num_expected, run.lacking) == (False, 3, 6, ["1"])
    # without run.json an item with fewer samples than another tells
    write_run(tmp_path / "b", "mathvista", [[1.0, 0.0], [1.0]], settings=False)
    assert read_run(tmp_path / "b" / "mathvista").lacking == ["1"]


def test_a_torn_last_line_is_no_sample(tmp_path):
    write_run(tmp_path / "grpo", "mathvista", [1.0, 0.0])
    path = tmp_path / "grpo" / "mathvista" / "samples.jsonl"
    path.write_text(path.read_text()[:-30])
    run = read_run(path.parent)
    assert (run.num_samples, run.is_finished) == (1, False)


@pytest.mark.parametrize(
    ("scores", "changes", "message"),
    [
        ([], {}, "samples.jsonl holds no samples: the run has not got that far"),
        ([1.0, 0.0], {"index": "7"}, r"holds samples more than once, 1 in all: 7 \(sample 0\). Which one counts"),
        ([1.0, 0.0], {"dataset": lambda place, _: "ab"[place]}, r"mixes samples of a \(1\), b \(1\)"),
        ([None], {"gold": None}, "has a gold answer for 0 of 1 items, so nothing is right or wrong"),
        ([None, 1.0], {}, "has no score for 1 of the samples with an answer and a gold answer: items 0. Their"),
        ([1.5], {}, r"Line 1 .* has the score 1.5, where a score in \[0, 1\]"),
        (["lost"], {}, "Line 1 .* the status 'lost', where one of ok, truncated, failed, no_answer is needed"),
        ([1.0], {"index": 7}, "Line 1 .* the index 7 and the sample 0, where a text and a number is needed"),
        ([1.0], {"cluster": ["q"]}, r"Line 1 .* has the cluster \['q'\], where a text or null"),
        ([[1.0, 0.0]], {"cluster": lambda _, sample: "ab"[sample]}, "samples of item 0 .* different clusters"),
    ],
)
def test_refused_samples(tmp_path, scores, changes, message):
    write_run(tmp_path / "grpo", "mathvista", scores, **changes)
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / "grpo" / "mathvista")


def test_refused_lines(tmp_path):
    write_run(tmp_path / "grpo", "mathvista", [1.0, 0.0])
    path = tmp_path / "grpo" / "mathvista" / "samples.jsonl"
    lines = path.read_text().splitlines()
    path.write_text(f"{lines[0][:-20]}\n{lines[1]}\n")
    with pytest.raises(ValueError, match="Line 1 of .* is no JSON"):
        read_run(path.parent)
    path.write_text(json.dumps({"index": "1", "score": 1.0}) + "\n")
    with pytest.raises(
        ValueError, match="Line 1 of .* lacks dataset, sample, prompt_sha, .*what open_r1_vision.evaluate"
    ):
        read_run(path.parent)
    path.write_text('["no record"]\n')
    with pytest.raises(ValueError, match="Line 1 of .* is no record, but a list"):
        read_run(path.parent)
    with pytest.raises(ValueError, match="nothing/samples.jsonl can't be read"):
        read_run(tmp_path / "nothing")


@pytest.mark.parametrize(("text", "message"), [("{", "run.json is no JSON"), ("[]", "holds no settings, but a list")])
def test_refused_settings(tmp_path, text, message):
    write_run(tmp_path / "grpo", "mathvista", [1.0])
    (tmp_path / "grpo" / "mathvista" / "run.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / "grpo" / "mathvista")


def test_folders(tmp_path):
    for benchmark in ("mmstar", "mathvista"):
        write_run(tmp_path / "grpo", benchmark, [1.0])
    (tmp_path / "empty").mkdir()
    assert [path.name for path in find_benchmarks(tmp_path / "grpo")] == ["mathvista", "mmstar"]
    assert find_benchmarks(tmp_path / "grpo" / "mmstar") == [tmp_path / "grpo" / "mmstar"]
    with pytest.raises(ValueError, match="empty holds no samples.jsonl, nor does a folder in it"):
        find_benchmarks(tmp_path / "empty")
    with pytest.raises(ValueError, match="There is no folder .*nothing: give the output folder"):
        find_benchmarks(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/runs/base", "/runs/grpo"], ["base", "grpo"]),
        (["/runs/base/greedy", "/runs/grpo/greedy"], ["base", "grpo"]),
        (["/runs/base/step1", "/runs/grpo/step1", "/runs/grpo/step2"], ["base/step1", "grpo/step1", "grpo/step2"]),
        (["/runs", "/runs/grpo"], ["runs", "grpo"]),
    ],
)
def test_names(paths, names, tmp_path):
    assert name_runs([tmp_path / path[1:] for path in paths]) == names
