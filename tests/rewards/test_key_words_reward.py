# SPDX-License-Identifier: Apache-2.0
import pytest

from open_r1_vision.rewards import key_words_reward
from open_r1_vision.rewards.loading import checked

TEXT = """### Image Description:
A red circle beside Triangle ABC, with AB = 13 cm.
### Rationales: two categories of cats
### Step 1: 3/4
### The final answer is: 7"""


@pytest.mark.parametrize(
    ("key_words", "words", "parts"),
    [
        (["red circle", "triangle abc", "AB = 13", "13 cm"], 1, 1),
        (["red", "blue", "circle", "square"], 0.5, 0.5),
        (["3", "cat", "ABC"], 1 / 3, 2 / 3),
        (["7", "cats"], 0, 0),
        (["Red", "red ", "RED", "", "blue"], 0.5, 0.5),
    ],
)
def test_the_share_of_the_words_in_the_description(key_words, words, parts):
    assert key_words_reward([TEXT], [key_words]) == [pytest.approx(words)]
    if "cat" not in key_words:
        assert key_words_reward([TEXT], [key_words], whole_words=False) == [pytest.approx(parts)]


def test_the_authors_rule():
    def reward(key_words, **options):
        return key_words_reward([TEXT], [key_words], **options)[0]

    assert reward(["cats", "cat", "3", "7"]) == 0
    assert reward(["cats", "cat", "3", "7"], where="response") == 0.5
    assert reward(["cats", "cat", "3", "7"], where="response", whole_words=False) == 1
    assert reward(["cats", "cat", "3", "7"], whole_words=False) == 0.25


def test_a_list_of_words_after_the_description_earns_nothing():
    listed = "### Image Description: a page\n### Rationales: red circle blue square"
    words = ["red circle", "blue square"]
    assert key_words_reward([listed], [words]) == [0]
    assert key_words_reward([listed], [words], where="response") == [1]


def test_rows_without_key_words_or_description():
    completions = [TEXT, TEXT, TEXT, "no headers", [{"role": "assistant", "content": TEXT}]]
    words = [None, [], [" "], ["red"], ["red"]]
    assert key_words_reward(completions, words) == [None, None, None, 0.0, 1.0]
    assert key_words_reward(["<info>red</info>"], [["red"]], description_form="tags") == [1.0]


@pytest.mark.parametrize("key_words", ["red", [3, "red"], [["red"]], [None]])
def test_key_words_that_are_no_strings_are_refused_with_the_row(key_words):
    with pytest.raises(ValueError, match="The key words of row 'page-7' are .*give a list of strings, or None"):
        key_words_reward([TEXT, TEXT], [["red"], key_words], id=["page-6", "page-7"])
    with pytest.raises(RuntimeError, match="key_words_reward.*rows with id 'page-7'"):
        checked(key_words_reward)(completions=[TEXT], key_words=[key_words], id=["page-7"])


def test_unknown_options():
    with pytest.raises(ValueError, match="where is 'caption': set it to description or response"):
        key_words_reward([TEXT], [["red"]], where="caption")
    with pytest.raises(ValueError, match="description_form is 'info'"):
        key_words_reward([TEXT], [["red"]], description_form="info")
