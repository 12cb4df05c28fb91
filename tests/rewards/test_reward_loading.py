# SPDX-License-Identifier: Apache-2.0
import asyncio
import functools
import inspect

import pytest

from open_r1_vision.rewards import accuracy_reward, caption_reward, format_reward
from open_r1_vision.rewards.loading import checked, load_rewards, required_columns, reward_name

ACCURACY = "open_r1_vision.rewards.accuracy_reward"
FORMAT = "open_r1_vision.rewards.format_reward"


def test_functions_and_settings():
    accuracy, formatting = load_rewards([ACCURACY, FORMAT], {FORMAT: {"sections": ["think", "answer"]}})
    assert accuracy is accuracy_reward
    assert reward_name(formatting) == "format_reward"
    assert formatting(completions=["<think>t</think><answer>a</answer>"]) == [1]


@pytest.mark.parametrize(
    ("names", "kwargs", "message"),
    [
        (["accuracy_reward"], {}, "'accuracy_reward' is not a dotted path"),
        (["no_such_package.reward"], {}, "no module 'no_such_package'"),
        (["open_r1_vision.rewards.acuracy_reward"], {}, "has no 'acuracy_reward'"),
        (["open_r1_vision.rewards.__all__"], {}, "is a list, but something callable is needed"),
        ([ACCURACY, ACCURACY], {}, "are both called 'accuracy_reward'"),
        ([ACCURACY, "open_r1_vision.rewards.accuracy.accuracy_reward"], {}, "are both called 'accuracy_reward'"),
        (
            [FORMAT],
            {FORMAT: {"section": ["think"]}},
            r"no setting 'section' \(did you mean 'sections'\?\).*It takes: sections",
        ),
        ([ACCURACY], {ACCURACY: {"tolerance": 1}}, "no setting 'tolerance'. It takes: answer_form"),
        ([ACCURACY], {ACCURACY: {"problem": "?"}}, "the trainer passes the column 'problem'"),
        ([ACCURACY], {ACCURACY: {"completions": []}}, "the trainer passes the column 'completions'"),
        ([FORMAT], {ACCURACY: {}}, "settings for the reward .*accuracy_reward', which is not among"),
    ],
)
def test_wrong_recipes(names, kwargs, message):
    with pytest.raises(ValueError, match=message):
        load_rewards(names, kwargs)


def test_setting_that_is_a_column_of_this_data_set():
    with pytest.raises(ValueError, match="the trainer passes the column 'sections'"):
        load_rewards([FORMAT], {FORMAT: {"sections": ["think"]}}, columns=["id", "sections"])


def test_required_columns():
    def reward(completions, solution, key_words, *, weight, scale=1.0, **columns):
        return [1.0 for _ in completions]

    assert required_columns(accuracy_reward) == ["solution", "problem_type"]
    assert required_columns(caption_reward) == ["solution", "problem_type"]
    assert required_columns(format_reward) == []
    assert required_columns(functools.partial(reward, weight=2)) == ["solution", "key_words"]
    assert required_columns(checked(reward)) == ["solution", "key_words", "weight"]


class SyncReward:
    def __call__(self, completions, **columns):
        return [1.0 for _ in completions]


class AsyncReward:
    async def __call__(self, completions, **columns):
        return [1.0 for _ in completions]


async def async_reward(completions, **columns):
    return [1.0 for _ in completions]


@pytest.mark.parametrize(
    ("reward", "name", "is_async"),
    [
        (format_reward, "format_reward", False),
        (functools.partial(format_reward, sections=["think"]), "format_reward", False),
        (SyncReward(), "SyncReward", False),
        (async_reward, "async_reward", True),
        (functools.partial(async_reward), "async_reward", True),
        (AsyncReward(), "AsyncReward", True),
    ],
)
def test_checked_keeps_name_and_kind(reward, name, is_async):
    wrapper = checked(reward)
    assert wrapper.__name__ == name
    assert inspect.iscoroutinefunction(wrapper) is is_async
    result = wrapper(completions=["a", "b"])
    assert len(asyncio.run(result) if is_async else result) == 2


def test_checked_lets_good_rewards_through():
    assert checked(lambda completions, **columns: [0, 0.5, None, True])(["a"] * 4) == [0, 0.5, None, True]
    assert checked(accuracy_reward)(["<answer>7</answer>"], ["7"], ["number"]) == [1]
    assert checked(caption_reward)(caption_answer=["7"], solution=["7"], problem_type=["number"]) == [1]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([1.0], "'reward' returned 1 values for 2 completions, the rows with id 'row-1', 'row-2'. Return one number"),
        ((1.0, 1.0), "'reward' returned a tuple for the rows with id 'row-1', 'row-2'. Return a list"),
        (None, "'reward' returned a NoneType"),
        ([1.0, float("nan")], r"'reward' returned nan for the row with id 'row-2' \(completion 1\). Return a finite"),
        (
            [float("inf"), 1.0],
            "'reward' returned inf for the row with id 'row-1'.*None if the completion is not scored",
        ),
        (["1", 1.0], "'reward' returned '1' for the row with id 'row-1'"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_checked_names_reward_and_row(result, message, is_async):
    def reward(completions, **columns):
        return result

    async def reward_async(completions, **columns):
        return result

    reward_async.__name__ = "reward"
    batch = {"completions": ["a", "b"], "id": ["row-1", "row-2"]}
    with pytest.raises(ValueError, match=message):
        asyncio.run(checked(reward_async)(**batch)) if is_async else checked(reward)(**batch)


def test_checked_says_which_reward_raised_on_which_rows():
    def reward(completions, **columns):
        return [1 / 0]

    async def async_failure(completions, **columns):
        raise KeyError("solution")

    with pytest.raises(
        RuntimeError, match="'reward' raised ZeroDivisionError for the rows with id 0.*and 2 more: divi"
    ):
        checked(reward)(completions=["a"] * 20, id=[row for row in range(10) for _ in range(2)])
    with pytest.raises(
        RuntimeError, match="'async_failure' raised KeyError for a batch without the column .id."
    ) as info:
        asyncio.run(checked(async_failure)(completions=["a"]))
    assert isinstance(info.value.__cause__, KeyError)
