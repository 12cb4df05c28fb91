# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch

from open_r1_vision.bench.measuring import Memory, Turn, compare, equal_share, take_turns


def test_each_is_as_often_first_as_last():
    order = []
    turns = take_turns(["a", "b"], lambda name, number: order.append((name, number)) or 5, repeats=2)
    assert order == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]
    assert {name: [turn.num_tokens for turn in of_name] for name, of_name in turns.items()} == {
        "a": [5, 5],
        "b": [5, 5],
    }


def test_the_columns():
    turns = {
        "a": [Turn(4.0, 1.0, 2**20, 8), Turn(2.0, 1.0, 3 * 2**20, 8), Turn(9.0, 1.0, 2**20, 8)],
        "b": [Turn(1.0, 1.0, 6 * 2**20, 8)],
        "c": [Turn(8.0, 1.0, math.nan, 0)],
    }
    columns = compare(turns, "a")
    assert columns["a"] == {
        "seconds": 4,
        "least": 2,
        "most": 9,
        "tokens/s": 2,
        "times as fast": 1,
        "peak MiB": 3,
        "share of peak": 1,
    }
    assert (columns["b"]["times as fast"], columns["b"]["tokens/s"], columns["b"]["share of peak"]) == (4, 8, 2)
    assert (columns["c"]["tokens/s"], columns["c"]["peak MiB"], columns["c"]["share of peak"]) == (None, None, None)


def test_equal_share():
    assert equal_share([1, 2, 3, 4], [1, 0, 3, 0]) == 0.5


def test_memory_at_the_peak():
    memory = Memory("cpu")
    torch.ones(2**24)  # 64 MiB, given back at once
    peak = memory.peak()
    if math.isnan(peak):
        pytest.skip("this system doesn't tell the peak of a process")
    assert 60 * 2**20 < peak < 100 * 2**20
