# SPDX-License-Identifier: Apache-2.0
"""The audit: kappa by hand, labels in both formats, and the command."""

import csv
import json

import pytest
from contradictions import LABELLED, agreement
from fact_chats import REQUEST, entries

from open_r1_vision.reasoners import Failure, ReasonerConfig, Reply, build_reasoner
from open_r1_vision.reasoners.audit import main, measure_agreement, pair_up, read_labels, read_log
from open_r1_vision.reasoners.records import Records
from open_r1_vision.rewards.facts import rule_verdicts


def test_kappa_by_hand():
    # Cohen's classroom table: both yes 20, both no 15, verdict yes and label no 5, the other way round 10
    verdicts = ["yes"] * 25 + ["no"] * 25
    labels = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    agreement = measure_agreement(verdicts, labels)
    # p_o = 35 / 50 = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5, kappa = (0.7 - 0.5) / (1 - 0.5) = 0.4
    assert agreement.share.mean == 0.7
    assert agreement.kappa == pytest.approx(0.4, abs=1e-12)
    assert agreement.table["yes", "no"] == 5


def test_kappa_with_three_values():
    # p_o = 4 / 6, p_e = (2 * 2 + 2 * 3 + 2 * 1) / 36 = 12 / 36, kappa = (2/3 - 1/3) / (2/3) = 1/2
    assert measure_agreement(list("aabbcc"), list("abbbca")).kappa == pytest.approx(1 / 2, abs=1e-12)


def test_the_ends_of_kappa():
    assert measure_agreement(["1", "0"], ["1", "0"]).kappa == 1
    assert measure_agreement(["1", "0"], ["0", "1"]).kappa == -1
    assert measure_agreement(["1", "1"], ["1", "1"]).kappa is None
    with pytest.raises(ValueError, match="2 verdicts can't be compared with 1 labels"):
        measure_agreement(["1", "0"], ["1"])


@pytest.fixture
def log(tmp_path):
    """A log as a reasoner writes it: verdicts of three parts, one failure."""
    path = tmp_path / "judge.jsonl"
    records = Records(ReasonerConfig(kind="local", model="judge", log=str(path)))
    chats = [[{"role": "system", "content": "Judge."}, {"role": "user", "content": f"fact {i}"}] for i in range(4)]
    verdicts = [[1, 0, 1], [True, True, 0.0], [0, 0, 0]]
    questions = records.questions(chats, [{"row": f"row-{i}"} for i in range(4)])
    for question, verdict in zip(questions, verdicts, strict=False):
        records.settle(question, Reply(json.dumps(verdict), verdict=verdict))
    records.settle(questions[3], Failure("unreadable", "no JSON", "I would say yes"))
    records.close()
    return path


def write_labels(path, records, labels):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "label"], *([r["id"], label] for r, label in zip(records, labels, strict=False))])


def test_labels_meet_verdicts_part_by_part(log, tmp_path, capsys):
    records = read_log(log)
    assert [record["tag"]["row"] for record in records] == [f"row-{i}" for i in range(4)]
    write_labels(tmp_path / "labels.csv", records, ["[1, 0, 1]", "[1, 0, 0]", "", "[1, 1, 1]"])
    labels = read_labels(tmp_path / "labels.csv")
    assert len(labels) == 3
    assert pair_up(records, labels) == (["1", "0", "1", "1", "1", "0"], ["1", "0", "1", "1", "0", "0"])
    main([str(log), "--labels", str(tmp_path / "labels.csv"), "--sample", "2"])
    shown = capsys.readouterr().out
    # p_o = 5/6, p_e = (4 * 3 + 2 * 3) / 36 = 1/2, kappa = (5/6 - 1/2) / (1/2) = 2/3
    assert "agreement 83.3 % [43.6, 97.0] of 6 verdicts" in shown
    assert "Cohen's kappa 0.667" in shown
    assert "1 -> 0: 1" in shown
    assert "4 requests to judge; failed 1 (25.0 %): unreadable 1" in shown
    assert "fact 1" in shown  # differs from its label, so it comes first


