# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

from open_r1_vision.rewards import accuracy_reward


def test_strings_and_messages():
    text = "<info>i</info> <think>It is 8.</think> <answer>7</answer>"
    completions = [text, [{"role": "assistant", "content": text}]]
    assert accuracy_reward(completions, solution=["7", "<answer> 7 </answer>"], problem_type=["number"] * 2) == [1, 1]


@pytest.mark.parametrize(
    "completion",
    ["7", "<think>7</think>", "<think>7</think> <answer>8</answer> 7", "<answer>7", "<answer></answer> 7", ""]
    + ["<answer>7 <answer>8</answer></answer>", "<answer>7</answer> <answer>8</answer>", "<answer>7 or 8</answer>"],
)
def test_only_the_answer_tag_counts(completion):
    assert accuracy_reward([completion], ["7"], ["number"]) == [0]


def test_each_row_has_its_own_type_and_problem():
    rewards = accuracy_reward(
        completions=["<answer>cat</answer>", "<answer>kitten</answer>", "<answer>1</answer>", "<answer>1</answer>"],
        solution=["B", "sitting", None, ""],
        problem_type=["choice", "OCR", "number", None],
        problem=["Which?\nA. dog\nB. cat", "Read it.", "", ""],
        id=["a", "b", "c", "d"],
    )
    assert rewards == [1, pytest.approx(4 / 7), None, 0]


def test_unknown_problem_type():
    with pytest.raises(ValueError, match="'sum' is not known"):
        accuracy_reward(["<answer>7</answer>"], ["7"], ["sum"])


def test_rewards_import_neither_torch_nor_a_model_library():
    code = (
        "import sys, open_r1_vision.rewards.loading; from open_r1_vision.rewards import accuracy_reward; "
        "accuracy_reward(['<answer>7</answer>'], ['7'], ['number']); "
        "sys.exit(','.join({'torch', 'transformers', 'trl', 'vllm', 'sympy', 'nltk'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == ""
