# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from running import check_times, run_bench

from open_r1_vision.bench.judge import _read_tags, _request
from open_r1_vision.bench.judge_server import judge, serving
from open_r1_vision.reasoners.facts import judge_messages

FACTS = ["AB is 3 long", "CD is red", "EF is 5 long"]
RESPONSE = "First CD is red.\n1. So AB is 4 long, and EF is 5 long."


def test_requests_of_each_way(tmp_path):
    pytest.importorskip("openai")
    sizes = ["--prompts", 3, "--generations", 4, "--same", 1, "--words", 5]
    server = ["--milliseconds", 20, "--limit", 2, "--concurrency", 3]
    rows = run_bench(tmp_path, "judge", *sizes, *server, "--repeats", 1)
    check_times(rows, "one by one")
    # 3 groups of 4 completions; of ours one of each group is asked about with another
    assert {name: row["requests"] for name, row in rows.items()} == {
        "one by one": 12,
        "authors": 12,
        "ours": 9,
        "ours, cached": 0,
    }
    assert rows["one by one"]["at once"] == 1
    assert 1 < rows["ours"]["at once"] <= 3
    assert 3 < rows["authors"]["at once"] <= 12
    assert [row["equal"] for row in rows.values()] == [1, 1, 1, 1]
    # 12 completions with 4 facts each
    assert rows["ours"]["verdicts/s"] * rows["ours"]["seconds"] == pytest.approx(48)


def test_the_server_finds_what_a_response_states():
    ours = judge_messages(RESPONSE, FACTS, "Judge.")[-1]["content"][0]["text"]
    assert [entry["stated"] for entry in json.loads(judge(ours))["verdicts"][:3]] == [0, 1, 1]
    authors = _request(RESPONSE, FACTS)["messages"][-1]["content"]
    assert judge(authors) == "<info1>0</info1>\n<info2>1</info2>\n<info3>1</info3>"


def test_what_the_authors_read():
    assert _read_tags("<info1>0</info1><info1>1</info1> <info2>0</info2><info4>1</info4>") == [1, 0]
    assert _read_tags(None) == []


def test_the_server_keeps_its_limit_and_ends():
    with serving(milliseconds=1, limit=1) as server:
        assert server.pop_counts() == {"requests": 0, "most_at_once": 0}
    with pytest.raises(OSError):
        server.pop_counts()
