# SPDX-License-Identifier: Apache-2.0
"""The list of hard rows: it belongs to the shipped weights, and its rows are really hard."""

import hashlib
from pathlib import Path

import pytest

from open_r1_vision.data.rows import add_prompts
from open_r1_vision.generation import GreedyGenerator
from open_r1_vision.held_out import evaluate
from open_r1_vision.prompts import load_prompt
from open_r1_vision.starter import digits, hard, model


def test_the_list_belongs_to_the_shipped_weights():
    weights = (Path(model.policy()) / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == hard.read_list()["weights"], (
        "the list is that of another checkpoint: run local_scripts/find_hard_rows.py"
    )


def test_hard_rows_are_rows_of_the_task():
    found = hard.read_list()
    assert len(set(found["indices"])) == len(found["indices"]) > 500
    rows = hard.rows(count=5)
    drawn = digits.rows("train", found["tried"])
    assert rows["id"][:] == [drawn[index]["id"] for index in found["indices"][:5]]


def test_the_policy_hardly_answers_any_of_them():
    """Greedy, as the list is made of samples: some 35 % of all training rows are answered right."""
    rows = add_prompts(hard.rows(count=64), load_prompt("starter"))
    samples = evaluate(GreedyGenerator(model.policy()), rows, max_new_tokens=60)
    assert sum(sample.accuracy for sample in samples) <= 6


def test_bad_arguments():
    with pytest.raises(ValueError, match="of the split train, not of 'test'"):
        hard.rows("test")
    with pytest.raises(ValueError, match="100000 hard rows were asked for, but there are"):
        hard.rows(count=100_000)
