# SPDX-License-Identifier: Apache-2.0
import re
import time

import pytest

from open_r1_vision.data.steps import split_steps


def authors_steps(reasoning):
    """The rule of Hint-GRPO's code."""
    return [piece.strip(" :\n") for piece in re.split(r"Step \d+", reasoning)[1:]]


@pytest.mark.parametrize(
    ("text", "theirs", "ours"),
    [
        ("Step 1. a\nStep 2. b", [". a", ". b"], ["a", "b"]),
        ("### Step 1\na\n### Step 2\nb", ["a\n###", "b"], ["a", "b"]),
        (
            "Step 1: AB = 3.\nStep 2: By Step 1, AC = 4.",
            ["AB = 3.", "By", ", AC = 4."],
            ["AB = 3.", "By Step 1, AC = 4."],
        ),
        ("CE is a line.\nStep 1: a\nStep 2: b", ["a", "b"], ["CE is a line.\na", "b"]),
        ("AB = 3. So AC = 4.", [], ["AB = 3.", "So AC = 4."]),
    ],
)
def test_defects_of_the_authors_rule(text, theirs, ours):
    assert authors_steps(text) == theirs
    assert split_steps(text) == ours


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Step 1: a\nStep 2: b\nStep 3: c", ["a", "b", "c"]),
        ("Step 1: a. Step 2: b. Step 3: c.", ["a.", "b.", "c."]),
        ("Step 1: a Step 2: b (see Step 3) Step 3: c", ["a", "b (see Step 3)", "c"]),
        ("Step 1) a\n\nStep 2) b", ["a", "b"]),
        ("Step 1 - a\nStep 2 – b", ["a", "b"]),
        ("Step 1\na\nStep 2\nb", ["a", "b"]),
        ("Step 1 Find AB\nStep 2 Find AC", ["Find AB", "Find AC"]),
        ("step 1: a\nSTEP 2: b", ["a", "b"]),
        ("**Step 1:** a\n**Step 2**: b\n**Step 3: Area**\nc **d**", ["a", "b", "Area\nc **d**"]),
        ("#### **Step 1: Base**\na\n\n---\n\n#### **Step 2: Height**\nb", ["Base\na", "Height\nb"]),
        ("- Step 1: a\n- Step 2: b", ["a", "b"]),
        ("Step 1:\nStep 2: b\nStep 3: c", ["b", "c"]),
        ("Step 1: a, needed in Step 2: there\nStep 2: b", ["a, needed in Step 2: there", "b"]),
        ("Step 1: 1. a\n2. b\nStep 2: c", ["1. a\n2. b", "c"]),
        ("Step 1: a.\nStep 2: b.\nStep 1: that was a.", ["a.", "b.\nStep 1: that was a."]),
    ],
)
def test_steps(text, expected):
    assert split_steps(text) == split_steps(text, "steps") == expected


@pytest.mark.parametrize(
    "text",
    [
        "We follow Step 1 and Step 2 of the book. Step 1 gives 3 and Step 2 gives 4.",
        "Steps 1 and 2: both are easy. Then see Step 3: it is not.",
        "Step 1.5 and Step 2.5: no such steps.",
        "As in Step 2: AB = 3. As in Step 3: AC = 4.",
        "That comes later. Step 4: too late. Step 5: later still.",
    ],
)
def test_mentions_of_steps_do_not_split(text):
    assert split_steps(text, "steps") == [text]
    assert " ".join(split_steps(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1. a\n2. b\n3. c", ["a", "b", "c"]),
        ("1) a\n2) b", ["a", "b"]),
        ("(1) a\n(2) b", ["a", "b"]),
        ("So:\n\n1. **Base**: a\n2. **Height**: b", ["So:\n**Base**: a", "**Height**: b"]),
        ("**1. Base**\na\n**2. Height**\nb", ["Base\na", "Height\nb"]),
        ("1. a\n   1. i\n   2. ii\n2. b", ["a\n   1. i\n   2. ii", "b"]),
        ("We know: 1. AB is 3.5 cm. 2. BC is 4 cm.", ["We know:\nAB is 3.5 cm.", "BC is 4 cm."]),
        ("1. AB = 1.5 cm\n2. AC = 2.5 cm", ["AB = 1.5 cm", "AC = 2.5 cm"]),
    ],
)
def test_numbered_lists(text, expected):
    assert split_steps(text) == split_steps(text, "numbers") == expected


