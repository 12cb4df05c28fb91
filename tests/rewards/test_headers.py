# SPDX-License-Identifier: Apache-2.0
import time

import pytest

from open_r1_vision.rewards import accuracy_reward, sections_format_reward
from open_r1_vision.rewards.answers import extract_answer
from open_r1_vision.rewards.headers import extract_description, extract_final_answer, split_sections

WHOLE = """### Image Description:
A triangle ABC with AB = 3.

### Rationales:
The sides decide.

### Let's think step by step.

### Step 1:
3 + 4 = 7.

### Step 2:
7 it is.

### The final answer is: 7"""


def test_the_sections_of_a_whole_completion():
    before, sections = split_sections(f"Well.\n{WHOLE}")
    assert before == "Well."
    assert [tuple(section) for section in sections] == [
        ("description", 0, "A triangle ABC with AB = 3."),
        ("rationales", 0, "The sides decide."),
        ("thinking", 0, ""),
        ("step", 1, "3 + 4 = 7."),
        ("step", 2, "7 it is."),
        ("answer", 0, "7"),
    ]
    assert split_sections("nothing ### here") == ("nothing ### here", [])


@pytest.mark.parametrize(
    ("text", "description"),
    [
        (WHOLE, "A triangle ABC with AB = 3."),
        ("###image  description: a\nb ###  RATIONALES: c", "a\nb"),
        ("### Image Description: a", None),
        ("### Rationales: c ### Image Description: a", None),
        ("### Image Description: ### Rationales: c", None),
        ("### Image Description: a ### Step 1: b ### Rationales: c", None),
        ("### Image Description: a ### Rationales: b ### Image Description: c ### Rationales: d", "a"),
        ("#### Image Description: a ### Rationales: b", None),
        ("<info>a</info>", None),
    ],
)
def test_the_description(text, description):
    assert extract_description(text) == description


def test_the_description_in_tags():
    assert extract_description("<info> a </info> ### Image Description: b ### Rationales:", "tags") == "a"
    with pytest.raises(ValueError, match="description_form is 'box': set it to sections or tags"):
        extract_description("", "box")


@pytest.mark.parametrize(
    ("text", "line", "answer"),
    [
        (WHOLE, "7", "7"),
        ("### The final answer is:\n\n7 cm\nThat is all.", "7 cm", "7 cm"),
        ("###the final answer is 7", "7", "7"),
        ("### The final answer is: 6\n### Step 3: no\n### The final answer is: 7", "7", "7"),
        ("### The final answer is: 7 ### Step 3: or 8", "7", "7"),
        (r"### The final answer is: $\boxed{7}$", r"$\boxed{7}$", "7"),
        ("### The final answer is: **B**", "**B**", "B"),
        ("### The final answer is: 7\n### The final answer is:", None, None),
        ("### The final answer is: \n \n", None, None),
        ("The final answer is: 7", None, None),
        (r"\boxed{7} <answer>7</answer>", None, None),
    ],
)
def test_the_answer(text, line, answer):
    assert extract_final_answer(text) == line
    assert extract_answer(text, "sections") == answer


def test_accuracy_by_sections():
    columns = {"solution": ["7"] * 3, "problem_type": ["number"] * 3}
    completions = [WHOLE, "<answer>7</answer>", "### The final answer is: 7."]
    assert accuracy_reward(completions, **columns, answer_form="sections") == [1, 0, 1]


#: A completion, whether it is in order, and whether the authors' rule takes it.
FORMATS = [
    (WHOLE, 1, 1),
    (f"\n{WHOLE}\n", 1, 1),
    (WHOLE.replace("### Let's think step by step.\n\n", ""), 1, 1),
    (WHOLE.replace("step by step.", "step by step. Slowly."), 1, 1),
    (WHOLE.replace("'", "’").lower(), 1, 1),
    (f"Well. {WHOLE}", 0, 1),
    (f"{WHOLE}\nIndeed.", 0, 1),
    (WHOLE.replace("Step 2", "Step 3"), 0, 1),
    (WHOLE.replace("Step 2", "Step 1"), 0, 1),
    (WHOLE.replace("7 it is.", ""), 0, 1),
    (WHOLE.replace("### Step 1:\n3 + 4 = 7.", "").replace("Step 2", "Step 1"), 1, 1),
    (WHOLE.replace("### Step 1:", "").replace("### Step 2:", ""), 0, 0),
    (WHOLE.replace("### Step 1:", "").replace("Step 2", "Step 1").replace("is: 7", "is:"), 0, 1),
    (f"{WHOLE}\n### The final answer is: 8", 0, 1),
    (f"{WHOLE}{WHOLE}", 0, 1),
    ("\n".join(reversed(WHOLE.split("\n\n"))), 0, 1),
    ("### Step 1: ### The final answer is: ### Rationales: ### Image Description:", 0, 1),
    (WHOLE.replace("### Rationales:", "Rationales:"), 0, 0),
    ("", 0, 0),
]


@pytest.mark.parametrize(("text", "in_order", "lenient"), FORMATS)
def test_the_format(text, in_order, lenient):
    assert sections_format_reward([text]) == [in_order]
    assert sections_format_reward([text], check_order=False) == [lenient]


def test_a_given_start_counts():
    start, rest = WHOLE[:40], WHOLE[40:]
    assert sections_format_reward([rest, [{"role": "assistant", "content": WHOLE}]]) == [0, 1]
    assert sections_format_reward([rest], [start]) == [1]


@pytest.mark.parametrize("text", ["### " * 200_000, "### Step 1:" * 50_000, "###" + " " * 800_000, "#" * 800_000])
def test_time_is_linear(text):
    start = time.perf_counter()
    sections_format_reward([text])
    sections_format_reward([text], check_order=False)
    extract_description(text)
    assert time.perf_counter() - start < 3
