# SPDX-License-Identifier: Apache-2.0
"""Samples files of lmms-eval, in its layout of 0.7."""

import json

import pytest

from open_r1_vision.evaluate import benchmarks
from open_r1_vision.evaluate.exchange.lmms_eval import import_samples

HARD = "汉字\ttab\nline\r\n" + "x" * 40_000


@pytest.fixture
def items(write):
    rows = [{"index": 10 + n, "question": f"Q {n}?", "A": "cat", "B": "dog", "answer": "ABA"[n]} for n in range(3)]
    return benchmarks.find("mmstar").read(write("MMStar.tsv", rows))


@pytest.fixture
def samples(tmp_path):
    """`samples(changes)` gives the path of a file with a line for each of three documents, changed as asked."""

    def make(*changes):
        lines = []
        for number in range(3):
            line = {"doc_id": number, "target": "ABA"[number], "resps": [[f"<answer>A</answer>{HARD}"]]}
            line |= {"filtered_resps": ["A"], "token_counts": [[{"output_tokens": 5 + number}]], "doc_hash": "0"}
            line |= {"exact_match": float(number == 0), "input": f"<image>Q  {number}? A or B"}
            lines.append(line | (changes[number] if number < len(changes) else {}))
        path = tmp_path / "20260101_000000_samples_mmstar.jsonl"
        path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
        return path

    return make


def read(items, path, **options):
    return import_samples(benchmarks.find("mmstar"), items, path, **options)


def test_samples_are_scored_by_rule(items, samples):
    records = read(items, samples({}, {}, {"resps": [["[LMMS_EVAL_REQUEST_FAILED after 3 tries] B"]]}))
    assert [(r.index, r.answer, r.score, r.status, r.tokens) for r in records] == [
        ("10", "A", 1.0, "ok", 5),
        ("11", "A", 0.0, "ok", 6),
        ("12", None, 0.0, "failed", 7),
    ]
    assert records[0].raw == f"<answer>A</answer>{HARD}"
    assert [record.judged_by for record in records] == ["rule", "rule", "none"]


def test_a_metric_of_the_file_can_be_the_score(items, samples):
    records = read(items, samples(), metric="exact_match", judged_by="rule")
    assert [record.score for record in records] == [1, 0, 0]
    with pytest.raises(ValueError, match="sample 1: 'gpt_score' is None, but a score must be a number from 0 to 1"):
        read(items, samples(), metric="gpt_score")
    with pytest.raises(ValueError, match="sample 2: 'exact_match' is {'a': 1}"):
        read(items, samples({}, {"exact_match": {"a": 1}}), metric="exact_match")


def test_several_replies_are_several_samples(items, samples):
    records = read(items, samples(*[{"resps": [["A", "B"]], "token_counts": None}] * 3))
    assert [(record.index, record.sample, record.answer, record.tokens) for record in records[:3]] == [
        ("10", 0, "A", None),
        ("10", 1, "B", None),
        ("11", 0, "A", None),
    ]
    assert benchmarks.find("mmstar").metrics(items, records)[0].value == 0.5
    flat = read(items, samples(*[{"resps": ["A"], "token_counts": [9]}] * 3))
    assert [record.tokens for record in flat] == [9, 9, 9]


def test_samples_of_other_items_are_refused(items, samples, tmp_path):
    with pytest.raises(ValueError, match="sample 2: doc_id 1 is not item 1 of 'mmstar', .* the target is 'A'"):
        read(items, samples({}, {"target": "A"}))
    with pytest.raises(ValueError, match="sample 3: doc_id 7 is not item 7 of 'mmstar', which has 3 items"):
        read(items, samples({}, {}, {"doc_id": 7}))
    with pytest.raises(ValueError, match="sample 1: doc_id 0 is not item 0"):
        read(items, samples({"target": "", "input": "Another question"}))
    with pytest.raises(ValueError, match="sample 2: doc_id 0 stands here twice"):
        read(items, samples({}, {"doc_id": 0, "target": "A"}))
    with pytest.raises(ValueError, match="sample 1: there is no whole number 'doc_id' or no 'resps'"):
        read(items, samples({"doc_id": "x"}))
    with pytest.raises(ValueError, match=r"sample 1: 'resps' is \[\], which holds no text"):
        read(items, samples({"resps": []}))
    with pytest.raises(FileNotFoundError, match="There is no file .*none.jsonl"):
        read(items, tmp_path / "none.jsonl")


def test_targets_may_name_the_gold_in_other_ways_or_be_missing(items, samples):
    changes = [{"target": "cat"}, {"target": ["B", "dog"]}, {"target": ""}]
    assert [record.score for record in read(items, samples(*changes))] == [1, 0, 1]


def test_a_part_of_the_documents(items, samples):
    path = samples()
    path.write_text(path.read_text(encoding="utf-8").split("\n")[0], encoding="utf-8")
    with pytest.raises(ValueError, match="no prediction for 2 of the 3 items of 'mmstar', the first is '11'"):
        read(items, path)
    assert [record.index for record in read(items, path, partial=True)] == ["10"]