@pytest.mark.parametrize(
    "text", ["1.5 cm is AB.\n2.5 cm is BC.", "Then x is: 1. So y is: 2. Now z.", "2. b\n3. c", "x = 1. Y = 2. Z = 3."]
)
def test_decimals_and_values_are_no_list(text):
    assert split_steps(text, "numbers") == [text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("### Base\na. A\n### Height\nb. B", ["Base\na. A", "Height\nb. B"]),
        ("**Base**\na\n\n**Height:**\nb", ["Base\na", "Height:\nb"]),
        ("Let us go.\n## Base\na\n## **Height**\nb", ["Let us go.\nBase\na", "Height\nb"]),
    ],
)
def test_headings(text, expected):
    assert split_steps(text) == split_steps(text, "headings") == expected


def test_bold_words_at_both_ends_of_a_line_are_no_heading():
    text = "**AB** equals **BC**\n**BC** equals **CD**"
    assert split_steps(text, "headings") == [text]


@pytest.mark.parametrize(
    "expected",
    [
        ["AB = 3.5 cm.", "Then AC = 7 cm."],
        ["The line passes through A.", "It meets BC at D."],
        ["∠A = 40°.", "∠B = 50°.", "180 - 90 = 90."],
        ["See Fig. 2, i.e. AB, e.g. AC is approx. 5 m vs. Fig. 3.", "Is it?", "Yes!"],
        ["So $x = 3. Then$ holds.", "Next."],
        ["We have\n\n\\[ x = 3. \\]", "So y = 4."],
        ["The area is\n\n$$ a \\cdot b. $$", "thus 12."],
        ["AB = 3. y = 4 follows."],
        ['He said "AB."', "So it is."],
        ["We know:\n- AB = 3", "- AC = 4"],
        ["The point A. b is not it."],
        ["One line"],
    ],
)
def test_sentences(expected):
    text = "\n\n".join(expected) if "\n" in expected[0] else " ".join(expected)
    assert split_steps(text) == split_steps(text, "sentences") == expected


def test_sentences_in_chinese():
    assert split_steps("如图，AB = 3。所以 AC = 4。") == ["如图，AB = 3。", "所以 AC = 4。"]


def test_an_equation_stays_with_the_sentence_that_announces_it():
    assert split_steps("Therefore:\n\nx = 3\n\nSo y = 4.") == ["Therefore:\n\nx = 3", "So y = 4."]


@pytest.mark.parametrize(
    ("text", "without_labels"),
    [
        (
            "Look.  Step 1: AB = 3.5 cm. Step 2: From Step 1, AC = 4.\n\nStep 3: Done.",
            "Look. AB = 3.5 cm. From Step 1, AC = 4. Done.",
        ),
        ("Look:\n1. AB = 1.5 cm, see (2).\n2. AC. So 3. is it.\n", "Look: AB = 1.5 cm, see (2). AC. So 3. is it."),
        ("### A\na b.\n\n### B **c**\nd 1. e", "A a b. B **c** d 1. e"),
        ("a b. C d\n\ne: F. G 1.5. H", "a b. C d e: F. G 1.5. H"),
    ],
)
def test_joined_by_a_space_the_steps_are_the_text_but_for_its_labels(text, without_labels):
    steps = split_steps(text)
    assert len(steps) > 1
    assert " ".join(" ".join(steps).split()) == without_labels


@pytest.mark.parametrize("way", ["auto", "steps", "numbers", "headings", "sentences"])
def test_no_text_has_no_steps(way):
    assert split_steps(" \n", way) == []
    assert split_steps(" one. Two ", way) == (["one.", "Two"] if way in ("auto", "sentences") else ["one. Two"])


def test_another_way_is_refused():
    with pytest.raises(
        ValueError, match="by 'lines': set `steps` to one of auto, steps, numbers, headings, sentences"
    ):
        split_steps("a", "lines")


@pytest.mark.parametrize(
    "text", ["Step 1: " * 2_000, "1. A " * 3_000, "**" * 5_000, "A. " * 5_000, "$" * 9_999, "#" * 9_999]
)
def test_hostile_texts_cost_little(text):
    start = time.perf_counter()
    split_steps(text)
    assert time.perf_counter() - start < 2