def test_a_sample_side_by_side(log, capsys):
    main([str(log), "--width", "60"])
    lines = capsys.readouterr().out.splitlines()
    assert "fact 0" + " " * 22 + " | [1, 0, 1]" in lines
    assert "fact 3" + " " * 22 + " | [unreadable: no JSON]" in lines
    assert " " * 28 + " | I would say yes" in lines
    assert not any("Judge." in line for line in lines)


def test_a_file_to_fill_in_does_not_say_what_the_reasoner_thought(log, tmp_path, capsys):
    path = tmp_path / "labels.csv"
    main([str(log), "--write-labels", str(path), "--sample", "3"])
    rows = list(csv.DictReader(path.open()))
    assert [set(row) for row in rows] == [{"id", "request", "label"}] * 3
    assert all(row["label"] == "" and row["request"].startswith("fact") for row in rows)
    with pytest.raises(SystemExit):
        main([str(log), "--write-labels", str(path)])
    assert "--overwrite" in capsys.readouterr().err
    main([str(log), "--write-labels", str(path), "--overwrite"])


def test_jsonl_labels_and_words(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"id": "a", "label": "Yes "}\n{"id": "b", "label": {"verdict": 1}}\n{"id": "c", "label": null}\n')
    records = [{"id": "a", "verdict": "yes"}, {"id": "b", "verdict": True}, {"id": "c", "verdict": 1}]
    assert pair_up(records, read_labels(path)) == (["yes", "1"], ["yes", "1"])


@pytest.mark.parametrize(
    ("content", "labels", "message"),
    [
        (None, None, "can't be read"),
        ("{}\n", None, "Line 1 of .* is no record"),
        ("nonsense\n", None, "Line 1 of .* is no record"),
        ('{"id": "a", "verdict": [1]}\n', "id,verdict\na,1\n", "give a CSV or JSONL file with `id` and `label`"),
        ('{"id": "a", "verdict": [1, 0]}\n', "id,label\na,1\n", "has 2 parts and its label 1"),
        ('{"id": "a", "verdict": [1, 0]}\n', "id,label\nb,1\n", "at least one"),
    ],
)
def test_what_cannot_be_audited(tmp_path, capsys, content, labels, message):
    import re

    log, table = tmp_path / "log.jsonl", tmp_path / "labels.csv"
    if content is not None:
        log.write_text(content)
    words = [str(log), "--sample", "0"]
    if labels is not None:
        table.write_text(labels)
        words += ["--labels", str(table)]
    with pytest.raises(SystemExit):
        main(words)
    assert re.search(message, capsys.readouterr().err)


# ---- contradictions


def test_the_rule_does_not_see_a_contradiction():
    """Nor does it claim to: it finds words, and both statements are there."""
    assert rule_verdicts("AB = 3. No, AB = 5", ["AB = 3"], "words") == [1]
    verdicts = [rule_verdicts(response, [fact], "words") for fact, response, _ in LABELLED]
    assert verdicts == [[1]] * len(LABELLED)
    measured = measure_agreement([str(verdict) for (verdict,) in verdicts], [str(label) for *_, label in LABELLED])
    assert (measured.share.mean, measured.kappa) == (0.5, 0)
    assert measured.table == {("1", "1"): len(LABELLED) // 2, ("1", "0"): len(LABELLED) // 2}


@pytest.mark.parametrize("sees", [True, False])
def test_how_far_a_judge_sees_contradictions(tmp_path, sees):
    """A judge by the labels, and one that takes the first half of a response for the whole, as the rule does."""
    labels = {response: label for _, response, label in LABELLED}

    def generate(chats, max_tokens):
        requests = [REQUEST.fullmatch(chat[1]["content"][0]["text"]) for chat in chats]
        return [entries(labels[request["response"]] if sees else 1) for request in requests]

    config = ReasonerConfig(kind="policy", log=str(tmp_path / "judge.jsonl"))
    measured, num_failed = agreement(build_reasoner(config, generate=generate, ddp_timeout=1000), "Judge.")
    assert num_failed == 0 and measured.share.count == len(LABELLED) == 12
    assert (measured.share.mean, measured.kappa) == ((1, 1) if sees else (0.5, 0))
