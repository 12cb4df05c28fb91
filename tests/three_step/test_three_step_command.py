# SPDX-License-Identifier: Apache-2.0
"""The command with the starter's policy: in a process of its own, killed in the middle, and started again."""

import json
import subprocess
import sys
import time

import pytest

from open_r1_vision.generation import GreedyGenerator
from open_r1_vision.prompts import load_prompt
from open_r1_vision.reasoners.policy import policy_reader
from open_r1_vision.starter import digits
from open_r1_vision.three_step.__main__ import main

POLICY = "open_r1_vision.starter.model.policy"
REASONER = '{"kind": "policy", "max_tokens": 48}'


@pytest.fixture
def words(tmp_path):
    """`words(output, count, ...)` gives a command line for the starter's policy."""
    prompt = tmp_path / "reader.txt"

    def make(output, count, *others, tentative=False, **options):
        # the words in which the policy learnt to read; a response is beyond it, and stands where it harms little
        prompt.write_text("{problem}\n<info> {caption}</info>" + ("{response}" if tentative else ""))
        options = {
            "model": POLICY,
            "dataset": "open_r1_vision.starter.digits.rows",
            "dataset_options": json.dumps({"count": count}),
            "reasoner": REASONER,
            "output": output,
            "answer_system_prompt": "starter",
            "answer_prompt": "",
            "answer_max_tokens": 60,
            "caption_system_prompt": "starter",
            "caption_prompt": "",
            "caption_section": "info",
            "caption_max_tokens": 60,
            "reasoner_system_prompt": "starter_reader",
            "reasoner_prompt": prompt,
            "answer_form": "tags",
            **options,
        }
        pairs = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        return [*pairs, *([] if tentative else ["--no_tentative"]), *others]

    return make


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_policy_answers_from_its_own_captions(tmp_path, words, capsys):
    path = tmp_path / "out.jsonl"
    assert main(words(path, 8)) == 0
    said = capsys.readouterr()
    assert "of 8 rows" in said.out and "failed 0" in said.out and "100%" in said.err
    rows = digits.rows("test", 8)
    results = lines(path)
    assert [result["id"] for result in results] == list(rows["id"])
    reader = policy_reader(GreedyGenerator(POLICY), load_prompt("starter_reader"), max_tokens=48)
    readings = reader.read([result["caption"] for result in results], rows["problem"])
    assert [result["replies"] for result in results] == [[reading.reply] for reading in readings]
    assert any(result["score"] for result in results) and all(result["caption"] for result in results)


def test_a_killed_command_goes_on_where_it_was(tmp_path, words, capsys):
    path, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    command = words(path, 12, tentative=True, batch_size=1)
    process = subprocess.Popen([sys.executable, "-m", "open_r1_vision.three_step", *command])
    try:
        end = time.monotonic() + 100
        while not path.exists() or path.read_bytes().count(b"\n") < 2:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    survived = path.read_bytes()
    assert 2 <= survived.count(b"\n") < 12
    assert main(command) == 0
    assert path.read_bytes().startswith(survived[: survived.rindex(b"\n") + 1])
    assert main(words(whole, 12, tentative=True, batch_size=1)) == 0
    assert path.read_bytes() == whole.read_bytes() and len({line["id"] for line in lines(path)}) == 12
    capsys.readouterr()
    assert main([*command, "--caption_max_tokens", "5"]) == 2
    assert "caption_max_tokens: 60 -> 5" in capsys.readouterr().err


def test_a_reasoner_may_come_from_a_file_and_captions_from_another_output(tmp_path, words, capsys):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert main(words(first, 3, batch_size=3)) == 0
    block = tmp_path / "reasoner.yaml"
    block.write_text("reasoner:\n  kind: policy\n  max_tokens: 1\n")
    assert main(words(second, 3, captions=first, reasoner=block)) == 0
    assert [line["caption"] for line in lines(second)] == [line["caption"] for line in lines(first)]
    assert [line["answer"] for line in lines(second)] == [None] * 3
    assert "unanswered 3" in capsys.readouterr().out
    assert main(words(second, 3, "--limit", "1", captions=first, reasoner=block)) == 0
    assert "rows 1\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reasoner": "nowhere.yaml"}, "no file that can be read (No such file or directory)"),
        ({"reasoner": '{"kind": "policy"'}, "reasoner: the text is neither JSON nor YAML (line 1,"),
        ({"reasoner": '{"kind": "local", "modle": "m"}'}, "Did you mean `model`?"),
        ({"dataset_options": "[1]"}, "is no mapping"),
        ({"limit": "0"}, "--limit is 0"),
        ({"batch_size": "0"}, "batch_size is 0"),
        ({"dataset": "open_r1_vision.starter.digits.nothing"}, "has no 'nothing'"),
    ],
)
def test_mistakes_are_named(tmp_path, words, capsys, changed, message):
    try:
        code = main(words(tmp_path / "out.jsonl", 2, **changed))
    except SystemExit as ended:
        code = ended.code
    assert code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
