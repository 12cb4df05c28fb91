# SPDX-License-Identifier: Apache-2.0
"""What the page computes, run by Node.js: filters, the address, sections of a completion, axes."""

import json
import shutil
import subprocess
from importlib import resources

import pytest

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed: the page's functions are not run")

#: Three groups: all wrong, mixed, all right; the third has a completion that is not scored by `style`.
DATA = {
    "right": "accuracy_reward",
    "rewards": [{"name": "accuracy_reward", "weight": 1}, {"name": "style", "weight": 0.5}],
    "texts": ["be short", "How many circles?", ["begins so", 500, "and ends so"]],
    "groups": [
        {
            "step": step,
            "group": number,
            "id": row_id,
            "source": source,
            "gold": "4",
            "prompt": [["system", 0], ["user", place]],
            "completions": [
                {"text": text, "rewards": rewards, "advantage": advantage} for text, rewards, advantage in completions
            ],
        }
        for step, number, row_id, source, place, completions in (
            (1, 0, "a", "x", 1, (("red", [0, 0.5], -1), ("green", [0, 1], 1))),
            (2, 0, "b", "y", 1, (("RED", [1, 0], 0.7), ("blue", [0, 0], -0.7))),
            (2, 1, "c", "x", 2, (("one", [1, None], 0), ("two", [1, 0.25], 0.001))),
        )
    ],
}


def run(expression, **values):
    """The value of a JavaScript expression; the page's functions are there, and DATA as `data`."""
    logic = resources.files("open_r1_vision.gallery") / "logic.js"
    names = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in {"data": DATA, **values}.items())
    code = (
        f"const page = require({json.dumps(str(logic))});\n{names}"
        f"const entries = page.indexGroups(data);\nprocess.stdout.write(JSON.stringify({expression}));"
    )
    result = subprocess.run([NODE, "-"], input=code, capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, "abc"),
        ({"from": "2"}, "bc"),
        ({"to": "1"}, "a"),
        ({"from": "1", "to": "2"}, "abc"),
        ({"from": "not a number"}, "abc"),
        ({"source": "x"}, "ac"),
        ({"source": "z"}, ""),
        ({"kind": "wrong"}, "a"),
        ({"kind": "mixed"}, "b"),
        ({"kind": "right"}, "c"),
        ({"kind": "flat"}, ""),
        # means of accuracy: 0, 0.5, 1
        ({"reward": "accuracy_reward", "min": "0.5"}, "bc"),
        ({"reward": "accuracy_reward", "min": "0.5", "max": "0.5"}, "b"),
        # means of style: 0.75, 0, 0.25 of the one that was scored
        ({"reward": "style", "max": "0.25"}, "bc"),
        ({"reward": "style", "min": "0.25", "max": "0.75"}, "ac"),
        # weighted sums: (0.25 + 0.5) / 2, (1 + 0) / 2, (1 + 1.125) / 2
        ({"min": "0.375", "max": "0.5"}, "ab"),
        ({"min": "1.06"}, "c"),
        ({"q": "red"}, "ab"),
        ({"q": "HOW MANY"}, "ab"),
        ({"q": "ends so"}, "c"),
        ({"q": "c"}, "abc"),  # in `circles` too
        ({"q": "two", "kind": "wrong"}, ""),
        ({"order": "latest"}, "cba"),
        ({"order": "low", "reward": "style"}, "bca"),
        ({"order": "spread", "reward": "style"}, "abc"),
        ({"order": "spread", "reward": "accuracy_reward"}, "bac"),
    ],
)
def test_filters(filters, ids):
    assert run("page.select(entries, filters, data).map((one) => one.group.id).join('')", filters=filters) == ids


def test_kinds_of_groups():
    groups = [[0, 0.99], [1, 0], [1, 1], [None, None], [None, 0], [None, 1]]
    assert run("groups.map(page.kindOf)", groups=groups) == ["wrong", "mixed", "right", "unscored", "wrong", "mixed"]


def test_groups_without_signal():
    rewards = [{"name": "a", "weight": 1}, {"name": "b", "weight": 2}]
    groups = [
        [([1, 0.5], 0.0012), ([2, 0], -0.0012)],  # both sums are 2
        [([1, 0], 0.005), ([1, 0.0025], -0.005)],  # advantages that are not divided by their spread
        [([1, 0.5], 0.7), ([2, 0], -0.7)],  # normalised reward by reward
        [([None, None], 0), ([None, None], 0)],
        [([None, None], 0), ([1, 0], 0)],
    ]
    groups = [{"completions": [{"rewards": of, "advantage": by} for of, by in group]} for group in groups]
    flat = [True, False, False, True, True]
    assert run("groups.map((one) => page.isFlat(one, rewards))", groups=groups, rewards=rewards) == flat
    unknown = [{"name": "a", "weight": None}, {"name": "b", "weight": 2}]
    without = [True, True, False, True, True]
    assert run("groups.map((one) => page.isFlat(one, rewards))", groups=groups, rewards=unknown) == without


def test_no_weighted_sum_without_weights():
    rewards = [{"name": "a", "weight": None}]
    assert run("page.total({rewards: [1]}, rewards)", rewards=rewards) is None
    assert run("[[2, null], [null, null]].map((rewards) => page.total({rewards}, data.rewards))") == [2, None]


def test_the_address_keeps_the_state():
    state = {"tab": "curves", "filter": {"from": "3", "kind": "wrong", "q": "a&b=c #d ü"}, "at": "3.10"}
    text = run("page.toHash(state)", state=state)
    assert text == "tab=curves&from=3&kind=wrong&q=a%26b%3Dc+%23d+%C3%BC&at=3.10"
    assert run("page.fromHash('#' + text)", text=text) == state
    assert run("page.toHash({tab: 'rollouts', filter: {}, at: ''})") == ""
    assert run("page.fromHash('#tab=nothing&on=load&%%%')") == {"tab": "rollouts", "filter": {}, "at": ""}


def test_sections_of_a_completion():
    parts = run("page.segments('a<info>b <c></info><think>d')")
    assert parts == [
        {"inside": None, "text": "a"},
        {"tag": True, "text": "<info>"},
        {"inside": "info", "text": "b <c>"},
        {"tag": True, "text": "</info>"},
        {"tag": True, "text": "<think>"},
        {"inside": "think", "text": "d"},
    ]
    cut = run("page.segments(['<answer>4', 7, 'end'], 'think')")
    assert cut == [
        {"tag": True, "text": "<answer>"},
        {"inside": "answer", "text": "4"},
        {"cut": 7},
        {"inside": None, "text": "end"},
    ]
    assert run("['<info>a', '<info>a</info>', '', null].map(page.leftOpen)") == ["info", None, None, None]


def test_numbers_and_axes():
    values = [0, 1, 0.123456, -0.353, 1234.5, 123456, 0.0001, None]
    assert run("values.map(page.short)", values=values) == [
        *("0", "1", "0.123", "-0.353", "1235", "1.2e5", "1.0e-4", "none"),
    ]
    assert run("page.ticks(0, 1, 3)") == [0, 0.5, 1]
    assert run("page.ticks(3, 97, 4)") == [20, 40, 60, 80]
    assert run("page.extent([0.2, 0.9])") == [0, 1]
    assert run("page.extent([5, 5])") == [2.5, 7.5]
    assert run("page.extent([10, 20])") == [9.2, 20.8]
    assert run("page.extent([0, 100])") == [0, 108]
    assert run("page.nearest([1, 5, 10], 7)") == 1
